"""Replay a bundle's golden samples on this machine and compare with the vectors that PyTorch gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import Bundle
from edgessl.metrics import cosines, knn_overlap
from edgessl.runtimes.encoder import CHUNK
from edgessl.runtimes.engines import Engine, open_engine
from edgessl.runtimes.graphs import graph_for, precisions_for, takes_plans
from edgessl.runtimes.split import Tail, Trunk

Floats = NDArray[np.float32]
_NEIGHBOURS = 10


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a graph must reach on the golden samples; 0 asks for nothing."""

    min_cosine: float = 0.0
    mean_cosine: float = 0.0
    knn_overlap: float = 0.0


BOUNDS = {
    "fp32": Bound(min_cosine=0.9999),
    "fp16": Bound(min_cosine=0.999, knn_overlap=0.9),
    # One odd sample may lose more in int8 than the retrieval that the vectors are for.
    "int8": Bound(mean_cosine=0.995, knn_overlap=0.9),
}


@dataclass(frozen=True, kw_only=True)
class ParityRow:
    """How one graph did.

    Attributes:
        name: `encoder fp32`, `trunk + tail int8` ...
        file: The graph, inside the bundle.
        engine: Engine that ran it, with its `version`.
        samples: How many golden samples it was replayed on.
        min_cosine: Of the golden vectors with the engine's, the worst sample.
        mean_cosine: The average.
        knn_overlap: Share of the 10 nearest neighbours that stay; with 11 samples or fewer it says nothing, and is not asked for.
        worst: Name of the worst sample.
        nodes: How many products and convolutions the engine really runs in int8 and in float, where it can say.
        bound: What it had to reach.
        ok: It did.
    """

    name: str
    file: str
    precision: str
    engine: str
    version: str
    samples: int
    min_cosine: float
    mean_cosine: float
    knn_overlap: float
    worst: str
    bound: Bound
    ok: bool
    nodes: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    def describe(self) -> str:
        """What it reached of what it had to, and the sample that was worst."""
        asked = {name: value for name, value in asdict(self.bound).items() if value}
        got = ", ".join(f"{name} {getattr(self, name):.5f} (at least {value})" for name, value in asked.items())
        return f"{self.file} in {self.engine}: {got}; worst sample {self.worst}"


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Real samples with the vectors that PyTorch gave.

    Attributes:
        samples: `(n, *sample)`.
        vectors: `(n, dim)`.
        names: Of the samples, as many.
    """

    samples: NDArray[Any]
    vectors: Floats
    names: Sequence[str]

    def first(self, count: int) -> Golden:
        """The first `count`."""
        return Golden(samples=self.samples[:count], vectors=self.vectors[:count], names=self.names[:count])


def golden_of(bundle: Bundle) -> Golden:
    """The golden samples of a bundle.

    Raises:
        BundleError: It has none.
    """
    tensors = bundle.tensors("golden", "samples", "vectors")
    said = bundle.manifest.get("golden")
    named = said.get("names") if isinstance(said, dict) else None
    count = len(tensors["samples"])
    names = (
        [str(name) for name in named]
        if isinstance(named, list) and len(named) == count
        else [f"golden sample {row}" for row in range(count)]
    )
    return Golden(samples=tensors["samples"], vectors=tensors["vectors"].astype(np.float32), names=names)


def replay(bundle: Bundle, engine: str, *, threads: int = 0) -> list[ParityRow]:
    """Run every graph that embeds, in every precision: the whole encoder, and trunk with identity ports plus tail.

    Raises:
        BundleError: The bundle has no golden samples.
        EngineError: The engine cannot load or run a graph.
    """
    golden = golden_of(bundle)
    rows = []
    for precision in reversed(precisions_for(bundle, "encoder", engine)):
        rows.append(encoder_row(bundle, engine, precision, golden, threads=threads)[0])
        singles = () if takes_plans(engine) else bundle.graphs()
        if any(artefact.batch == 1 and artefact.precision == precision for artefact in singles):
            rows.append(encoder_row(bundle, engine, precision, golden, threads=threads, batch=1)[0])
    trunks = reversed(precisions_for(bundle, "trunk", engine))
    return rows + [trunk_row(bundle, engine, precision, golden, threads=threads)[0] for precision in trunks]


def encoder_row(
    bundle: Bundle, engine: str, precision: str, golden: Golden, *, threads: int = 0, batch: int = 0
) -> tuple[ParityRow, Floats]:
    """Replay the whole encoder, half of the samples one by one; `batch` 1 takes the graph for single samples.

    The vectors come with the row.
    """
    graph = bundle.graph("encoder", precision, engine, batch=batch)
    file = graph if batch else graph_for(bundle, "encoder", precision, engine)
    opened = open_engine(engine, file, threads=threads)
    try:
        # A robot embeds sample by sample, an evaluation in batches, and an engine may have a form for each.
        half = 0 if batch else len(golden.samples) // 2
        parts = ((golden.samples[:half], 1), (golden.samples[half:], batch or CHUNK))
        vectors = np.concatenate([embed(opened, samples, chunk) for samples, chunk in parts if len(samples)])
        return row_of(
            f"encoder {precision}{' of one' * bool(batch)}", bundle, graph, precision, opened, golden, vectors
        )
    finally:
        opened.close()


def trunk_row(
    bundle: Bundle, engine: str, precision: str, golden: Golden, *, threads: int = 0
) -> tuple[ParityRow, Floats]:
    """Replay the trunk with identity ports and the tail behind it."""
    graph = bundle.graph("trunk", precision, engine)
    with (
        Trunk(bundle, engine=engine, precision=precision, threads=threads) as trunk,
        Tail(bundle, engine=engine, threads=threads) as tail,
    ):
        vectors = tail.run(trunk.run(golden.samples, trunk.identity).latents)
        return row_of(f"trunk + tail {precision}", bundle, graph, precision, trunk, golden, vectors)


def embed(engine: Engine, samples: NDArray[Any], chunk: int = CHUNK) -> Floats:
    """Vectors `(n, dim)` of samples `(n, *sample)`, `chunk` at a time."""
    parts = [
        engine.run({"frames": np.ascontiguousarray(samples[start : start + chunk])})["vectors"]
        for start in range(0, len(samples), chunk)
    ]
    return np.concatenate(parts)


def row_of(
    name: str, bundle: Bundle, graph: Path, precision: str, ran: Engine | Trunk, golden: Golden, vectors: Floats
) -> tuple[ParityRow, Floats]:
    """Compare `vectors` with the golden ones."""
    info = ran.info()
    similar = cosines(golden.vectors, vectors)
    worst = int(np.nan_to_num(similar, nan=-2).argmin())
    bound = BOUNDS[precision]
    if len(vectors) <= _NEIGHBOURS + 1:  # all others are neighbours then, whatever the vectors
        bound = replace(bound, knn_overlap=0.0)
    least, mean = float(similar.min()), float(similar.mean())
    overlap = knn_overlap(golden.vectors, vectors, _NEIGHBOURS) if np.isfinite(vectors).all() else 0.0
    row = ParityRow(
        name=name,
        file=graph.relative_to(bundle.path).as_posix(),
        precision=precision,
        engine=str(info["engine"]),
        version=str(info["version"]),
        samples=len(vectors),
        min_cosine=least,
        mean_cosine=mean,
        knn_overlap=overlap,
        worst=str(golden.names[worst]),
        bound=bound,
        # Written so that NaN, which compares false with everything, does not pass.
        ok=least >= bound.min_cosine and mean >= bound.mean_cosine and overlap >= bound.knn_overlap,
        nodes=ran.fused() if precision == "int8" else {},
    )
    return row, vectors
