"""A port: what is done to the channels that pass a place in the trunk.

Most scale and shift each channel. One right behind a convolution may mix channels as well, since the convolution's constants
take that in (`runtimes/fold.py`); the trunk's inputs are scales and shifts alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
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


@dataclass(frozen=True, kw_only=True)
class Passing:
    """Statistics of what passes a place, frame by frame.

    Attributes:
        mean, square: Of each channel, `(batch, channels)`.
        products: Mean products of two channels, `(batch, channels, channels)`, where they are reported.
    """

    mean: Floats
    square: Floats
    products: Floats | None = None

    def before(self, port: Port) -> Passing:
        """Of what comes in at a port, when these are of what comes out of it.

        Raises:
            ValueError: It mixes channels, and there are no products.
        """
        scale, shift = port
        products = self.products
        if products is not None:
            across = self.mean[:, :, None] * shift
            products = products - across - across.transpose(0, 2, 1) + shift[:, None] * shift
        if not mixes(port):
            mean = (self.mean - shift) / scale
            square = (self.square - 2 * shift * self.mean + shift**2) / scale**2
            return Passing(
                mean=mean, square=square, products=None if products is None else products / np.outer(scale, scale)
            )
        if products is None:
            raise ValueError("a port that mixes channels stands where their products are not reported")
        back = np.linalg.inv(scale.astype(np.float64)).astype(np.float32)
        products = back @ products @ back.T
        square = np.diagonal(products, axis1=1, axis2=2).copy()
        return Passing(mean=(self.mean - shift) @ back.T, square=square, products=products)
