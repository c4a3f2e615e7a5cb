"""One version of an adapting encoder: what it takes to embed with it. Nothing in it ever changes, so it can be handed over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.metrics import unit
from edgessl.runtimes.framefilter import FrameFilter
from edgessl.runtimes.port import Port, any_mixes
from edgessl.runtimes.stem import PatchMap

Floats = NDArray[np.float32]
#: what stands in front of the trunk: a map in its first convolution, or a filter of frames
Front = PatchMap | FrameFilter


@dataclass(frozen=True, kw_only=True)
class Affine:
    """A correction of unit vectors `(batch, dim)`.

    Attributes:
        matrix: `(dim, dim)`.
        shift: `(dim,)`.
    """

    matrix: Floats
    shift: Floats

    def apply(self, vectors: Floats) -> Floats:
        """`vectors @ matrix + shift`, of unit length again."""
        return np.asarray(unit(vectors @ self.matrix + self.shift), np.float32)


@dataclass(frozen=True, kw_only=True)
class Served:
    """A version.

    Attributes:
        number: 0 is the factory's; grows by one with every change that serves.
        ports: Their positions; `None` is the identity.
        affine: What recentring does to the vectors; `None` is the identity.
        tail: `weight.NAME` -> value; `None` are the factory's.
        front: What stands in front of the trunk; `None` is the identity.
    """

    number: int = 0
    ports: tuple[Port, ...] | None = None
    affine: Affine | None = None
    tail: Mapping[str, Floats] | None = None
    front: Front | None = None

    @property
    def direct(self) -> bool:
        """Whether the factory's trunk gives its latents, of frames as they come and with ports as inputs."""
        return self.front is None and not any_mixes(self.ports)

    def same(self, other: Served) -> bool:
        """Whether both are made of the very same parts, whatever their numbers."""
        parts = ("ports", "affine", "tail", "front")
        return all(getattr(self, part) is getattr(other, part) for part in parts)
