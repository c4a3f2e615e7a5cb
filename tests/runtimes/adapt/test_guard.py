"""When to learn, and when to stop."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.errors import BundleError
from edgessl.runtimes.adapt.guard import Guard, GuardConfig
from edgessl.runtimes.adapt.shape import Shape

SIZE = 6


def guard(**options):
    source = {"drift.mean": np.zeros(SIZE), "drift.whiten": np.eye(SIZE), "drift.threshold": np.array([4.0])}
    return Guard(source, GuardConfig(**{"block": 16, "least": 8, "alarm": 1.0, "release": 0.6} | options))


def frames(count, at, seed=0):
    return np.random.default_rng(seed).normal(at, 0.3, (count, SIZE))


def test_the_score_is_the_squared_mean_displacement_from_the_nearest_source_frame():
    rng = np.random.default_rng(0)
    mean, whiten, bank = rng.normal(size=SIZE), rng.normal(size=(4, SIZE)) / 9, rng.normal(size=(7, 4))
    source = {"drift.mean": mean, "drift.whiten": whiten, "drift.bank": bank, "drift.threshold": np.array(1e9)}
    judge = Guard(source, GuardConfig())
    seen = rng.normal(size=(11, SIZE))
    judge.judge(judge.whitened(seen))
    points = [whiten @ (row - mean) for row in seen]
    moved = [point - min(bank, key=lambda b: np.linalg.norm(point - b)) for point in points]
    assert judge.score == pytest.approx(np.mean(np.mean(moved, axis=0) ** 2))


def test_an_unshifted_stream_never_teaches():
    judge = guard()
    for seed in range(50):
        assert not judge.judge(frames(7, 1.0, seed))
    assert not judge.teaches


def test_a_shift_is_seen_and_its_end_too():
    judge = guard()
    judge.judge(frames(20, 1.0))
    assert judge.judge(frames(16, 3.0))
    assert judge.shifted
    assert judge.judge(frames(16, 1.0))
    assert not judge.shifted


def test_between_the_two_thresholds_nothing_changes():
    between = frames(16, np.sqrt(3.2))  # score 3.2: below 4, above 0.6 * 4
    judge = guard()
    assert not judge.judge(between)
    judge.judge(frames(16, 3.0))
    assert not judge.judge(between)
    assert judge.shifted


def test_a_flash_is_no_shift():
    judge = guard()
    judge.judge(frames(16, 1.0))
    assert not judge.judge(frames(1, 1e5))


def test_a_few_frames_decide_nothing():
    assert not guard(least=8).judge(frames(7, 9.0))


def test_frames_one_by_one_decide_as_a_batch_does():
    judge, other = guard(), guard()
    night = frames(16, 3.0)
    judge.judge(night)
    for frame in night:
        other.judge(frame[None])
    assert judge.shifted
    assert other.shifted


def test_a_shift_the_other_way_is_another_one():
    judge = guard(block=8)
    night, fog = frames(8, 4.0), frames(8, -4.0)
    judge.judge(night)
    assert [judge.another_shift(frames(8, 4.0, seed)) for seed in range(5)] == [False] * 5
    judge.judge(fog)
    assert judge.another_shift(fog)


def test_coming_home_is_no_other_shift():
    judge = guard(block=8)
    judge.judge(frames(8, 4.0))
    judge.another_shift(frames(8, 4.0))
    judge.judge(frames(8, 0.5))
    assert not judge.another_shift(frames(8, 0.5))


def test_a_known_shift_is_over_as_soon_as_a_block_leaves_its_direction():
    """Aside is beyond the alarm, but off the night's way and small beside it: the day from a new viewpoint."""
    judge = guard()
    judge.judge(frames(16, 7.0))
    judge.another_shift(frames(16, 7.0))
    aside = frames(16, 0.0) + np.array([5.0, -5.0, 0, 0, 0, 0])
    assert (aside.mean(0) ** 2).mean() > 4.0
    assert judge.judge(aside)
    assert not judge.shifted
    assert not judge.judge(aside), "what is small beside the known shift must not look like another one"


def test_what_is_as_far_as_the_known_shift_is_a_shift():
    judge = guard(order=0.25)
    judge.judge(frames(16, 4.0))
    judge.another_shift(frames(16, 4.0))
    judge.judge(frames(16, 0.0))
    assert judge.judge(frames(16, 0.0) + np.array([9.0, -9.0, 0, 0, 0, 0]))
    assert judge.shifted


def embeddings(count, rank, spread, seed=0):
    rng = np.random.default_rng(seed)
    return (spread * rng.normal(size=(count, rank)) @ rng.normal(size=(rank, 9))).astype(np.float32)


def test_the_shape_is_total_variance_and_effective_rank():
    square = np.repeat(np.eye(3), 4, axis=0) * 2
    shape = Shape.of(np.concatenate([square, -square]))
    assert shape.spread == pytest.approx(4)
    assert shape.rank == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize(
    ("after", "match"),
    [(embeddings(64, 9, 0.2), "spread"), (embeddings(64, 1, 4.0), "rank"), (embeddings(64, 9, np.nan), "finite")],
)
def test_collapse_is_noticed(after, match):
    judge = guard()
    assert judge.collapsing(embeddings(64, 9, 1.0)) == ""
    assert match in judge.collapsing(after)


def test_what_stays_as_it_was_is_no_collapse():
    judge = guard()
    assert [judge.collapsing(embeddings(16, 9, 1.0, seed)) for seed in range(20)] == [""] * 20


def test_a_candidate_that_leaves_the_anchors_is_refused():
    judge = guard()
    before, other = embeddings(40, 9, 1.0), embeddings(40, 9, 1.0, 1)
    same = {"replayed": before, "replayed_before": before, "anchors_before": before}
    assert judge.refuses(anchors=before, **same) == ""
    assert "cosine" in judge.refuses(anchors=other, **same)


def test_the_third_rollback_freezes():
    judge = guard()
    judge.judge(frames(16, 3.0))
    for frozen in (False, False, True):
        judge.rolled_back()
        assert judge.frozen is frozen
    assert not judge.teaches


def test_rollbacks_are_forgiven_after_a_long_good_time():
    judge = guard(forgive=100)
    judge.rolled_back()
    judge.collapsing(embeddings(100, 9, 1.0))
    assert judge.rollbacks == 0


def test_a_copy_goes_back_exactly():
    judge, other = guard(), guard()
    judge.judge(frames(16, 3.0))
    judge.another_shift(frames(20, 3.0))
    judge.collapsing(embeddings(70, 9, 1.0))
    other.restore(judge.state())
    assert other.state().values == judge.state().values
    assert other.judge(frames(16, 0.5)) == judge.judge(frames(16, 0.5))


def test_a_bundle_without_a_drift_reference_is_refused():
    with pytest.raises(BundleError, match=r"drift\.mean"):
        Guard({}, GuardConfig())
