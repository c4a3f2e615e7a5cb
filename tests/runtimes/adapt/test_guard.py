"""When learning has gone wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest

from edgessl.runtimes.adapt.guard import Guard, GuardConfig
from edgessl.runtimes.adapt.shape import Shape

# What these tests rely on, whatever the defaults are.
SET = {"collapse_block": 64, "collapse_spread": 0.3, "collapse_rank": 0.5, "rollbacks": 3}
SET |= {"anchor_cosine": 0.9, "anchor_overlap": 0.6, "lidar": 0.9}


def guard(**options):
    return Guard(GuardConfig(**SET | options))


def embeddings(count, rank, spread, seed=0):
    rng = np.random.default_rng(seed)
    return (spread * rng.normal(size=(count, rank)) @ rng.normal(size=(rank, 9))).astype(np.float32)


def offered(**given):
    """A candidate that changes nothing, but for what is given."""
    same = embeddings(40, 9, 1.0)
    views = views_of(same)
    return {"anchors": same, "anchors_before": same, "views": views, "views_before": views} | given


def views_of(vectors, noise=0.05):
    """Two views of each."""
    rng = np.random.default_rng(7)
    return tuple((vectors + rng.normal(0, noise, vectors.shape)).astype(np.float32) for _ in range(2))


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
    last = np.concatenate([embeddings(16, 9, 1.0, seed) for seed in range(16, 20)])
    assert judge.latest == Shape.of(last)


def test_a_new_shift_is_measured_against_itself():
    """A narrow street at night after a wide square by night is no collapse."""
    judge = guard()
    judge.collapsing(embeddings(64, 9, 1.0))
    judge.forget_shape()
    assert judge.collapsing(embeddings(64, 9, 0.2)) == ""
    assert "spread" in judge.collapsing(embeddings(64, 9, 0.02))


def test_a_candidate_that_changes_nothing_may_serve():
    verdict = guard().judge(**offered())
    assert verdict.passed, verdict.reason
    assert verdict.cosine == pytest.approx(1)
    assert verdict.overlap == 1
    assert verdict.lidar == verdict.lidar_before > 1
    assert verdict.numbers()["reason"] == ""


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"anchors": embeddings(40, 9, 1.0, 1)}, "cosine on the anchors"),
        ({"anchors": embeddings(40, 9, 0.2)}, "spread .* on the anchors"),
        ({"views": views_of(embeddings(40, 9, 0.2), 0.01)}, "spread .* on the memory"),
        ({"views": views_of(embeddings(40, 1, 4.0))}, "LiDAR|rank .* on the memory"),
        ({"views": (np.full((40, 9), np.nan, np.float32), embeddings(40, 9, 1.0))}, "not finite"),
        ({"views": (embeddings(40, 9, 1.0), np.full((40, 9), np.inf, np.float32))}, "not finite"),
        ({"anchors": np.full((40, 9), np.inf, np.float32)}, "not finite"),
    ],
)
def test_a_candidate_that_did_harm_is_refused_with_the_reason(given, match):
    verdict = guard().judge(**offered(**given))
    assert not verdict.passed
    assert re.search(match, verdict.reason), verdict.reason


def test_a_candidate_that_mixes_up_neighbours_is_refused_though_it_turned_no_vector_far():
    """A tight cluster of anchors: whatever moves them a little moves their neighbours."""
    cluster = (np.ones(9) + embeddings(40, 9, 0.01)).astype(np.float32)
    moved = (np.ones(9) + embeddings(40, 9, 0.01, 1)).astype(np.float32)
    verdict = guard(anchor_overlap=0.6).judge(**offered(anchors=moved, anchors_before=cluster))
    assert verdict.cosine > 0.99
    assert "neighbours" in verdict.reason
    assert guard(anchor_overlap=0.0).judge(**offered(anchors=moved, anchors_before=cluster)).passed


def test_noise_that_fills_the_space_does_not_hide_that_little_tells_frames_apart():
    """Spread and rank of the vectors stay; LiDAR, which knows what two views of one frame differ in, does not."""
    noisy = views_of(embeddings(40, 2, 2.0), noise=1.0)
    assert "LiDAR" in guard(lidar=0.9).judge(**offered(views=noisy)).reason
    assert guard(lidar=0.0).judge(**offered(views=noisy)).passed


def test_the_last_rollback_freezes():
    judge = guard(rollbacks=3)
    found = []
    for _ in range(4):
        judge.rolled_back()
        found.append(judge.frozen)
    assert found == [False, False, True, True]


def test_rollbacks_are_forgiven_after_a_long_good_time():
    judge = guard(forgive=100)
    judge.rolled_back()
    judge.collapsing(embeddings(99, 9, 1.0))
    assert judge.rollbacks == 1
    judge.collapsing(embeddings(1, 9, 1.0))
    assert judge.rollbacks == 0


def test_the_good_time_begins_anew_with_each_rollback():
    judge = guard(forgive=100)
    for _ in range(2):
        judge.collapsing(embeddings(60, 9, 1.0))
        judge.rolled_back()
    assert judge.rollbacks == 2


def test_what_was_frozen_for_another_reason_stays_so():
    judge = guard(rollbacks=3)
    judge.frozen = True
    judge.rolled_back()
    assert judge.frozen


def test_what_is_frozen_is_not_forgiven():
    judge = guard(forgive=100, rollbacks=1)
    judge.rolled_back()
    judge.collapsing(embeddings(200, 9, 1.0))
    assert judge.frozen


def test_a_copy_goes_back_exactly():
    judge, other = guard(), guard()
    judge.rolled_back()
    judge.collapsing(embeddings(70, 9, 1.0))
    judge.collapsing(embeddings(33, 9, 1.0, 1))
    judge.quarantined = 5
    other.restore(judge.state())
    assert other.state().values == judge.state().values
    np.testing.assert_array_equal(other.state().tensors["recent"], judge.state().tensors["recent"])
    for seed in (2, 3):
        found = [one.collapsing(embeddings(64, 9, 0.01, seed)) for one in (judge, other)]
        assert found[0] == found[1]
    assert "spread" in found[0]
