"""The way down from int8: plain, then smoothed, then with the layers in float that are measured to hurt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgessl.bundle import Kind
from edgessl.errors import EngineError, GateError
from edgessl.export.calibrate import Ranges
from edgessl.export.draft import Draft, Floats, judged_or_reason
from edgessl.export.graphs import Graphs
from edgessl.export.layers import Layers, alone, layer_cosines, starts_at
from edgessl.export.placement import Placement, quantizable
from edgessl.export.quantize import quantized
from edgessl.export.smooth import smoothed
from edgessl.export.targets import Target
from edgessl.metrics import cosines
from edgessl.runtimes.engines import open_engine
from edgessl.runtimes.verify import BOUNDS, ParityRow, embed

PROBES = 4  #: golden samples that layers are compared on
_MOST = 0.5  # share of the layers that may leave int8; with more of them in float it is no int8 graph


@dataclass(kw_only=True)
class Attempt:
    """One int8 form of an encoder, and how it did.

    Attributes:
        encoder, trunk: The graphs.
        excluded: Nodes left in float.
        smoothed: Nodes whose weights took over outliers.
        rows, vectors: From the gate; no rows where the engine refused the graph.
        reason: Why it does not pass; empty where it does.
        layers: Cosine per layer with fp32, where it was looked at.
    """

    encoder: onnx.ModelProto
    trunk: onnx.ModelProto
    excluded: tuple[str, ...] = ()
    smoothed: tuple[str, ...] = ()
    files: dict[str, Kind] = field(default_factory=dict)
    rows: list[ParityRow] = field(default_factory=list)
    vectors: dict[str, Floats] = field(default_factory=dict)
    reason: str = ""
    layers: Layers = field(default_factory=list)

    def facts(self, placement: str) -> dict[str, Any]:
        """For the manifest."""
        return {"placement": placement, "excluded": list(self.excluded), "smoothed": len(self.smoothed)}


def descend(
    draft: Draft, target: Target, graphs: Graphs, ranges: Ranges, say: Callable[[str], None] = lambda _: None
) -> Attempt:
    """The first form that passes its gate in the target's engine, or the last that was tried.

    Its files lie in the draft's folder, and are not accepted yet.
    """
    attempt = _tried(draft, target, graphs, ranges)
    smooth: tuple[str, ...] = ()
    if attempt.reason and attempt.rows:
        eased, moved, changed = _smoothed(graphs, ranges)
        if changed:
            say(f"int8 for {target.engine}: {attempt.reason}; smoothing {len(changed)} products")
            graphs, ranges, smooth = eased, moved, changed
            attempt = _tried(draft, target, graphs, ranges, smooth=smooth)
    if not attempt.reason:
        return attempt
    surely = _Surely(draft, target)
    order = [name for name, _ in alone(graphs.encoder, ranges, target.placement, draft.golden.samples[:PROBES])]
    for count in _doubled(len(order)):
        reason = attempt.reason or "too near its bound"
        say(f"int8 for {target.engine}: {reason}; {count} of {len(order)} layers back to float")
        attempt = _tried(draft, target, graphs, ranges, smooth=smooth, exclude=tuple(sorted(order[:count])))
        if not attempt.reason and surely(attempt):
            break
    return attempt


def formed(graphs: Graphs, ranges: Ranges, placement: Placement, like: Attempt) -> Attempt:
    """The form of a placement that leaves the same layers in float, and smooths the same, as one of another placement."""
    if like.smoothed:
        graphs, ranges, _ = _smoothed(graphs, ranges)
    return replace(like, layers=[], **_rounded(graphs, ranges, placement, like.excluded))


def _smoothed(graphs: Graphs, ranges: Ranges) -> tuple[Graphs, Ranges, tuple[str, ...]]:
    encoder, moved, changed = smoothed(graphs.encoder, ranges)
    trunk, _, _ = smoothed(graphs.trunk, ranges)
    return replace(graphs, encoder=encoder, trunk=trunk), moved, tuple(changed)


def _rounded(
    graphs: Graphs, ranges: Ranges, placement: Placement, exclude: tuple[str, ...]
) -> dict[str, onnx.ModelProto]:
    models = {"encoder": graphs.encoder, "trunk": graphs.trunk}
    return {
        role: quantized(model, ranges, placement, exclude=exclude, same=graphs.same) for role, model in models.items()
    }


@dataclass
class _Surely:
    """Whether the bound holds for other samples too: the mean is two standard errors above it, unseen ones counted in.

    A form that was picked because it just passes on a few would fail on the next ones; and where one sample in a hundred is far
    off, the few golden ones may hold none of them.
    """

    draft: Draft
    target: Target

    def __call__(self, attempt: Attempt) -> bool:
        for path, vectors in attempt.vectors.items():
            similar = cosines(self.draft.golden.vectors, vectors)
            if _above(similar) and len(self.draft.unseen):
                similar = np.concatenate([similar, cosines(self._exact, self._unseen(self.target.engine, path))])
            if not _above(similar):
                return False
        return True

    @cached_property
    def _exact(self) -> Floats:
        return self._unseen("onnxruntime", "encoder.onnx")

    def _unseen(self, engine: str, path: str) -> Floats:
        """Vectors of the samples that neither calibration nor the gate has seen."""
        opened = open_engine(engine, self.draft.folder / path)
        try:
            return embed(opened, self.draft.unseen)
        finally:
            opened.close()


def _above(similar: NDArray[np.float64]) -> bool:
    least = similar.mean() - 2 * similar.std() / len(similar) ** 0.5
    return bool(least >= BOUNDS["int8"].mean_cosine)


def _doubled(layers: int) -> Iterator[int]:
    """1, 2, 4 ... and at last as many as may leave."""
    count, most = 1, int(layers * _MOST)
    while count < most:
        yield count
        count *= 2
    if most:
        yield most


def _tried(
    draft: Draft,
    target: Target,
    graphs: Graphs,
    ranges: Ranges,
    *,
    smooth: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> Attempt:
    models = _rounded(graphs, ranges, target.placement, exclude)
    attempt = Attempt(**models, excluded=exclude, smoothed=smooth)
    try:
        attempt.files = write(draft, target, models, "int8")
    except (EngineError, GateError) as error:
        attempt.files, attempt.reason = target.files("encoder", "int8") | target.files("trunk", "int8"), str(error)
    else:
        attempt.rows, attempt.vectors, attempt.reason = judged_or_reason(draft, attempt.files, target.engine)
    return attempt


def write(
    draft: Draft, target: Target, models: dict[str, onnx.ModelProto], precision: str, keep: set[str] | None = None
) -> dict[str, Kind]:
    """Write graphs by role; gives the files that came out."""
    files: dict[str, Kind] = {}
    for role, model in models.items():
        path = draft.folder / target.path(role, precision)
        path.parent.mkdir(exist_ok=True)
        target.write(model, path, precision, keep or set())
        files |= target.files(role, precision)
    return files


def layers_of(draft: Draft, target: Target, graphs: Graphs, attempt: Attempt) -> Layers:
    """Cosine per layer of an attempt with fp32; looked at once."""
    if not attempt.layers:
        engine = target.engine if target.here else "onnxruntime"
        samples = draft.golden.samples[:PROBES]
        try:
            attempt.layers = layer_cosines(graphs.encoder, attempt.encoder, samples, engine)
        except EngineError:  # with inner values as outputs an engine may refuse what it takes without
            with suppress(EngineError):  # it refuses the graph as a whole, which is the reason already
                attempt.layers = layer_cosines(graphs.encoder, attempt.encoder, samples, "onnxruntime")
    return attempt.layers


def where(draft: Draft, target: Target, graphs: Graphs, attempt: Attempt, precision: str) -> str:
    """The layer where the error of an attempt starts."""
    layers, bound = layers_of(draft, target, graphs, attempt), BOUNDS[precision]
    return starts_at(layers, max(bound.min_cosine, bound.mean_cosine)) or ", ".join(quantizable(graphs.encoder)[:1])
