"""Whether the world has shifted, and to which of the shifts that are known."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.errors import BundleError
from edgessl.runtimes.adapt.drift import Drift, DriftConfig

SIZE, BLOCK, LEAST = 6, 16, 8
# Values that these tests rely on, whatever the defaults are; the threshold is 4.
SET = {
    "block": BLOCK,
    "stretch": 1,
    "least": LEAST,
    "score_clip": 16.0,
    "alarm": 1.0,
    "slow": 4,
    "slow_alarm": 0.15,
    "enter": 0.4,
    "leave": 0.25,
    "order": 0.25,
    "other": 0.5,
    "known": 16,
}
DAY = np.ones(SIZE)
NIGHT, FOG, RAIN = (5.0 * np.array(way) for way in ([1, 1, 1, 1, 1, 1], [1, -1, 1, -1, 1, -1], [1, 1, -1, -1, 0, 0]))


def drift(**options):
    source = {"drift.mean": np.zeros(SIZE), "drift.whiten": np.eye(SIZE), "drift.threshold": np.array([4.0])}
    return Drift(source, DriftConfig(**SET | options))


def frames(count, at, seed=0):
    return at + np.random.default_rng(seed).normal(0, 0.3, (count, SIZE))


def judge(world, seen, *, novel=True):
    return world.judge(seen, np.full(len(seen), novel))


def live(world, at, blocks, seed=0):
    """Blocks as the learner gives them: judged, and voted where they may teach; which shift each was seen in, or None."""
    found = []
    for block in range(blocks):
        seen = frames(BLOCK, at, seed=(seed, block))
        judge(world, seen)
        if world.shifted and world.present:
            world.vote(seen)
        found.append(world.shift if world.shifted else None)
    return found


def same(one, two):
    assert one.values == two.values
    assert one.tensors.keys() == two.tensors.keys()
    for name, value in one.tensors.items():
        np.testing.assert_array_equal(value, two.tensors[name], strict=True)


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


def test_votes_one_by_one_count_as_a_batch_does():
    world, other = drift(), drift()
    for one in (world, other):
        judge(one, frames(BLOCK, NIGHT))
    votes = frames(5 * BLOCK + 3, NIGHT, 1)
    world.vote(votes)
    for vote in votes:
        other.vote(vote[None])
    same(world.state(), other.state())
    assert world.confirmed == 5


def test_a_shift_is_remembered_by_what_its_votes_have_on_average():
    world = drift()
    live(world, NIGHT, 1)
    votes = frames(4 * BLOCK, NIGHT, 5)
    world = drift()
    judge(world, frames(BLOCK, NIGHT))
    world.vote(votes)
    np.testing.assert_allclose(world.state().tensors["signature.0"], votes.mean(0), atol=1e-12)


def test_two_shifts_beyond_the_clip_are_told_apart_by_how_far_they_go():
    """All of a frame's way is cut to 8; twelve and thirty-six lie in the same direction."""
    world, near, far = drift(), 2.4 * NIGHT, 7.2 * NIGHT
    assert live(world, near, 3) == [0] * 3
    assert live(world, far, 4, seed=1)[-1] == 1
    assert world.known == (0, 1)
    assert live(world, near, 4, seed=2)[-1] == 0
    other = drift()
    other.restore(world.state())
    assert live(other, far, 4, seed=3) == live(world, far, 4, seed=3)
    same(other.state(), world.state())


def test_votes_of_another_shift_make_the_next_frames_worth_a_look():
    world = drift()
    live(world, NIGHT, 2)
    assert not world.suspicious
    world.vote(frames(BLOCK, 3 * NIGHT, 7))
    assert world.suspicious
    world.vote(frames(BLOCK, NIGHT, 8))
    assert not world.suspicious


def test_dusk_takes_its_signature_along():
    world = drift(score_clip=1e9)
    for step in range(80):
        live(world, NIGHT * (1 + step / 40), 1, seed=step)
    assert world.known == (0,)
    assert world.shifted
    assert world.state().tensors["signature.0"].mean() > 2.5 * NIGHT[0]  # of 3; the mean of all is 2


@pytest.mark.parametrize(("number", "at"), [(0, NIGHT), (1, FOG), (2, RAIN)])
def test_a_return_to_a_known_shift_is_recognised_by_number(number, at):
    world = drift()
    for new, shift in enumerate((NIGHT, FOG, RAIN)):
        assert live(world, shift, 4, seed=new)[-1] == new
        assert live(world, DAY * 0, 3, seed=new)[-1] is None
    assert live(world, at, 3, seed=9) == [number] * 3
    assert world.known == (0, 1, 2)
    assert world.confirmed == 7


def test_of_two_shifts_that_lie_in_one_direction_the_nearer_one_is_back():
    world, wet = drift(), NIGHT + 1.2 * FOG
    live(world, NIGHT, 4)
    assert live(world, wet, 4)[-1] == 1
    for number, at in ((0, NIGHT), (1, wet), (0, NIGHT)):
        assert live(world, DAY * 0, 3)[-1] is None
        assert live(world, at, 3) == [number] * 3


def test_what_lies_between_two_known_shifts_is_the_nearer_one():
    world, wet = drift(), NIGHT + 1.2 * FOG
    live(world, NIGHT, 4)
    live(world, wet, 4)
    live(world, DAY * 0, 3)
    assert live(world, -FOG, 3)[-1] == 2
    assert world.vote(frames(2 * BLOCK, NIGHT + 0.8 * FOG))
    assert world.shift == 1
    assert live(world, -FOG, 4)[-1] == 2
    assert world.vote(frames(2 * BLOCK, NIGHT + 0.4 * FOG))
    assert world.shift == 0
    assert world.known == (0, 1, 2)


def test_a_known_shift_is_back_before_the_alarm_would_have_known():
    """A few frames are enough, of which one who does not know it thinks nothing yet."""
    world, stranger = drift(), drift()
    live(world, NIGHT, 4)
    for one in (world, stranger):
        live(one, DAY * 0, 2)
    first = frames(LEAST // 2, NIGHT, 7)
    assert judge(world, first)
    assert world.shift == 0
    assert not judge(stranger, first)


def test_another_shift_is_followed_two_blocks_after_a_switch_without_going_back_to_the_source():
    """Along the night's way as far as the night, and as far aside again: rain at night."""
    world = drift()
    assert live(world, NIGHT, 4)[-1] == 0
    wet = NIGHT + 1.2 * FOG
    assert live(world, wet, 2) == [0, 1]
    assert world.known == (0, 1)
    assert live(world, wet, 3, seed=1) == [1, 1, 1]
    assert live(world, NIGHT, 2, seed=1) == [1, 0]


def test_one_odd_block_is_not_another_shift():
    world = drift()
    live(world, NIGHT, 4)
    live(world, NIGHT + 2.5 * FOG, 1)
    assert live(world, NIGHT, 4, seed=1) == [0] * 4
    live(world, NIGHT + 2.5 * FOG, 1, seed=1)
    assert live(world, NIGHT, 4, seed=2) == [0] * 4
    assert world.known == (0,)


def test_a_shift_the_other_way_is_another_one():
    world = drift()
    assert live(world, NIGHT, 4)[-1] == 0
    assert live(world, -NIGHT, 3)[-1] == 1


def test_coming_home_is_no_other_shift():
    world = drift()
    live(world, NIGHT, 4)
    assert live(world, DAY * 0.3, 20) == [None] * 20
    assert world.known == (0,)


def test_a_known_shift_is_over_as_soon_as_a_block_leaves_its_direction():
    """Aside is beyond the alarm, but off the night's way and small beside it: the day from a new viewpoint."""
    world = drift(slow_alarm=1e9)
    live(world, 1.4 * NIGHT, 3)
    aside = frames(BLOCK, np.array([5.0, -5.0, 0, 0, 0, 0]))
    assert (aside.mean(0) ** 2).mean() > 4.0
    assert judge(world, aside)
    assert not world.shifted
    assert not judge(world, aside), "what is small beside the known shift must not look like another one"


def test_what_is_as_far_as_the_known_shift_is_a_shift():
    world = drift()
    live(world, 0.8 * NIGHT, 3)
    live(world, DAY * 0, 2)
    assert judge(world, frames(BLOCK, np.array([9.0, -9.0, 0, 0, 0, 0])))
    assert (world.shifted, world.shift) == (True, 1)


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


def test_scenes_of_a_video_are_no_shifts_of_their_own():
    def decisions(stretch):
        world, found = drift(stretch=stretch), 0
        scenes = NIGHT + np.random.default_rng(1).normal(0, 4.0, (200, SIZE))
        for number, scene in enumerate(scenes):
            seen = frames(BLOCK, scene, seed=number)
            changed = judge(world, seen)
            if world.shifted and world.present:
                changed |= world.vote(seen)
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


def test_at_most_so_many_shifts_are_known_and_the_first_makes_room():
    world = drift(known=3, order=0.0)
    ways = 6.0 * np.concatenate([np.eye(SIZE), -np.eye(SIZE)])
    for number, way in enumerate(ways[:5] * 2):
        assert live(world, way, 3, seed=number)[-1] == number
        assert live(world, DAY * 0, 3, seed=number)[-1] is None
        assert len(world.known) <= 3
    assert world.known == (2, 3, 4)
    assert live(world, ways[0] * 2, 3)[-1] == 5  # what was forgotten is new


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
    assert copy.values["counts"] == {"0": 3}


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
