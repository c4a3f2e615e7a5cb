"""Replay a bundle's golden samples on this machine and compare with the vectors that PyTorch gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import Bundle
from edgessl.errors import BundleError
from edgessl.metrics import cosines, knn_overlap
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.split import Tail, Trunk


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a graph must reach on the golden samples; 0 asks for nothing."""

    min_cosine: float = 0.0
    mean_cosine: float = 0.0
    knn_overlap: float = 0.0


BOUNDS = {
    "fp32": Bound(min_cosine=0.9999),
    # One odd sample may lose more in int8 than the retrieval that the vectors are for.
    "int8": Bound(mean_cosine=0.99, knn_overlap=0.9),
}


@dataclass(frozen=True, kw_only=True)
class ParityRow:
    """How one graph did.

    Attributes:
        name: `encoder fp32`, `trunk + tail int8` ...
        file: The graph, inside the bundle.
        engine: Engine that ran it, with its `version`.
        min_cosine: Of the golden vectors with the engine's, the worst sample.
        mean_cosine: The average.
        knn_overlap: Share of the 10 nearest neighbours that stay.
        bound: What it had to reach.
        ok: It did.
    """

    name: str
    file: str
    precision: str
    engine: str
    version: str
    min_cosine: float
    mean_cosine: float
    knn_overlap: float
    bound: Bound
    ok: bool

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def replay(bundle: Bundle, engine: str, *, threads: int = 0) -> list[ParityRow]:
    """Run every graph that embeds, in every precision: the whole encoder, and trunk with identity ports plus tail.

    Raises:
        BundleError: The bundle has no golden samples.
        EngineError: The engine cannot load or run a graph.
    """
    golden = bundle.tensors("golden")
    try:
        samples, vectors = golden["samples"], golden["vectors"].astype(np.float32)
    except KeyError as error:
        raise BundleError(f"{bundle.path} has no golden {error}; export it again") from error
    rows = []
    for precision in reversed(bundle.precisions("encoder", engine)):
        with Encoder(bundle, engine=engine, precision=precision, threads=threads) as encoder:
            rows.append(_row(bundle, "encoder", precision, encoder.info(), samples, vectors, encoder.embed))
    for precision in reversed(bundle.precisions("trunk", engine)):
        with (
            Trunk(bundle, engine=engine, precision=precision, threads=threads) as trunk,
            Tail(bundle, engine=engine, threads=threads) as tail,
        ):

            def split(frames: NDArray[Any], trunk: Trunk = trunk, tail: Tail = tail) -> NDArray[np.float32]:
                return tail.run(trunk.run(frames, trunk.identity).latents)

            rows.append(_row(bundle, "trunk", precision, trunk.info(), samples, vectors, split))
    return rows


def _row(
    bundle: Bundle,
    role: str,
    precision: str,
    info: dict[str, Any],
    samples: NDArray[Any],
    golden: NDArray[np.float32],
    embed: Callable[[NDArray[Any]], NDArray[np.float32]],
) -> ParityRow:
    got = embed(samples)
    similar = cosines(golden, got)
    least, mean, overlap = float(similar.min()), float(similar.mean()), knn_overlap(golden, got, 10)
    bound = BOUNDS[precision]
    return ParityRow(
        name=f"{'trunk + tail' if role == 'trunk' else role} {precision}",
        file=bundle.graph(role, precision, str(info["engine"])).relative_to(bundle.path).as_posix(),
        precision=precision,
        engine=str(info["engine"]),
        version=str(info["version"]),
        min_cosine=least,
        mean_cosine=mean,
        knn_overlap=overlap,
        bound=bound,
        # Written so that NaN, which compares false with everything, does not pass.
        ok=least >= bound.min_cosine and mean >= bound.mean_cosine and overlap >= bound.knn_overlap,
    )
