"""What every source of samples offers: names in order, batches on demand, and a list of what could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgessl.signals import InputSpec

Indices = NDArray[np.int64]  # (n,)
Frames = NDArray[Any]  # (n, *spec.shape), spec.dtype


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Some samples of a source, in its order.

    Attributes:
        names: One per sample.
        indices: `(n,)` places in the source's `names`.
        frames: `(n, *shape)`.
    """

    names: list[str]
    indices: Indices
    frames: Frames


class Source(Protocol):
    """Samples that stand on disk or are made on demand.

    Attributes:
        name: What the user typed.
        spec: What one sample is.
        names: One per sample, readable or not, relative to the source, with forward slashes.
        labels: `(n,)` index into `classes` for each name, or None. For evaluation only.
        classes: Names of the labels; empty without labels.
        groups: `(n,)` subject, speaker or file that each sample is of, as text, for splits that keep them apart; None
            where it is not known.
    """

    name: str
    spec: InputSpec
    names: list[str]
    labels: Indices | None
    classes: list[str]
    groups: NDArray[np.str_] | None

    @property
    def skipped(self) -> list[Skipped]:
        """What could not be read so far, each name once."""
        ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int] | Indices) -> tuple[Indices, Frames]:
        """Those samples at `indices` that can be read: their indices `(n,)` and frames `(n, *shape)`."""
        ...

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, up to `size` at a time; unreadable ones are left out and listed in `skipped`."""
        ...

    def digest(self) -> str:
        """sha256 that changes when the samples change."""
        ...


NOT_FINITE = "it holds NaN or infinity"  #: why a sample can be read and still not be learned from


def finite_rows(frames: Frames) -> NDArray[np.bool_]:
    """Which samples hold neither NaN nor infinity: `(n,)`."""
    if frames.dtype.kind != "f":
        return np.ones(len(frames), dtype=bool)
    return np.asarray(np.isfinite(frames).reshape(len(frames), -1).all(1))


def batches_of(source: Source, size: int) -> Iterator[Batch]:
    """The `batches` of any source that can `read`; a batch of nothing but unreadable samples is not given."""
    for start in range(0, len(source), size):
        indices, frames = source.read(range(start, min(start + size, len(source))))
        if len(indices):
            yield Batch([source.names[index] for index in indices], indices, frames)
