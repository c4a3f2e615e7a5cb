"""What sources share whose frames are decoded one by one, and some of which cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.signals import InputSpec, image_spec
from edgessl.sources.base import Batch, Frames, Indices, Skipped, batches_of


class DecodedSource:
    """A source of RGB frames of one size. Whoever derives has `frame`, `refusal` and `digest`, and calls `sized` when ready.

    Args:
        name: What the user typed.
        strict: Make a frame that cannot be decoded an error.

    Attributes:
        names: Set by whoever derives, before `sized`.
    """

    names: list[str]
    spec: InputSpec

    def __init__(self, name: str, *, strict: bool) -> None:
        self.name = name
        self.labels: Indices | None = None
        self.classes: list[str] = []
        self.groups: NDArray[np.str_] | None = None
        self._strict = strict
        self._skipped: dict[str, Skipped] = {}

    @property
    def skipped(self) -> list[Skipped]:
        """What could not be read so far."""
        return list(self._skipped.values())

    def __len__(self) -> int:
        return len(self.names)

    def sized(self, size: tuple[int, int] | None, nothing: str) -> None:
        """Set the size of the frames: `size`, or that of the first frame that can be decoded.

        Raises:
            InputError: None can: `nothing`, followed by the first reason.
        """
        if size is None:
            frames = (self.frame(index, None) for index in range(len(self)))
            first = next((frame for frame in frames if frame is not None), None)
            if first is None:
                told = "".join(f"; {each.name}: {each.reason}" for each in self.skipped[:1])
                raise InputError(f"{nothing}{told}")
            size = (first.shape[0], first.shape[1])
        self.spec = image_spec(*size)

    def read(self, indices: Sequence[int] | Indices) -> tuple[Indices, Frames]:
        """Decode the frames at `indices`, in any order; those of a file of one stream come quickest in its own.

        Raises:
            InputError: A frame cannot be decoded, and the source is strict.
        """
        asked = np.asarray(indices, np.int64).reshape(-1)
        frames = np.empty((len(asked), *self.spec.shape), np.uint8)
        good = np.zeros(len(asked), dtype=bool)
        for place in np.argsort(asked, kind="stable"):
            frame = self.frame(int(asked[place]), (self.spec.shape[0], self.spec.shape[1]))
            if frame is not None:
                frames[place], good[place] = frame, True
        return asked[good], frames[good]

    def batches(self, size: int) -> Iterator[Batch]:
        """All frames in order, up to `size` at a time."""
        return batches_of(self, size)

    def frame(self, index: int, size: tuple[int, int] | None) -> NDArray[np.uint8] | None:
        """The frame `(height, width, 3)` at `index`, of `size` or its own; None where it cannot be decoded and was skipped."""
        raise NotImplementedError

    def refusal(self, skipped: Skipped) -> str:
        """What a strict source says of a frame that it would skip."""
        raise NotImplementedError

    def digest(self) -> str:
        """sha256 that changes when the samples change."""
        raise NotImplementedError

    def skip(self, skipped: Skipped) -> None:
        """Note what cannot be read.

        Raises:
            InputError: The source is strict.
        """
        if self._strict:
            raise InputError(self.refusal(skipped))
        self._skipped[skipped.name] = skipped
