"""A port: what is done to the channels that pass a place in the trunk.

Most scale and shift each channel. One right behind a convolution may mix channels as well, since the convolution's constants
take that in (`runtimes/fold.py`); the trunk's inputs are scales and shifts alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Floats64 = NDArray[np.float64]
#: scale `(channels,)` or mixing matrix `(channels, channels)`, and shift `(channels,)`
Port = tuple[Floats, Floats]


def mixes(port: Port) -> bool:
    """Whether it is more than a scale and a shift."""
    return port[0].ndim == 2


def any_mixes(ports: Sequence[Port] | None) -> bool:
    """Whether one of them is."""
    return ports is not None and any(map(mixes, ports))


def plain(channels: int) -> Port:
    """One that changes nothing."""
    return np.ones(channels, np.float32), np.zeros(channels, np.float32)


def before(port: Port, mean: Floats64, square: Floats64) -> tuple[Floats64, Floats64]:
    """Statistics of what comes in at a port, of what comes out of it.

    Args:
        port: It.
        mean: Of each channel, `(channels,)`.
        square: Mean square of each, `(channels,)`, or mean product of every two, `(channels, channels)`, as where it mixes.
    """
    scale, shift = port
    if square.ndim == 1:
        return (mean - shift) / scale, (square - 2 * shift * mean + shift**2) / scale**2
    back = np.linalg.inv(scale if mixes(port) else np.diag(scale)).astype(np.float64)
    across = np.outer(mean, shift)
    return back @ (mean - shift), back @ (square - across - across.T + np.outer(shift, shift)) @ back.T
