"""Ports that stand right behind a convolution, taken into that convolution's constants: serving with them then costs nothing.

A map in front of the first convolution goes into the same constants, before the port behind it (`runtimes/stem.py`).

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
from edgessl.runtimes.stem import PatchMap, Stem

Floats = NDArray[np.float32]

_INT32 = 2**31 - 1
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
        """Their values with a port in them, scale and shift `(channels,)`.

        Raises:
            BundleError: The constants are not those of a convolution with so many channels.
        """
        channels, bias = len(scale), factory[self.bias]
        gains = [*self.scaled, *filter(None, [self.steps])]
        kind = np.int32 if self.steps else np.float32
        if any(factory[name].shape[:1] != (channels,) or factory[name].dtype != np.float32 for name in gains) or (
            bias.size != channels or bias.dtype != kind
        ):
            given = ", ".join(f"{name} {factory[name].dtype} {factory[name].shape}" for name in (*gains, self.bias))
            raise BundleError(f"{given} are not the constants of a port of {channels}; export the bundle again")
        values = {name: factory[name] * scale.reshape(-1, *[1] * (factory[name].ndim - 1)) for name in gains}
        if self.steps:
            counts = np.rint(shift / values[self.steps].ravel().astype(np.float64))
            values[self.bias] = np.clip(bias + counts.reshape(bias.shape), -_INT32, _INT32).astype(np.int32)
        else:
            values[self.bias] = scale.reshape(bias.shape) * bias + shift.reshape(bias.shape)
        return values


class Fold:
    """The constants of an encoder's graph that its ports and its stem move, with the factory's values.

    Args:
        bundle: An opened bundle.
        engine: A key of `ENGINES`.
        precision: Of the encoder.

    Raises:
        BundleError: The graph does not have what the manifest says.
    """

    def __init__(self, bundle: Bundle, *, engine: str, precision: str) -> None:
        self._ports = recorded(bundle, engine=engine, precision=precision)
        self._stem = Stem(bundle, "encoder", engine=engine, precision=precision)
        names = set().union(*(port.names() for port in self._ports))
        self._factory = read_constants(engine, graph_for(bundle, "encoder", precision, engine), names) if names else {}

    @property
    def possible(self) -> bool:
        """Whether the graph can take ports at all."""
        return bool(self._ports)

    def constants(self, ports: Sequence[tuple[Floats, Floats]] | None, patch: PatchMap | None = None) -> Arrays | None:
        """All constants that these ports, scale and shift `(channels,)` each, and this map move.

        Returns:
            None where an int32 cannot hold one.

        Raises:
            BundleError: The ports or the map are not this graph's.
        """
        values: Arrays = {} if patch is None else self._stem.constants(patch)
        if ports is None:
            return values
        if len(ports) != len(self._ports):
            raise BundleError(f"{len(ports)} ports for a graph of {len(self._ports)}; export the bundle again")
        before = {**self._factory, **values}
        for port, (scale, shift) in zip(self._ports, ports, strict=True):
            values |= port.moved(before, scale, shift)
        large = [np.abs(values[port.bias].astype(np.int64)).max() > _LARGEST for port in self._ports if port.steps]
        return None if any(large) else values


def recorded(bundle: Bundle, *, engine: str, precision: str) -> tuple[PortConstants, ...]:
    """What the manifest says of the graph that `engine` opens; empty where there is nothing to fold into."""
    if takes_plans(engine):  # a plan's constants are the builder's
        return ()
    file = graph_for(bundle, "encoder", precision, engine).relative_to(bundle.path).as_posix()
    return tuple(
        PortConstants.from_json(fields) for fields in bundle.manifest.get("split", {}).get("folds", {}).get(file, ())
    )
