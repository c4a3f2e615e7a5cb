"""What pictures look like to second order: their mean, how their brightness differs, and the power of each frequency.

A picture's own mean is looked at apart from the rest: how dark a frame is says nothing of how sharp it is, and what takes
contrast away leaves the means where they were. The rest is taken apart by the discrete cosine transform, whose axes are
nearly those of natural images; a large frame's power is averaged within bands of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.contents import BANDS

Floats64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Of several frames.

    Attributes:
        mean: Of all pixels, `(channels,)`.
        var: Of the frames' means, `(channels,)`.
        power: Mean square of the cosine coefficients of a frame less its mean, `(channels, bands, bands)`.
    """

    mean: Floats64
    var: Floats64
    power: Floats64

    @classmethod
    def of(cls, source: Mapping[str, NDArray[Any]]) -> Spectrum:
        """The source's, of the tensors of a bundle's `source` file."""
        return cls(**{part: source[f"spectrum.{part}"].astype(np.float64) for part in ("mean", "var", "power")})


def frame_spectra(images: NDArray[np.floating], axes: NDArray[np.floating]) -> tuple[Floats64, Floats64]:
    """Frames' means `(n, channels)` and the sum over them of each band's power `(channels, bands, bands)`.

    Args:
        images: `(n, channels, height, width)`.
        axes: Rows along which channels are looked at, `(channels, channels)`.
    """
    turned = np.einsum("kc,nchw->nkhw", axes.astype(np.float32), images, optimize=True)
    means = turned.mean((2, 3), dtype=np.float64)
    rest = turned - means[..., None, None].astype(np.float32)
    height, width = images.shape[2:]
    coefficients = cosines(height) @ rest @ cosines(width).T
    power = np.square(coefficients).sum(0, dtype=np.float64)
    return means, _averaging(height) @ power @ _averaging(width).T


def frequencies(size: int) -> tuple[Floats64, Floats64]:
    """Of each band the middle frequency, in half periods per `size` pixels, and how many it holds."""
    weights = _averaging(size)
    return weights @ np.arange(size), (weights > 0).sum(1).astype(np.float64)


def spread_bands(values: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float32]:
    """A value per band `(channels, bands, bands)` -> one per frequency `(channels, *size)`."""
    rows, columns = (_averaging(length) > 0 for length in size)
    return np.asarray(rows.T.astype(np.float32) @ values @ columns.astype(np.float32), np.float32)


@cache
def cosines(size: int) -> NDArray[np.float32]:
    """The orthonormal cosine transform (DCT-II) of `size` pixels, a frequency per row."""
    place, frequency = np.arange(size) + 0.5, np.arange(size)[:, None]
    matrix = np.cos(np.pi * place * frequency / size) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix, np.float32)


@cache
def _averaging(size: int) -> Floats64:
    """`(bands, size)`: each row averages the frequencies of a band."""
    bands = min(BANDS, size)
    band = np.arange(size) * bands // size
    member = (np.arange(bands)[:, None] == band).astype(np.float64)
    return np.asarray(member / member.sum(1, keepdims=True), np.float64)
