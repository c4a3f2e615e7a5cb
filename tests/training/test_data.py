from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgessl.data.frames import FrameBatches
from edgessl.data.schedule import StepSchedule
from edgessl.errors import InputError
from edgessl.signals import series_spec
from edgessl.sources import open_source
from edgessl.sources.arrays import ArraySource
from edgessl.sources.base import NOT_FINITE
from tests.training.conftest import frames


def test_every_pass_sees_every_sample_once_in_an_order_of_its_own() -> None:
    schedule = StepSchedule(12, batch=4, seed=1, chunk=6)
    steps = list(schedule)
    first, second = np.concatenate(steps[:3]), np.concatenate(steps[3:])
    assert sorted(first) == sorted(second) == list(range(12))
    assert list(first) != list(second)


def test_the_steps_do_not_depend_on_the_chunks() -> None:
    whole = np.stack(list(StepSchedule(13, batch=3, seed=5, chunk=12)))
    parts = StepSchedule(13, batch=3, seed=5, chunk=4, first=2)
    last = list(parts)
    parts.set_epoch(1)
    assert (np.stack([*parts, *last]) == whole[4:]).all()
    assert len(parts) == 4


def test_devices_share_a_batch() -> None:
    alone = StepSchedule(9, batch=4, seed=0, chunk=1).samples_of(7)
    shared = [StepSchedule(9, batch=4, seed=0, chunk=1, rank=rank, world=2).samples_of(7) for rank in (0, 1)]
    assert sorted(np.concatenate(shared)) == sorted(alone)
    with pytest.raises(InputError, match="type --batch 4"):
        StepSchedule(9, batch=5, seed=0, chunk=1, world=2)


@pytest.mark.parametrize("batch", [1, 10])
def test_a_batch_that_cannot_be_filled(batch: int) -> None:
    with pytest.raises(InputError, match="2 to 9"):
        StepSchedule(9, batch=batch, seed=0, chunk=1)


def test_memory_and_demand_give_the_same_frames() -> None:
    positions = np.array([3, 0, 7])
    held, read = FrameBatches(frames()), FrameBatches(frames(), memory_limit_bytes=0)
    assert (held.in_memory, read.in_memory) == (True, False)
    assert torch.equal(held[positions][0], read[positions][0])


def test_unreadable_samples_are_left_out_and_named(frames_folder: Path) -> None:
    held = FrameBatches(open_source(str(frames_folder)))
    assert len(held) == 39
    assert [name for name, _ in held.skipped] == ["a/broken.png"]


def _series(bad: list[int]) -> ArraySource:
    series = np.random.default_rng(0).normal(size=(9, 2, 5)).astype(np.float32)
    series[bad, 1, 3] = np.inf
    return ArraySource("waves", series, series_spec(2, 5), [f"w{index}" for index in range(9)])


def test_samples_with_nan_or_infinity_are_left_out_and_named() -> None:
    source = _series([0, 4])
    held, read = FrameBatches(source), FrameBatches(source, memory_limit_bytes=0)
    assert (len(held), held.skipped) == (7, [("w0", NOT_FINITE), ("w4", NOT_FINITE)])
    assert held[np.arange(7)][2].tolist() == [1, 2, 3, 5, 6, 7, 8]
    batch, skipped, places = read[np.array([4, 2, 5])]
    assert (skipped, places.tolist()) == ([("w4", NOT_FINITE)], [2, 5, 2])
    assert bool(torch.isfinite(batch).all())
    with pytest.raises(InputError, match=r"no sample of waves can be used; .*NaN"):
        FrameBatches(_series(list(range(9))))
    with pytest.raises(InputError, match="NaN"):
        read[np.array([0, 4])]


def test_a_sample_comes_with_its_place_in_the_source(frames_folder: Path) -> None:
    source = open_source(str(frames_folder))
    for batches in (FrameBatches(source), FrameBatches(source, memory_limit_bytes=0)):
        samples, _, places = batches[np.array([30, 2])]
        assert np.array_equal(source.read(places.numpy())[1], samples)


def test_on_demand_the_batch_keeps_its_size(frames_folder: Path) -> None:
    source = open_source(str(frames_folder))
    broken = source.names.index("a/broken.png")
    batch, skipped, places = FrameBatches(source, memory_limit_bytes=0)[np.array([broken, 2, 5])]
    assert batch.shape == (3, 32, 40, 3)
    assert torch.equal(batch[0], batch[2])
    assert [name for name, _ in skipped] == ["a/broken.png"]
    assert places.tolist() == [2, 5, 2]
