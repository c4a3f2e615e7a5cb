"""Samples that are in memory already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.signals import InputSpec
from edgessl.sources.base import Batch, Frames, Indices, Skipped, batches_of


class ArraySource:
    """An array of samples as a source.

    Args:
        name: What the user typed.
        frames: `(n, *shape)`, checked by the caller against `spec`.
        spec: What one sample of `frames` is.
        names: One per sample.
        labels: `(n,)` classes of the samples, whole numbers or text of any values, for evaluation.
        groups: `(n,)` who or what each sample was taken of, of any values.
        skipped: What could not be made a sample.
        places: `(n, axes)` where each sample was taken, for evaluation.
        stamps: `(n,)` seconds at which each sample begins, where that is known.
        size: Height and width that images are resized to when they are read; their own when None.
    """

    def __init__(
        self,
        name: str,
        frames: Frames,
        spec: InputSpec,
        names: list[str],
        *,
        labels: NDArray[np.integer] | NDArray[np.str_] | None = None,
        groups: NDArray[Any] | None = None,
        skipped: Sequence[Skipped] = (),
        places: NDArray[np.float64] | None = None,
        stamps: NDArray[np.float64] | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.name = name
        self.names = names
        self.places = places
        self.stamps = stamps
        self.groups: NDArray[np.str_] | None = None if groups is None else groups.astype(str)
        self._skipped = list(skipped)
        self._frames = frames
        self._stretch = size is not None and size != spec.shape[:2]
        self.spec = replace(spec, shape=(*size, *spec.shape[2:])) if size is not None else spec
        self.labels: Indices | None = None
        self.classes: list[str] = []
        if labels is not None:
            values, inverse = np.unique(labels, return_inverse=True)
            self.labels, self.classes = inverse.astype(np.int64), [str(value) for value in values]

    @property
    def skipped(self) -> list[Skipped]:
        """What could not be made a sample; what is in memory can be read."""
        return list(self._skipped)

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, indices: Sequence[int] | Indices) -> tuple[Indices, Frames]:
        """The samples at `indices`; a copy."""
        chosen = np.asarray(indices, np.int64)
        frames = self._frames[chosen]
        if self._stretch:
            from edgessl.sources.images import resized

            height, width = self.spec.shape[:2]
            stretched = np.empty((len(frames), *self.spec.shape), np.uint8)
            for index, frame in enumerate(frames):
                stretched[index] = resized(frame, (height, width))
            frames = stretched
        return chosen, frames

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, up to `size` at a time."""
        return batches_of(self, size)

    def digest(self) -> str:
        """sha256 over the dtype, the shape and the bytes of the samples, before any resizing."""
        digest = hashlib.sha256(f"{self._frames.dtype} {self._frames.shape}".encode())
        for start in range(0, len(self._frames), 1024):  # in parts: tobytes copies
            digest.update(self._frames[start : start + 1024].tobytes())
        return digest.hexdigest()
