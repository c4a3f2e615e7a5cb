"""The demo's simulated drive, opened by name."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgessl.errors import UnknownNameError
from edgessl.sources import open_source
from edgessl.sources.arrays import ArraySource


def _drive(lap: str, frames: int, size: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    rng = np.random.default_rng([seed, len(lap)])
    return rng.integers(0, 255, (frames, size, size, 3), dtype=np.uint8), rng.random((frames, 3))


def test_a_lap_knows_where_each_frame_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgessl.sources.demo.drive", _drive)
    source = open_source("demo:revisit", size=(16, 12))
    assert isinstance(source, ArraySource)
    assert source.places is not None
    assert source.places.shape == (len(source), 3)
    assert source.names[7] == "revisit/000007"
    assert source.read([3, 1])[1].shape == (2, 16, 12, 3)
    assert source.spec.shape == (16, 12, 3)


def test_laps_have_different_digests_and_one_lap_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgessl.sources.demo.drive", _drive)
    day, again, revisit = (open_source(f"demo:{lap}", size=(8, 8)).digest() for lap in ("day", "day", "revisit"))
    assert day == again != revisit


def test_an_unknown_lap_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'night'"):
        open_source("demo:nigth")
