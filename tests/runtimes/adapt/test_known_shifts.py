"""To which of the shifts that are known the world has shifted."""

from __future__ import annotations

import numpy as np
import pytest

from tests.runtimes.adapt.worlds import BLOCK, DAY, FOG, LEAST, NIGHT, RAIN, SIZE, drift, frames, judge, live, same


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
    np.testing.assert_allclose(world.state().tensors["shifts.signature.0"], votes.mean(0), atol=1e-12)


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


def test_a_shift_is_mild_once_its_votes_say_so():
    """The threshold is 4, and frames of `at` score what is given here."""
    for at, mild in ((DAY, True), (DAY * 1.8**0.5, False)):
        world = drift(slow_alarm=0.15, alarm=0.15, mild=0.4)
        live(world, at, 3)
        assert (world.shifted, world.mild) == (True, False)  # few blocks scatter as far
        live(world, at, 3, seed=1)
        assert (world.shifted, world.mild) == (True, mild)


def test_the_next_shift_is_not_mild_because_the_last_one_was():
    world = drift(alarm=0.15, mild=0.4)
    live(world, DAY, 6)
    assert world.mild
    live(world, NIGHT, 4, seed=1)
    assert (world.known, world.shift, world.mild) == ((0, 1), 1, False)


def test_dusk_takes_its_signature_along():
    world = drift(score_clip=1e9)
    for step in range(80):
        live(world, NIGHT * (1 + step / 40), 1, seed=step)
    assert world.known == (0,)
    assert world.shifted
    assert world.state().tensors["shifts.signature.0"].mean() > 2.5 * NIGHT[0]  # of 3; the mean of all is 2


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


def test_at_most_so_many_shifts_are_known_and_the_first_makes_room():
    world = drift(known=3, order=0.0)
    ways = 6.0 * np.concatenate([np.eye(SIZE), -np.eye(SIZE)])
    for number, way in enumerate(ways[:5] * 2):
        assert live(world, way, 3, seed=number)[-1] == number
        assert live(world, DAY * 0, 3, seed=number)[-1] is None
        assert len(world.known) <= 3
    assert world.known == (2, 3, 4)
    assert live(world, ways[0] * 2, 3)[-1] == 5  # what was forgotten is new
