"""The samples of a source as batches for training: from memory when they fit, else read when they are wanted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from edgessl.errors import InputError
from edgessl.sources import Source
from edgessl.sources.base import NOT_FINITE, Indices, finite_rows

#: Below this a source is kept in memory as one array.
MEMORY_LIMIT_BYTES = 1 << 30

#: One batch: samples `(batch, *shape)`, what could not be read, as (name, reason), and the places `(batch,)` of the samples in
#: the source.
FrameBatch = tuple[Tensor, list[tuple[str, str]], Tensor]


class FrameBatches(Dataset[FrameBatch]):
    """Batches of a source: the item at an array of positions `(batch,)` is the samples at these positions.

    In memory, unreadable samples, and those that hold NaN or infinity, are left out from the beginning. Read on demand,
    others of the same batch take their places: a batch keeps its size and does not depend on what was read before.

    Attributes:
        in_memory: Whether the samples are kept in memory.
        skipped: What could not be read, as (name, reason); on demand it comes with the batches instead.

    Args:
        source: Where the samples come from.
        memory_limit_bytes: Size up to which they are kept in memory.
    """

    def __init__(self, source: Source, *, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> None:
        self._source = source
        self._frames: Tensor | None = None
        self.skipped: list[tuple[str, str]] = []
        size_bytes = len(source) * math.prod(source.spec.shape) * np.dtype(source.spec.dtype).itemsize
        self.in_memory = size_bytes <= memory_limit_bytes
        if self.in_memory:
            parts = list(source.batches(256))
            if not parts:
                raise InputError(f"no sample of {source.name} can be read; the first: {_why(source)}")
            good = [finite_rows(batch.frames) for batch in parts]
            places = np.concatenate([batch.indices for batch in parts])
            kept = np.concatenate(good)
            self.skipped = [(skipped.name, skipped.reason) for skipped in source.skipped]
            self.skipped += [(source.names[place], NOT_FINITE) for place in places[~kept]]
            if not kept.any():
                raise InputError(f"no sample of {source.name} can be used; the first: {NOT_FINITE}. Give whole ones")
            self._frames = torch.from_numpy(
                np.concatenate([batch.frames[rows] for batch, rows in zip(parts, good, strict=True)])
            )
            self._places = torch.from_numpy(places[kept])

    def __len__(self) -> int:
        return len(self._source) if self._frames is None else len(self._frames)

    def __getitem__(self, positions: Indices) -> FrameBatch:
        if self._frames is not None:
            chosen = torch.from_numpy(positions)
            return self._frames[chosen], [], self._places[chosen]
        kept, frames = self._source.read(positions)
        good = finite_rows(frames)
        odd = [(self._source.names[index], NOT_FINITE) for index in kept[~good]]
        kept, frames = kept[good], frames[good]
        if len(kept) == len(positions):
            return torch.from_numpy(frames), [], torch.from_numpy(kept)
        if len(kept) == 0:
            raise InputError(
                f"no sample of a whole batch of {self._source.name} can be used: {odd[0][1] if odd else _why(self._source)}"
            )
        lost = {self._source.names[index] for index in np.setdiff1d(positions, kept)}
        filled = np.resize(np.arange(len(kept)), len(positions))
        return (
            torch.from_numpy(frames[filled]),
            odd + [(skipped.name, skipped.reason) for skipped in self._source.skipped if skipped.name in lost],
            torch.from_numpy(kept[filled]),
        )


def as_it_is(batch: Any) -> Any:
    """What a `DataLoader` does to a batch that is one already: nothing."""
    return batch


def _why(source: Source) -> str:
    first = next(iter(source.skipped), None)
    return f"{first.name}: {first.reason}" if first else "it holds none"
