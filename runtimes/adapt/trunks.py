"""Trunks of one bundle that differ in their constants: by what stands in front of them, and by ports that mix channels."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from edgessl.bundle import Bundle
from edgessl.runtimes.adapt.served import Front
from edgessl.runtimes.engines import EngineSettings
from edgessl.runtimes.framefilter import FrameFilter
from edgessl.runtimes.port import Port, any_mixes
from edgessl.runtimes.split import Observed, Trunk
from edgessl.runtimes.stem import PatchMap

#: what goes into a trunk's constants: a map of patches or none, and the ports where one mixes channels
_Inside = tuple[PatchMap | Port | None, ...]
_KEPT = 2  # the one that serves, and the one that may come after it


class Trunks:
    """The factory's trunk, and those with other constants, opened when they are asked for.

    Args:
        bundle: An opened bundle.
        engine: A key of `ENGINES`.
        precision: Of the trunk.
        settings: What the engine may take of the processor.
    """

    def __init__(self, bundle: Bundle, *, engine: str, precision: str, settings: EngineSettings) -> None:
        self._bundle, self._engine, self._precision, self._settings = bundle, engine, precision, settings
        self.factory = self._open(None, None)
        self._others: list[tuple[_Inside, Trunk]] = []  # asked for last comes last

    def run(self, front: Front | None, frames: NDArray[Any], ports: Sequence[Port]) -> Observed:
        """As `Trunk.run`, with this in front."""
        if isinstance(front, FrameFilter):
            return self._at(None, ports).run(front(frames), ports)
        return self._at(front, ports).run(frames, ports)

    def _at(self, patch: PatchMap | None, ports: Sequence[Port]) -> Trunk:
        """The trunk with these inside; closed when two others were asked for."""
        inside: _Inside = (patch, *(ports if any_mixes(ports) else ()))
        if inside == (None,):
            return self.factory
        place = next((place for place, (known, _) in enumerate(self._others) if _same(known, inside)), None)
        found = self._open(patch, ports) if place is None else self._others.pop(place)[1]
        self._others.append((inside, found))
        while len(self._others) > _KEPT:
            self._others.pop(0)[1].close()
        return found

    def close(self) -> None:
        """Give the graphs' memory back."""
        for _, trunk in self._others:
            trunk.close()
        self._others = []
        self.factory.close()

    def __enter__(self) -> Trunks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, patch: PatchMap | None, ports: Sequence[Port] | None) -> Trunk:
        return Trunk(
            self._bundle,
            engine=self._engine,
            precision=self._precision,
            settings=self._settings,
            patch=patch,
            ports=ports,
        )


def _same(one: _Inside, other: _Inside) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
