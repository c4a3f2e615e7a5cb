"""Ports that stand right behind a convolution, taken into that convolution's constants: serving with them then costs nothing.

A map in front of the first convolution goes into the same constants, before the port behind it (`runtimes/stem.py`).

`scale * (W x + b) + shift` is a convolution again: with `scale * W` and `scale * b + shift` per output channel. A rounded
weight keeps its integers, and its step is scaled; an int32 bias counts in steps of its own, which are scaled too, so that
only `shift` is added to it. So is `M (W x + b) + shift`, which mixes channels: there weights are rounded again, and nothing
but constants can take it in (`runtimes/constants.py`). What stands where is looked up at export and recorded in the manifest
(`split.folds`).
"""

from __future__ import annotations

from collections.abc import Sequence

from edgessl.bundle import Bundle
from edgessl.errors import BundleError
from edgessl.runtimes.constants import ConvConstants
from edgessl.runtimes.engines import Arrays, read_constants
from edgessl.runtimes.graphs import graph_for, takes_plans
from edgessl.runtimes.port import Port, mixes
from edgessl.runtimes.stem import PatchMap, Stem


class Fold:
    """The constants of a graph that its ports and its stem move, with the factory's values.

    Args:
        bundle: An opened bundle.
        engine: A key of `ENGINES`.
        precision: Of the graph.
        role: `encoder` or `trunk`.

    Raises:
        BundleError: The graph does not have what the manifest says.
    """

    def __init__(self, bundle: Bundle, *, engine: str, precision: str, role: str = "encoder") -> None:
        self._ports = recorded(bundle, role, engine=engine, precision=precision)
        self._stem = Stem(bundle, role, engine=engine, precision=precision)
        names = set().union(*(port.names() for port in self._ports))
        self._factory = read_constants(engine, graph_for(bundle, role, precision, engine), names) if names else {}

    @property
    def possible(self) -> bool:
        """Whether the graph can take ports at all."""
        return bool(self._ports)

    def constants(self, ports: Sequence[Port] | None, patch: PatchMap | None = None) -> Arrays:
        """All constants that these ports, scale and shift `(channels,)` each, and this map move.

        Raises:
            BundleError: The ports or the map are not this graph's.
        """
        values: Arrays = {} if patch is None else self._stem.constants(patch)
        if ports is None:
            return values
        if len(ports) != len(self._ports):
            raise BundleError(f"{len(ports)} ports for a graph of {len(self._ports)}; export the bundle again")
        before = {**self._factory, **values}
        for constants, port in zip(self._ports, ports, strict=True):
            values |= (constants.mixed if mixes(port) else constants.scaled)(before, *port)
        return values


def recorded(bundle: Bundle, role: str, *, engine: str, precision: str) -> tuple[ConvConstants, ...]:
    """What the manifest says of the graph that `engine` opens; empty where there is nothing to fold into."""
    if takes_plans(engine):  # a plan's constants are the builder's
        return ()
    file = graph_for(bundle, role, precision, engine).relative_to(bundle.path).as_posix()
    ports = bundle.manifest.get("split", {}).get("folds", {}).get(file, ())
    if any("weight" not in fields for fields in ports):  # an older bundle's, which is served by trunk and tail
        return ()
    return tuple(map(ConvConstants.from_json, ports))


def mixing(bundle: Bundle, *, engine: str, precision: str, trunk: str) -> tuple[int, ...]:
    """Numbers of the ports that may mix channels: both the encoder and the trunk of precision `trunk` take them in."""
    for role, form in (("encoder", precision), ("trunk", trunk)):
        if not recorded(bundle, role, engine=engine, precision=form):
            return ()
    ports = bundle.manifest["split"]["ports"]
    return tuple(index for index, port in enumerate(ports) if port.get("products", False))
