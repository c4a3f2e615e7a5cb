"""A filter in front of the graph: frames in, frames of another spectrum out, on numpy.

Where the first convolution is small, what it can take in of a filter is little (`runtimes/stem.py`). This is the whole of it,
at a price: some products of matrices per frame, and one more rounding to 256 levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.spectrum import cosines, spread_bands

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameFilter:
    """A gain for each colour and band of frequencies, and one for the frame's own mean.

    Attributes:
        axes: Orthonormal rows `(3, 3)`: the colours that are looked at.
        mean, std: Of the encoder's normalisation, `(3,)`, in 0..1.
        size: Height and width of a frame.
        gain: `(3, bands, bands)`.
        mean_gain: `(3,)`.
        shift: `(3,)`: what is added after it.
    """

    axes: Floats
    mean: Floats
    std: Floats
    size: tuple[int, int]
    gain: Floats
    mean_gain: Floats
    shift: Floats

    def __call__(self, frames: NDArray[np.uint8], more: Floats | None = None) -> NDArray[np.uint8]:
        """`(batch, height, width, 3)` -> the same.

        Args:
            frames: Of this size.
            more: Is added to what is left of each frequency, `(batch, 3, height, width)`; nothing where that is all.
        """
        rows, columns = map(cosines, self.size)
        there, offset, back, base = self.colours
        turned = (frames @ there + offset).transpose(0, 3, 1, 2)  # (batch, 3, height, width)
        own = turned.mean((2, 3), keepdims=True)
        coefficients = rows @ (turned - own) @ columns.T
        kept = coefficients * self.gains
        rest = rows.T @ (kept if more is None else kept + more) @ columns
        whole = rest + own * self.mean_gain[:, None, None] + self.shift[:, None, None]
        levels = whole.transpose(0, 2, 3, 1) @ back + base
        return np.asarray(np.clip(np.rint(levels), 0, 255), np.uint8)

    @cached_property
    def gains(self) -> Floats:
        """One for every frequency, `(3, *size)`."""
        return spread_bands(self.gain, self.size)

    @cached_property
    def colours(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Levels -> colours of the encoder's scale, and back: a product and a sum each."""
        unit = 255 * self.std
        there, back = self.axes.T / unit[:, None], self.axes * unit
        offset, base = -(self.mean / self.std) @ self.axes.T, 255 * self.mean
        return tuple(np.asarray(each, np.float32) for each in (there, offset, back, base))  # type: ignore[return-value]
