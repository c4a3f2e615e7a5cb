"""Many blocks tell what one cannot: that a shift has become another one that lies near it."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.runtimes.adapt.change import Block, Change, ChangeConfig
from edgessl.runtimes.adapt.displacement import near
from tests.runtimes.adapt.worlds import BLOCK, FOG, NIGHT, SIZE, drift, frames, judge, same

# One of 32 dimensions; squared lengths are 8. A block's squared error is as large as what two shifts are apart.
DIM, ERROR = 32, 0.25
RAIN, SLEET = np.full(DIM, 0.5), np.concatenate([np.full(DIM // 2, 0.5 + 0.5**1.5), np.full(DIM // 2, 0.5 - 0.5**1.5)])
CONFIG = ChangeConfig(blocks=16, before=4, memory=16, share=0.2)


def blocks(at: np.ndarray, count: int, seed: int = 0, *, error: float = ERROR) -> list[Block]:
    places = at + np.random.default_rng(seed).normal(0, error, (count, DIM))
    return [Block(place.clip(-0.8, 0.8), place, DIM * error**2) for place in places]


def found(change: Change, seen: list[Block], shift: int = 0) -> list[int]:
    """After which blocks it has changed."""
    return [number for number, block in enumerate(seen, 1) if change.update(shift, block) is not None]


@pytest.mark.parametrize("seed", range(8))
def test_what_lies_nearer_than_a_block_scatters_is_seen_by_many(seed: int) -> None:
    apart = float(np.square(RAIN - SLEET).sum())
    assert apart == pytest.approx(0.5 * np.square(RAIN).sum())  # just what a block alone may be off
    change = Change(CONFIG)
    assert found(change, blocks(RAIN, 60, seed)) == []
    after = found(change, blocks(SLEET, 40, 100 + seed))
    assert after
    assert 4 <= after[0] <= 24


@pytest.mark.parametrize("seed", range(8))
def test_without_a_change_none_is_seen_in_thousands_of_blocks(seed: int) -> None:
    assert found(Change(CONFIG), blocks(RAIN, 2000, seed)) == []


@pytest.mark.parametrize("seed", range(8))
def test_what_comes_at_once_is_seen_in_a_quarter_of_the_blocks(seed: int) -> None:
    change = Change(CONFIG)
    found(change, blocks(RAIN, 60, seed, error=0.1))
    assert found(change, blocks(SLEET, 8, 100 + seed, error=0.1))[0] <= 4


def test_it_says_where_the_last_blocks_lie() -> None:
    change = Change(CONFIG)
    found(change, blocks(RAIN, 40, error=1e-6))
    for block in blocks(SLEET, 40, 1, error=1e-6):
        if (there := change.update(0, block)) is not None:
            break
    assert there is not None
    # The shift's place stays where it was: 16 blocks ago it was all rain.
    assert near(change.before[0].place, RAIN, 0.0, 1e-6)
    share = (there.place - RAIN) @ (SLEET - RAIN) / np.square(SLEET - RAIN).sum()
    assert 0.5 < share < 0.8  # as soon as the mean of sixteen is sqrt(.2 / .5) of the way
    assert there.here.max() <= 0.8


def test_places_far_apart_that_follow_in_no_order_are_no_change() -> None:
    """A mean of few scenes is off by more than the share; it is not off by more than its own error."""
    changes = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scenes = RAIN + rng.normal(0, 1.0, (100, DIM))
        changes += len(found(Change(CONFIG), [Block(scene, scene, 0.01) for scene in scenes]))
    assert changes <= 2  # of 2,000 blocks


def test_dusk_is_no_change() -> None:
    change = Change(CONFIG)
    assert [change.update(0, blocks(RAIN * (1 + step / 100), 1, step)[0]) for step in range(200)] == [None] * 200


def test_a_block_that_may_be_the_first_of_a_change_is_suspicious() -> None:
    change = Change(CONFIG)
    found(change, blocks(RAIN, 30))
    assert not change.suspicious
    change.update(0, blocks(SLEET, 1, 3)[0])
    assert change.suspicious
    change.update(0, blocks(RAIN, 1, 4)[0])
    assert not change.suspicious


def test_blocks_before_and_after_another_shift_are_not_compared_as_one_stretch() -> None:
    change = Change(CONFIG)
    found(change, blocks(RAIN, 40))
    assert found(change, blocks(SLEET, 3, 1)) == []
    assert found(change, blocks(-RAIN, 10, 2), shift=1) == []
    assert found(change, blocks(SLEET, 15, 3)) == []
    assert found(change, blocks(SLEET, 1, 4)) == [1]


def test_a_copy_goes_on_as_the_original() -> None:
    one, other = Change(CONFIG), Change(CONFIG)
    found(one, blocks(RAIN, 40))
    found(one, blocks(-RAIN, 7, 1), shift=1)
    state = one.state()
    other.restore(state)
    for change in (one, other):
        assert found(change, blocks(-RAIN, 20, 2), shift=1) == []
    same(one.state(), other.state())
    assert other.state().values != state.values
    assert set(one.before) == {0, 1}
    one.forget({1})
    assert set(one.before) == {1}


def test_near_shifts_are_known_by_number_again() -> None:
    """A quarter of the way aside, squared: a block alone takes it for the same."""
    world, damp = drift(), NIGHT + 0.5 * FOG

    def turns(at: np.ndarray, count: int, seed: int) -> list[str]:
        told = []
        for block in range(count):
            seen = frames(BLOCK, at, (seed, block))
            judge(world, seen)
            told.append(world.vote(seen))
        return [turn for turn in told if turn]

    assert turns(NIGHT, 30, 0) == []
    assert turns(damp, 40, 1) == ["near"]
    assert (world.shift, world.known) == (1, (0, 1))
    # What the first is known by is not of the second, though some blocks of that were taken for it.
    np.testing.assert_allclose(world.state().tensors["shifts.signature.0"], NIGHT, atol=0.1)
    assert turns(NIGHT, 40, 2) == ["near"]
    assert (world.shift, world.known) == (0, (0, 1))
    assert turns(NIGHT + 1.5 * FOG, 3, 3) == ["far"]
    assert (world.shift, world.known) == (2, (0, 1, 2))
    copy = drift()
    copy.restore(world.state())
    same(copy.state(), world.state())
    assert len(copy.state().tensors["change.before.0.place"]) == SIZE
