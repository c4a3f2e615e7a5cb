"""Which constants of an encoder's graph take its ports in, found by walking the graph, and checked in its engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx

from edgessl.bundle import Kind
from edgessl.errors import BundleError, EngineError
from edgessl.export.draft import Draft
from edgessl.export.graphs import Graphs, convolutions
from edgessl.export.surgery import readers_of, weights_of
from edgessl.metrics import cosines
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.fold import Fold, PortConstants
from edgessl.runtimes.split import Port, Tail, Trunk
from edgessl.runtimes.verify import BOUNDS

_SAMPLES = 32
_NOISE = (
    1e-4  # 1 - cosine that rounding makes; an encoder whose vectors hardly move with its ports is not judged below it
)


def record_fold(draft: Draft, graphs: Graphs, encoder: onnx.ModelProto, files: Mapping[str, Kind], engine: str) -> None:
    """Note in the manifest's `split.folds` how the encoder among `files` takes its ports in; nothing where it cannot.

    Args:
        draft: Holds the files, judged.
        graphs: The fp32 graphs.
        encoder: What the file holds, before it was converted to the engine's own format.
        files: The encoder and what belongs to it.
        engine: That opens them.
    """
    behind = convolutions(graphs.trunk, len(draft.manifest["split"]["ports"]))
    for path, kind in files.items():
        if kind.role != "encoder" or kind.batch or not behind:
            continue
        if path.endswith(".xml"):
            from edgessl.export.openvino import port_constants

            ports = port_constants(draft.folder / path, behind)
        else:
            ports = constants_behind(encoder, behind)
        if ports:
            folds = draft.manifest["split"].setdefault("folds", {})
            folds[path] = [asdict(port) | {"scaled": list(port.scaled)} for port in ports]
            if not _agrees(draft, kind.precision, engine):
                del folds[path]
            if not folds:
                del draft.manifest["split"]["folds"]


def constants_behind(model: onnx.ModelProto, names: list[str]) -> list[PortConstants]:
    """What these convolutions compute with, in float or behind Q/DQ pairs; nothing where one has something else."""
    nodes = {node.name: node for node in model.graph.node}
    made = {name: node for node in model.graph.node for name in node.output}
    stored, readers = weights_of(model), readers_of(model)
    found = []
    for name in names:
        if len(nodes[name].input) < 3:
            return []
        weight, bias = nodes[name].input[1:]
        pairs = [made.get(value) for value in (weight, bias)]
        scaled = weight if pairs[0] is None else pairs[0].input[1]
        one = PortConstants(
            scaled=(scaled,),
            bias=bias if pairs[1] is None else pairs[1].input[0],
            steps="" if pairs[1] is None else pairs[1].input[1],
        )
        kinds = {pair.op_type for pair in pairs if pair is not None}
        if kinds - {"DequantizeLinear"} or any(each not in stored or len(readers[each]) > 1 for each in one.names()):
            return []
        found.append(one)
    return found


def _agrees(draft: Draft, precision: str, engine: str) -> bool:
    """Whether the folded encoder does what trunk, ports and tail do, with ports that move something.

    It must be as near to them as any graph of this precision must be to PyTorch (`BOUNDS`), and go at least half of the way
    that the ports move the vectors: ports that move little would pass the first alone without being folded in at all.
    """
    bundle, frames = draft.bundle(), draft.golden.samples[:_SAMPLES]
    options: dict[str, Any] = {"engine": engine, "precision": precision}
    with Trunk(bundle, **options) as trunk, Tail(bundle, engine=engine) as tail:
        ports = probe_ports(trunk, frames)
        wanted = tail.run(trunk.run(frames, ports).latents)
    try:
        constants = Fold(bundle, **options).constants(ports)
        if constants is None:
            return False
        with Encoder(bundle, **options) as plain, Encoder(bundle, **options, constants=constants) as folded:
            moved, off = (1 - cosines(wanted, each.embed(frames)).mean() for each in (plain, folded))
    except (BundleError, EngineError):  # another form of the constants than the walk took them for
        return False
    bound = BOUNDS[precision]
    return bool(off <= 1 - max(bound.min_cosine, bound.mean_cosine) and off <= max(moved / 2, _NOISE))  # NaN is not


def probe_ports(trunk: Trunk, frames: np.ndarray[Any, Any], seed: int = 0) -> list[Port]:
    """Ports that move what passes them: gains of 0.7 to 1.4, shifts of a fifth of the channel's spread."""
    rng = np.random.default_rng(seed)
    seen = trunk.run(frames, trunk.identity)
    ports = []
    for mean, square in zip(seen.means, seen.squares, strict=True):
        spread = np.sqrt(np.maximum(square.mean(0) - mean.mean(0) ** 2, 0))
        scale = np.exp(rng.uniform(np.log(0.7), np.log(1.4), len(spread)))
        ports.append((scale.astype(np.float32), (rng.normal(0, 0.2, len(spread)) * spread).astype(np.float32)))
    return ports
