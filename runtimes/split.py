"""The encoder in two halves: a frozen trunk with ports, which reports what passes, and a tail that may be trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import Bundle
from edgessl.errors import BundleError, EngineError
from edgessl.runtimes.encoder import CHUNK, expected
from edgessl.runtimes.engines import Arrays, EngineSettings, open_engine
from edgessl.runtimes.fold import Fold
from edgessl.runtimes.graphs import engine_of_tail, graph_for
from edgessl.runtimes.patch import with_weights
from edgessl.runtimes.port import Port, any_mixes, plain
from edgessl.runtimes.stem import PatchMap, Stem

Floats = NDArray[np.float32]

DRIFT_BLOCK = 32  # consecutive frames whose statistics are averaged before drift is judged


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What the trunk made of a batch.

    Statistics are of what comes in at a port; where one mixes channels all ports are in the constants, and they are of what
    comes out (`edgessl.runtimes.port.before`).

    Attributes:
        latents: `(batch, *latent)` float32.
        means: Per port `(batch, channels)`: each frame's channel mean.
        squares: Per port `(batch, channels)`: each frame's channel mean square.
        products: Of each port that may mix channels, by its number, `(batch, channels, channels)`: each frame's mean products
            of two channels.
    """

    latents: Floats
    means: tuple[Floats, ...]
    squares: tuple[Floats, ...]
    products: Mapping[int, Floats] = field(default_factory=dict)

    def statistic(self) -> NDArray[np.float64]:
        """What drift is judged by: channel means and logarithms of spreads before port 0, `(batch, 2 channels)`.

        It is taken before the first port, so it does not depend on what was learned.
        """
        return frame_statistic(self.means[0], self.squares[0])

    def rows(self, keep: NDArray[Any]) -> Observed:
        """Some of the frames, by mask or index."""
        return Observed(
            latents=self.latents[keep],
            means=tuple(mean[keep] for mean in self.means),
            squares=tuple(square[keep] for square in self.squares),
            products={index: products[keep] for index, products in self.products.items()},
        )


def frame_statistic(mean: NDArray[np.floating], square: NDArray[np.floating]) -> NDArray[np.float64]:
    """Channel means, and logarithms of channel spreads, of `(batch, channels)` means and mean squares."""
    spread = np.sqrt(np.maximum(square - mean**2, 1e-8))
    return np.concatenate([mean, np.log(spread)], axis=1).astype(np.float64)


class Trunk:
    """The frozen front of an encoder.

    Args:
        bundle: An opened bundle.
        engine: A key of `ENGINES`.
        precision: Precision of the trunk graph.
        threads: Threads per run, where that is all there is to set; 0 lets the engine choose.
        settings: What the engine may take of the processor.
        patch: In front of the first convolution.
        ports: Where one of them mixes channels all are put into the constants; `run` then takes these and no others.

    Raises:
        BundleError: The manifest does not describe the split, or nothing in the graph takes the map or a port in.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        engine: str,
        precision: str,
        threads: int = 0,
        settings: EngineSettings | None = None,
        patch: PatchMap | None = None,
        ports: Sequence[Port] | None = None,
    ) -> None:
        try:
            split: dict[str, Any] = bundle.manifest["split"]
            self.channels = tuple(int(port["channels"]) for port in split["ports"])
            self.latent = tuple(int(size) for size in split["latent"])
            self.channel_axis = int(split["channel_axis"])
            self._products = [index for index, port in enumerate(split["ports"]) if port.get("products", False)]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"{bundle.path} does not say how it is split: {error!r}; export it again") from error
        self._bundle = bundle
        self.identity: tuple[Port, ...] = tuple(map(plain, self.channels))
        self._inside = tuple(ports or ()) if any_mixes(ports) else ()
        graph, constants = graph_for(bundle, "trunk", precision, engine), None
        if self._inside:
            fold = Fold(bundle, engine=engine, precision=precision, role="trunk")
            constants = fold.constants(self._inside, patch)
        elif patch is not None:
            constants = Stem(bundle, "trunk", engine=engine, precision=precision).constants(patch)
        self._engine = open_engine(engine, graph, threads=threads, settings=settings, constants=constants)

    def run(self, frames: NDArray[Any], ports: Sequence[Port]) -> Observed:
        """Latents and statistics of `frames` `(batch, *sample)` with these ports applied.

        Raises:
            EngineError: The graph cannot take the frames, or a port mixes channels and is not in the constants.
        """
        inside = bool(self._inside) and all(mine is given for mine, given in zip(self._inside, ports, strict=True))
        if not inside and (self._inside or any_mixes(ports)):
            raise EngineError("a port that mixes channels goes into a trunk's constants: open one with these ports")
        feeds: dict[str, NDArray[Any]] = {}
        for index, (scale, shift) in enumerate(self.identity if inside else ports):
            feeds |= {f"port{index}.scale": scale, f"port{index}.shift": shift}
        parts = [
            self._checked(self._engine.run({"frames": np.ascontiguousarray(part), **feeds}), len(part))
            for part in (frames[start : start + CHUNK] for start in range(0, len(frames), CHUNK))
        ]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        numbers = range(len(self.channels))
        return Observed(
            latents=found["latents"],
            means=tuple(found[f"port{index}.mean"] for index in numbers),
            squares=tuple(found[f"port{index}.square"] for index in numbers),
            products={index: found[f"port{index}.products"] for index in self._products},
        )

    def _checked(self, arrays: Arrays, batch: int) -> Arrays:
        expected(arrays, "latents", (batch, *self.latent), self._bundle)
        for index, channels in enumerate(self.channels):
            for part in ("mean", "square"):
                expected(arrays, f"port{index}.{part}", (batch, channels), self._bundle)
        for index in self._products:
            size = self.channels[index]
            expected(arrays, f"port{index}.products", (batch, size, size), self._bundle)
        return arrays

    def info(self) -> dict[str, Any]:
        """What really runs."""
        return self._engine.info()

    def fused(self) -> dict[str, int]:
        """What the engine made of the quantization; see `Engine.fused`."""
        return self._engine.fused()

    def close(self) -> None:
        """Give the graph's memory back."""
        self._engine.close()

    def __enter__(self) -> Trunk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Tail:
    """The live end of an encoder, with the factory's weights or with others.

    Args:
        bundle: An opened bundle.
        engine: A key of `ENGINES`.
        weights: `weight.NAME` -> value, instead of the factory's.
        threads: Threads per run, where that is all there is to set; 0 lets the engine choose.
        settings: What the engine may take of the processor.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        engine: str,
        weights: Mapping[str, Floats] | None = None,
        threads: int = 0,
        settings: EngineSettings | None = None,
    ) -> None:
        self._bundle = bundle
        graph = bundle.graph("tail")
        content = with_weights(graph.read_bytes(), weights) if weights else graph
        self._engine = open_engine(engine_of_tail(engine), content, threads=threads, settings=settings)

    def run(self, latents: Floats) -> Floats:
        """Unit vectors `(batch, dim)` of latents `(batch, *latent)`."""
        parts = [
            expected(
                self._engine.run({"latents": np.ascontiguousarray(part)}),
                "vectors",
                (len(part), self._bundle.dim),
                self._bundle,
            )
            for part in (latents[start : start + CHUNK] for start in range(0, len(latents), CHUNK))
        ]
        return np.concatenate(parts)

    def close(self) -> None:
        """Give the graph's memory back."""
        self._engine.close()

    def __enter__(self) -> Tail:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
