"""Another world in front of the first convolution, taken into its constants: serving with it costs nothing.

What a sensor does to every picture alike (noise, blur, haze, another gain) can in part be undone by a linear map of the
patches that the first convolution multiplies. A linear map in front of a convolution is that convolution with other weights:
`W (A p + s) + b = (W A) p + (b + W s)`. Rounded weights are dequantized, mapped, and rounded again. Which constants those
are is looked up at export, checked in the engine, and recorded in the manifest (`split.stem`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import Bundle
from edgessl.errors import BundleError
from edgessl.runtimes.constants import ConvConstants
from edgessl.runtimes.engines import Arrays, read_constants
from edgessl.runtimes.graphs import graph_for, takes_plans

Floats = NDArray[np.float32]
_NOTHING = "the bundle does not say what its first convolution is; export it again"


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchMap:
    """What the first convolution is to see in place of a patch, in scale and order of the sample that it reads.

    The channels of a pixel are looked at along `axes`, in which a picture's colours are uncorrelated; each has a map of its own.

    Attributes:
        axes: Orthonormal rows `(channels, channels)`.
        blocks: `(channels, positions, positions)`: the new positions of a patch, row after row, of the old ones.
        shift: `(channels, positions)`: what is added.
    """

    axes: Floats
    blocks: Floats
    shift: Floats

    def weights(self, weight: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A convolution's weights `(out, channels, height, width)` behind this map, and what its bias `(out,)` gains."""
        along = np.einsum("ocp,kc->okp", weight.reshape(*weight.shape[:2], -1).astype(np.float64), self.axes)
        mapped = np.einsum("okp,kpq,kc->ocq", along, self.blocks.astype(np.float64), self.axes, optimize=True)
        return mapped.reshape(weight.shape), np.einsum("okp,kp->o", along, self.shift)


@dataclass(frozen=True, kw_only=True)
class StemConstants(ConvConstants):
    """The constants of a graph's first convolution.

    Attributes:
        units: Per input channel, what the sample that patch maps are of is in units of what this graph's convolution reads:
            where an engine has moved a division by the spread into the weights.
    """

    units: tuple[float, ...] = ()

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> StemConstants:
        """Of a manifest."""
        names = {name: str(fields[name]) for name in ("weight", "scale", "bias", "steps")}
        return cls(**names, units=tuple(map(float, fields["units"])))

    def mapped(self, factory: Arrays, patch: PatchMap) -> Arrays:
        """Their values with a patch map in front.

        Raises:
            BundleError: The constants are not those of a convolution, or not of such patches.
        """
        weight, bias = self.exact(factory)
        patches, kernel = (patch.blocks.shape[0], patch.blocks.shape[1]), weight.shape[2:]
        if weight.ndim != 4 or (weight.shape[1], math.prod(kernel)) != patches or len(self.units) != patches[0]:
            raise BundleError(
                f"{self.weight} {weight.shape} is not the constants of a convolution of {patches}; export the bundle again"
            )
        units = np.reshape(self.units, (1, -1, 1, 1))
        moved, more = patch.weights(weight * units)
        return self.written(factory, moved / units, bias + more)


class Stem:
    """The constants of one graph's first convolution, with the factory's values.

    Args:
        bundle: An opened bundle.
        role: `encoder` or `trunk`.
        engine: A key of `ENGINES`.
        precision: Of the graph.

    Raises:
        BundleError: The graph does not have what the manifest says.
    """

    def __init__(self, bundle: Bundle, role: str, *, engine: str, precision: str) -> None:
        self._constants = _recorded(bundle, role, engine=engine, precision=precision)
        found, self._factory = self._constants, Arrays()
        if found:
            graph = graph_for(bundle, role, precision, engine)
            self._factory = read_constants(engine, graph, found.names())

    @property
    def possible(self) -> bool:
        """Whether the graph can take a map in at all."""
        return self._constants is not None

    def weight(self) -> NDArray[np.floating]:
        """The factory's weights, dequantized."""
        found = self._constants
        if found is None:
            raise BundleError(_NOTHING)
        weight = self._factory[found.weight]
        if not found.scale:
            return weight
        return np.asarray(weight * self._factory[found.scale].reshape(-1, *[1] * (weight.ndim - 1)))

    def constants(self, patch: PatchMap) -> Arrays:
        """All constants that this map moves.

        Raises:
            BundleError: It is not of this graph's patches, or there is nothing that takes it in.
        """
        if self._constants is None:
            raise BundleError(_NOTHING)
        return self._constants.mapped(self._factory, patch)


def kernel_of(bundle: Bundle, *, engine: str, precision: str, trunk: str) -> tuple[int, int] | None:
    """Height and width of a patch, where both the encoder and the trunk of precision `trunk` take a map in; else None.

    Raises:
        BundleError: A graph does not have the constants that the manifest names.
    """
    stems = [
        Stem(bundle, role, engine=engine, precision=form) for role, form in (("encoder", precision), ("trunk", trunk))
    ]
    if not all(stem.possible for stem in stems):
        return None
    height, width = (int(size) for size in bundle.manifest["split"]["stem"]["kernel"])
    positions = height * width
    for stem in stems:
        if stem.weight().shape[1:] != (3, height, width):
            raise BundleError(f"{bundle.path} has no first convolution of {height}x{width} pixels; export it again")
        still = np.broadcast_to(np.eye(positions, dtype=np.float32), (3, positions, positions))
        stem.constants(
            PatchMap(axes=np.eye(3, dtype=np.float32), blocks=still, shift=np.zeros((3, positions), np.float32))
        )
    return height, width


def filters(bundle: Bundle) -> bool:
    """Whether frames can be filtered before the graph: it takes them at the encoder's own size, and says what they look like."""
    stem = bundle.manifest.get("split", {}).get("stem")
    return bool(stem) and "rows" not in stem["prepare"]


def spectrum_of(bundle: Bundle) -> list[str]:
    """Of the bundle's `source` file, what the front is moved by; nothing in a bundle that does not have it."""
    stem = bundle.manifest.get("split", {}).get("stem")
    if not stem:
        return []
    parts = {"spectrum": ("axes", "mean", "var", "power", "size"), "prepare": stem["prepare"]}
    return [f"{name}.{part}" for name, each in parts.items() for part in each]


def _recorded(bundle: Bundle, role: str, *, engine: str, precision: str) -> StemConstants | None:
    """What the manifest says of the graph that `engine` opens."""
    if takes_plans(engine):  # a plan's constants are the builder's
        return None
    file = graph_for(bundle, role, precision, engine).relative_to(bundle.path).as_posix()
    fields = bundle.manifest.get("split", {}).get("stem", {}).get("constants", {}).get(file)
    return None if fields is None else StemConstants.from_json(fields)
