"""Ports that stand right behind a convolution, taken into that convolution's constants: serving with them then costs nothing.

`scale * (W x + b) + shift` is a convolution again: with `scale * W` and `scale * b + shift` per output channel. A rounded
weight keeps its integers, and its step is scaled; an int32 bias counts in steps of its own, which are scaled too, so that
only `shift` is added to it. What stands where is looked up at export and recorded in the manifest (`split.folds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import Bundle
from edgessl.errors import BundleError
from edgessl.runtimes.engines import Arrays, read_constants
from edgessl.runtimes.graphs import graph_for, takes_plans

Floats = NDArray[np.float32]

_LARGEST = 2**30  # of an int32 bias: half of the range stays for what the convolution adds to it


@dataclass(frozen=True, kw_only=True)
class PortConstants:
    """The constants of a graph that one port moves.

    Attributes:
        scaled: float32 with the output channels along the first axis: weights, or the steps of rounded ones.
        bias: float32 or int32, an entry per channel.
        steps: Of an int32 bias, the constant with its steps; they are scaled too. Else empty.
    """

    scaled: tuple[str, ...]
    bias: str
    steps: str = ""

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> PortConstants:
        """Of a manifest."""
        return cls(scaled=tuple(map(str, fields["scaled"])), bias=str(fields["bias"]), steps=str(fields["steps"]))

    def names(self) -> set[str]:
        """All of them."""
        return {*self.scaled, self.bias, self.steps} - {""}

    def moved(self, factory: Arrays, scale: Floats, shift: Floats) -> Arrays:
        """Their values with the port in them; gains and shifts `(channels,)`.

        Raises:
            BundleError: The constants are not those of a convolution with so many channels.
        """
        given = [factory[name] for name in sorted(self.names())]
        first = [factory[name] for name in (*self.scaled, *filter(None, [self.steps]))]
        kinds = {np.dtype(np.int32) if self.steps else np.dtype(np.float32)}
        if (
            any(value.shape[:1] != scale.shape or value.dtype != np.float32 for value in first)
            or factory[self.bias].size != len(scale)
            or factory[self.bias].dtype not in kinds
        ):
            shapes = ", ".join(f"{value.dtype} {value.shape}" for value in given)
            raise BundleError(f"constants of {shapes} are not those of a port of {len(scale)}; export the bundle again")
        values = {
            name: value * scale.reshape(-1, *[1] * (value.ndim - 1))
            for name, value in zip((*self.scaled, *filter(None, [self.steps])), first, strict=True)
        }
        bias = factory[self.bias].ravel()
        if self.steps:
            counted = bias + np.rint(shift.astype(np.float64) / values[self.steps].ravel())
            moved = np.clip(np.nan_to_num(counted), -(2**31), 2**31 - 1).astype(np.int32)
        else:
            moved = (scale * bias + shift).astype(np.float32)
        return values | {self.bias: moved.reshape(factory[self.bias].shape)}


class Fold:
    """The constants of an encoder's graph that its ports move, with the factory's values.

    Args:
        bundle: An opened bundle.
        engine: A key of `ENGINES`.
        precision: Of the encoder.

    Raises:
        BundleError: The graph does not have what the manifest says.
    """

    def __init__(self, bundle: Bundle, *, engine: str, precision: str) -> None:
        self._ports = recorded(bundle, engine=engine, precision=precision)
        names = set().union(*(port.names() for port in self._ports))
        self._factory = read_constants(engine, graph_for(bundle, "encoder", precision, engine), names) if names else {}

    @property
    def possible(self) -> bool:
        """Whether the graph can take the ports at all."""
        return bool(self._ports)

    def constants(self, ports: Sequence[tuple[Floats, Floats]]) -> Arrays | None:
        """All constants that these ports, scale and shift `(channels,)` each, move; None where int32 cannot hold one."""
        values: Arrays = {}
        for port, (scale, shift) in zip(self._ports, ports, strict=True):
            values |= port.moved(self._factory, scale, shift)
        fits = all(
            np.abs(values[port.bias].astype(np.int64)).max() <= max(_LARGEST, _largest(self._factory[port.bias]))
            for port in self._ports
            if port.steps
        )
        return values if fits else None


def recorded(bundle: Bundle, *, engine: str, precision: str) -> tuple[PortConstants, ...]:
    """What the manifest says of the graph that `engine` opens; empty where there is nothing to fold into."""
    split = bundle.manifest.get("split", {})
    if takes_plans(engine):  # a plan's constants are the builder's
        return ()
    file = graph_for(bundle, "encoder", precision, engine).relative_to(bundle.path).as_posix()
    return tuple(PortConstants.from_json(fields) for fields in split.get("folds", {}).get(file, ()))


def _largest(values: NDArray[Any]) -> int:
    return int(np.abs(values.astype(np.int64)).max())
