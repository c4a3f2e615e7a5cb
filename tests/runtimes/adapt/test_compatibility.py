"""Recall on a map of before, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.errors import InputError
from edgessl.runtimes.adapt.compatibility import compatibility, itself

MAP = np.eye(4, dtype=np.float32)
PLACES = np.array([0.0, 10.0, 20.0, 30.0])


def test_both_are_looked_up_in_the_same_old_map() -> None:
    taken = np.array([1.0, 10.0, 29.0])
    before = MAP[[0, 1, 2]]  # the last finds 20, not 29
    after = MAP[[0, 3, 3]]  # the second finds 30, not 10
    found = compatibility(MAP, PLACES, before, after, taken, tolerance=2.0)
    assert (found.before, found.after, found.change, found.queries) == (2 / 3, 2 / 3, 0.0, 3)
    assert compatibility(MAP, PLACES, before, MAP[[0, 1, 3]], taken, tolerance=2.0).change == pytest.approx(1 / 3)


def test_a_rotation_that_loses_the_map_costs_all_of_it() -> None:
    assert itself(MAP, MAP).change == 0
    assert itself(MAP, np.roll(MAP, 1, axis=0)).after == 0


def test_other_frames_are_refused() -> None:
    with pytest.raises(InputError, match="the same frames"):
        compatibility(MAP, PLACES, MAP, MAP[:2], PLACES, tolerance=1.0)
    with pytest.raises(InputError, match="a map of 0"):
        compatibility(MAP[:0], PLACES[:0], MAP, MAP, PLACES, tolerance=1.0)
