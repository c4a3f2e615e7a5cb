"""Does a plan compute what its graph means? TensorRT has built plans that run well and give wrong vectors, in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import Bundle
from edgessl.metrics import cosines, knn_overlap
from edgessl.runtimes.engines.base import Engine
from edgessl.runtimes.split import Tail
from edgessl.runtimes.verify import BOUNDS

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How near a plan's vectors are to the golden ones, the worst of every batch size that was tried.

    Attributes:
        min_cosine, mean_cosine, knn_overlap: As in `verify`.
        ok: All of them reach the precision's bound, and every output is finite.
        reason: Why not.
    """

    min_cosine: float
    mean_cosine: float
    knn_overlap: float
    ok: bool
    reason: str = ""


def judged(
    engine: Engine, bundle: Bundle, role: str, precision: str, batches: tuple[int, int, int], tail: Tail
) -> Figures:
    """Replay the golden samples in runs of the smallest, the usual and the largest batch.

    A plan has other kernels for other batches, and has been seen wrong in one and right in the next. Every sample goes
    through twice, so that recorded CUDA graphs are judged too.

    Args:
        engine: The plan, opened.
        bundle: Has the golden samples.
        role: `encoder`, or `trunk`, whose latents go through `tail`.
        precision: Whose bound counts.
        batches: Of the plan.
        tail: In another engine, one that is trusted.

    Raises:
        BundleError: There are no golden samples.
        EngineError: The plan does not run.
    """
    golden = bundle.tensors("golden", "samples", "vectors")
    samples, vectors = golden["samples"], golden["vectors"].astype(np.float32)
    embed = _embedding(engine, role, tail)
    least, mean, overlap, finite = 1.0, 1.0, 1.0, True
    for size in sorted(set(batches)):
        for _ in range(2):
            got, whole = _replay(embed, samples, size)
            similar = cosines(vectors, got)
            # numpy's minimum keeps NaN, where Python's drops it.
            least = float(np.minimum(least, similar.min()))
            mean = float(np.minimum(mean, similar.mean()))
            overlap = float(np.minimum(overlap, knn_overlap(vectors, got, 10)))
            finite = finite and whole
    bound = BOUNDS[precision]
    missed = [
        f"{name} {value:.4f} of {wanted}"
        for name, value, wanted in (
            ("minimum cosine", least, bound.min_cosine),
            ("mean cosine", mean, bound.mean_cosine),
            ("neighbour overlap", overlap, bound.knn_overlap),
        )
        if not value >= wanted  # so that NaN is missed too
    ]
    if not finite:
        missed.append("outputs that are NaN or infinite")
    return Figures(min_cosine=least, mean_cosine=mean, knn_overlap=overlap, ok=not missed, reason=", ".join(missed))


def feeds_of(engine: Engine, frames: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """`frames`, and identity for every port that the graph has."""
    feeds: dict[str, NDArray[Any]] = {"frames": frames}
    for name, info in engine.inputs.items():
        if name != "frames":
            shape = tuple(size or 1 for size in info.shape)
            feeds[name] = np.full(shape, 1 if name.endswith(".scale") else 0, info.dtype)
    return feeds


def _embedding(engine: Engine, role: str, tail: Tail) -> Callable[[NDArray[Any]], tuple[Floats, bool]]:
    def embed(frames: NDArray[Any]) -> tuple[Floats, bool]:
        outputs = engine.run(feeds_of(engine, frames))
        vectors = outputs["vectors"] if role == "encoder" else tail.run(outputs["latents"].astype(np.float32))
        return vectors.astype(np.float32), _finite(outputs)

    return embed


def _finite(outputs: Mapping[str, NDArray[Any]]) -> bool:
    return all(bool(np.isfinite(value).all()) for value in outputs.values() if value.dtype.kind == "f")


def _replay(
    embed: Callable[[NDArray[Any]], tuple[Floats, bool]], samples: NDArray[Any], size: int
) -> tuple[Floats, bool]:
    """Vectors of all samples in runs of exactly `size`; the last run begins again with the first samples."""
    parts, whole = [], True
    for start in range(0, len(samples), size):
        rows = np.arange(start, start + size) % len(samples)
        part, finite = embed(np.ascontiguousarray(samples[rows]))
        parts.append(part)
        whole = whole and finite
    return np.concatenate(parts)[: len(samples)], whole
