"""How channels spread: a variance each `(channels,)`, or all their covariances `(channels, channels)`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats64 = NDArray[np.float64]


def of_each(spread: Floats64) -> Floats64:
    """Of each channel, where there may be every two."""
    return spread if spread.ndim == 1 else np.diagonal(spread)


def centred(square: Floats64, mean: Floats64) -> Floats64:
    """Variances of mean squares, or a covariance of mean products."""
    if square.ndim == 1:
        return np.maximum(square - mean**2, 0.0)
    covariance = square - np.outer(mean, mean)
    np.fill_diagonal(covariance, np.maximum(np.diagonal(covariance), 0.0))
    return covariance


def squared(values: Floats64, axes: int) -> Floats64:
    """Of each channel, or of every two."""
    return values**2 if axes == 1 else np.outer(values, values)


def times(scale: Floats64, mean: Floats64) -> Floats64:
    """Means `(channels,)` scaled, or mixed."""
    return scale * mean if scale.ndim == 1 else scale @ mean
