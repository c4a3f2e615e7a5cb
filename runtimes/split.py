"""The encoder in two halves: a frozen trunk with ports, which reports what passes, and a tail that may be trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import Bundle
from edgessl.errors import BundleError
from edgessl.runtimes.encoder import CHUNK, expected
from edgessl.runtimes.engines import Arrays, EngineSettings, open_engine
from edgessl.runtimes.graphs import engine_of_tail, graph_for
from edgessl.runtimes.patch import with_weights
from edgessl.runtimes.stem import PatchMap, Stem

Floats = NDArray[np.float32]
Port = tuple[Floats, Floats]  # scale (channels,), shift (channels,)

DRIFT_BLOCK = 32  # consecutive frames whose statistics are averaged before drift is judged


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What the trunk made of a batch.

    Attributes:
        latents: `(batch, *latent)` float32.
        means: Per port `(batch, channels)`: each frame's channel mean before that port.
        squares: Per port `(batch, channels)`: each frame's channel mean square before that port.
    """

    latents: Floats
    means: tuple[Floats, ...]
    squares: tuple[Floats, ...]

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

    Raises:
        BundleError: The manifest does not describe the split, or nothing in the graph takes the map in.
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
    ) -> None:
        try:
            split: dict[str, Any] = bundle.manifest["split"]
            self.channels = tuple(int(port["channels"]) for port in split["ports"])
            self.latent = tuple(int(size) for size in split["latent"])
            self.channel_axis = int(split["channel_axis"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"{bundle.path} does not say how it is split: {error!r}; export it again") from error
        self._bundle = bundle
        graph = graph_for(bundle, "trunk", precision, engine)
        constants = None
        if patch is not None:
            constants = Stem(bundle, "trunk", engine=engine, precision=precision).constants(patch)
        self._engine = open_engine(engine, graph, threads=threads, settings=settings, constants=constants)
        self.identity: tuple[Port, ...] = tuple(
            (np.ones(channels, np.float32), np.zeros(channels, np.float32)) for channels in self.channels
        )

    def run(self, frames: NDArray[Any], ports: Sequence[Port]) -> Observed:
        """Latents and statistics of `frames` `(batch, *sample)` with these ports applied.

        Raises:
            EngineError: The graph cannot take the frames.
        """
        feeds: dict[str, NDArray[Any]] = {}
        for index, (scale, shift) in enumerate(ports):
            feeds |= {f"port{index}.scale": scale, f"port{index}.shift": shift}
        parts = [
            self._checked(self._engine.run({"frames": np.ascontiguousarray(part), **feeds}), len(part))
            for part in (frames[start : start + CHUNK] for start in range(0, len(frames), CHUNK))
        ]
        numbers = range(len(self.channels))
        return Observed(
            latents=np.concatenate([part["latents"] for part in parts]),
            means=tuple(np.concatenate([part[f"port{index}.mean"] for part in parts]) for index in numbers),
            squares=tuple(np.concatenate([part[f"port{index}.square"] for part in parts]) for index in numbers),
        )

    def _checked(self, arrays: Arrays, batch: int) -> Arrays:
        expected(arrays, "latents", (batch, *self.latent), self._bundle)
        for index, channels in enumerate(self.channels):
            for part in ("mean", "square"):
                expected(arrays, f"port{index}.{part}", (batch, channels), self._bundle)
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
