"""Whether the world has shifted."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.errors import BundleError
from edgessl.runtimes.adapt.drift import Drift, DriftConfig
from tests.runtimes.adapt.worlds import BLOCK, DAY, FOG, LEAST, NIGHT, RAIN, SET, SIZE, drift, frames, judge, live, same


def test_the_score_is_the_squared_mean_displacement_from_the_nearest_source_frame():
    rng = np.random.default_rng(0)
    mean, whiten, bank = rng.normal(size=SIZE), rng.normal(size=(4, SIZE)) / 9, rng.normal(size=(7, 4))
    source = {"drift.mean": mean, "drift.whiten": whiten, "drift.bank": bank, "drift.threshold": np.array(1e9)}
    world = Drift(source, DriftConfig(**SET))
    seen = rng.normal(size=(11, SIZE))
    judge(world, world.whitened(seen))
    points = [whiten @ (row - mean) for row in seen]
    moved = [point - min(bank, key=lambda b: np.linalg.norm(point - b)) for point in points]
    assert world.score == pytest.approx(np.mean(np.mean(moved, axis=0) ** 2))


def test_what_the_sources_own_frames_are_displaced_by_is_no_drift():
    """Each source frame from the nearest that is not one of its neighbours in time."""
    bank = np.random.default_rng(0).gamma(1.0, 1.0, (80, SIZE))
    source = {"drift.mean": np.zeros(SIZE), "drift.whiten": np.eye(SIZE), "drift.threshold": np.array(1e9)}
    world = Drift(source | {"drift.bank": bank}, DriftConfig(**SET | {"block": 1, "least": 1, "score_clip": 1e9}))
    bias = np.zeros(SIZE)
    for row, point in enumerate(bank):
        others = [other for at, other in enumerate(bank) if abs(at - row) > 5]
        bias += (point - min(others, key=lambda b: np.linalg.norm(point - b))) / len(bank)
    judge(world, bank[:1])
    assert world.score == pytest.approx(np.mean(bias**2))


def test_many_clean_blocks_raise_no_alarm():
    world = drift()
    assert live(world, DAY * 0.5, 400) == [None] * 400
    assert world.known == ()
    assert world.shift == -1


def test_a_shift_is_seen_and_its_end_too():
    world = drift()
    assert not judge(world, frames(20, DAY))
    assert judge(world, frames(BLOCK, NIGHT))
    assert world.shifted
    assert judge(world, frames(BLOCK, DAY * 0))
    assert not world.shifted


def test_between_enter_and_leave_nothing_changes():
    between = frames(BLOCK, 0.33 * NIGHT)
    world = drift()
    live(world, NIGHT, 3)
    assert not judge(world, between)
    assert world.shifted
    judge(world, frames(BLOCK, 0 * DAY))
    assert not world.shifted
    assert not judge(world, between)
    assert not world.shifted


def test_a_flash_is_no_shift():
    world = drift()
    judge(world, frames(BLOCK, DAY))
    assert not judge(world, frames(1, DAY * 1e5))


def test_a_few_frames_decide_nothing():
    assert not judge(drift(), frames(LEAST - 1, NIGHT))


def test_no_frames_decide_nothing():
    world = drift()
    judge(world, frames(BLOCK, NIGHT))
    assert not judge(world, frames(0, NIGHT))
    assert world.shifted


def test_frames_one_by_one_decide_as_a_batch_does():
    world, other = drift(), drift()
    night = frames(BLOCK, NIGHT)
    judge(world, night)
    for frame in night:
        judge(other, frame[None])
    assert world.shifted
    assert other.shifted


def test_a_weak_shift_is_seen_by_the_slow_test_only():
    """A third of the threshold: no block for itself, four of them together."""
    weak = 0.23 * NIGHT  # score 1.3
    assert live(drift(slow_alarm=1e9), weak, 40) == [None] * 40
    found = live(drift(), weak, 12)
    assert found[:3] == [None] * 3
    assert 0 in found[3:5]


def test_a_weak_shift_once_seen_stays():
    found = live(drift(), 0.23 * NIGHT, 60)
    assert found[4:] == [0] * 56


def test_short_scenes_are_no_shifts_of_their_own_where_blocks_are_not_as_much_longer():
    """Blocks of four scenes of eight frames: the mean of one scatters as that of four frames does, not of 32."""
    turns = 0
    for seed in range(5):
        world, rng = drift(stretch=2), np.random.default_rng(seed)
        for number, scene in enumerate(NIGHT + rng.normal(0, 5.0, (300, SIZE))):
            seen = frames(8, scene, seed=(seed, number))
            judge(world, seen)
            if world.shifted and world.present:
                turns += bool(world.vote(seen)) and number >= 40
    assert turns == 0


def test_scenes_of_a_video_are_no_shifts_of_their_own():
    def decisions(stretch):
        world, found = drift(stretch=stretch), 0
        scenes = NIGHT + np.random.default_rng(1).normal(0, 4.0, (200, SIZE))
        for number, scene in enumerate(scenes):
            seen = frames(BLOCK, scene, seed=number)
            changed = judge(world, seen)
            if world.shifted and world.present:
                changed |= bool(world.vote(seen))
            found += changed and number >= 40  # it takes some scenes to see that it is a video
        return found, world

    assert decisions(1)[0] > 20  # a block is a scene, and scenes lie far apart
    found, world = decisions(8)
    assert found <= 2
    assert world.shifted
    assert world.block == 8 * BLOCK


def test_a_parked_camera_never_raises_the_slow_alarm():
    """It looks at one odd place for hours: beyond the slow alarm, and below the one for a block."""
    world, other = drift(), drift()
    odd = np.repeat(frames(BLOCK, 0.3 * NIGHT)[:1], BLOCK, axis=0)
    for _ in range(100):
        assert not judge(world, odd, novel=False)
    found = [judge(other, odd, novel=True) for _ in range(4)]
    assert found == [False, False, False, True]


def test_half_a_block_of_day_teaches_nothing():
    world = drift()
    live(world, NIGHT, 3)
    assert world.present
    judge(world, frames(BLOCK, DAY * 0))
    assert not world.present


@pytest.mark.parametrize("blocks", [0, 1, 3, 5])
def test_a_copy_goes_back_exactly(blocks):
    """In the middle of a window and of a block of votes, with one block apart, with two shifts known."""
    world, other = drift(), drift()
    for at in (NIGHT, DAY * 0, FOG):
        live(world, at, blocks)
        judge(world, frames(5, at))
        if world.shifted and world.present:
            world.vote(frames(5, at))
    if world.shifted:
        world.vote(frames(BLOCK, 3 * RAIN))
    other.restore(world.state())
    same(other.state(), world.state())
    for at in (FOG, DAY * 0, NIGHT, RAIN):
        assert live(world, at, 3, seed=1) == live(other, at, 3, seed=1)
    same(other.state(), world.state())
    assert world.known == other.known


def test_a_copy_does_not_change_afterwards():
    world = drift()
    live(world, NIGHT, 3)
    copy = world.state()
    kept = {name: value.copy() for name, value in copy.tensors.items()}
    live(world, FOG, 6)
    for name, value in kept.items():
        np.testing.assert_array_equal(copy.tensors[name], value)
    assert copy.values["shifts.counts"] == {"0": 3}


@pytest.mark.parametrize("missing", ["drift.mean", "drift.whiten", "drift.threshold"])
def test_a_bundle_without_a_drift_reference_is_refused(missing):
    source = {"drift.mean": np.zeros(SIZE), "drift.whiten": np.eye(SIZE), "drift.threshold": np.array([4.0])}
    del source[missing]
    with pytest.raises(BundleError, match=missing):
        Drift(source, DriftConfig())


def test_a_shift_that_came_back_frame_by_frame_does_not_go_again():
    world, changes = drift(block=32, least=16), []
    for at in (NIGHT, DAY * 0, NIGHT):
        for seed in range(256):
            seen = frames(1, at, seed=(1, seed))
            if judge(world, seen):
                changes.append(world.shifted)
            if world.shifted and world.present:
                world.vote(seen)
    assert changes == [True, False, True]


@pytest.mark.parametrize("times", [8, 30, 1000])
def test_the_darkest_night_is_a_shift_too(times):
    """Each of its frames lies beyond the clip."""
    world = drift()
    assert live(world, times * NIGHT, 6) == [0] * 6
    assert live(world, DAY * 0, 3)[-1] is None
    assert live(world, times * NIGHT, 6) == [0] * 6


def test_a_few_odd_frames_are_worth_a_look_and_no_more():
    world = drift(alarm=1.0)
    judge(world, frames(BLOCK, DAY))
    assert not world.suspicious
    assert not judge(
        world, frames(4, DAY * 3)
    )  # score 9 of these four, beyond twice the alarm, and below it for the block
    assert world.suspicious
    live(world, NIGHT, 3)
    assert not world.suspicious
    judge(world, frames(4, DAY * 0))
    assert world.shifted
    assert world.suspicious
