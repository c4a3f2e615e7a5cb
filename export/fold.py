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
from edgessl.export.graphs import Graphs
from edgessl.export.surgery import part, readers_of, weights_of
from edgessl.metrics import cosines
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.fold import Fold, PortConstants
from edgessl.runtimes.split import Port, Tail, Trunk

#: Mean cosine of the folded encoder with trunk, ports and tail. In fp32 it is the same function. In int8 the tail is rounded
#: in the one and float in the other, each within 0.995 of fp32; with two such roundings apart 0.99 is what that leaves.
BOUNDS = {"fp32": 0.9999, "int8": 0.99}
_SAMPLES = 32


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


def convolutions(trunk: onnx.ModelProto, ports: int) -> list[str]:
    """Names of the convolutions whose outputs the ports read, and nobody else on the way to the latents; else nothing."""
    readers = readers_of(trunk)
    made = {name: node for node in trunk.graph.node for name in node.output}
    found = {}
    for index in range(ports):
        name = f"port{index}.scale"
        while [node.op_type for node in readers.get(name, [])] in (["Reshape"], ["Unsqueeze"]):
            name = readers[name][0].output[0]
        if [node.op_type for node in readers.get(name, [])] != ["Mul"]:
            return []
        value = next((given for given in readers[name][0].input if given != name), "")
        if value not in made or made[value].op_type != "Conv" or len(made[value].input) < 3:
            return []
        found[value] = made[value].name
    onward = readers_of(part(trunk, ["latents"])) if found else {}
    return list(found.values()) if all(len(onward[value]) == 1 for value in found) else []


def constants_behind(model: onnx.ModelProto, names: list[str]) -> list[PortConstants]:
    """What these convolutions compute with, in float or behind Q/DQ pairs; nothing where one has something else."""
    nodes = {node.name: node for node in model.graph.node}
    made = {name: node for node in model.graph.node for name in node.output}
    stored, readers = weights_of(model), readers_of(model)
    found = []
    for name in names:
        weight, bias = nodes[name].input[1:3]
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
    """Whether the folded encoder does what trunk, ports and tail do, with ports that move something."""
    bundle, frames = draft.bundle(), draft.golden.samples[:_SAMPLES]
    with Trunk(bundle, engine=engine, precision=precision) as trunk, Tail(bundle, engine=engine) as tail:
        ports = probe_ports(trunk, frames)
        wanted = tail.run(trunk.run(frames, ports).latents)
    try:
        constants = Fold(bundle, engine=engine, precision=precision).constants(ports)
        if constants is None:
            return False
        with Encoder(bundle, engine=engine, precision=precision, constants=constants) as encoder:
            given = encoder.embed(frames)
    except (BundleError, EngineError):  # another form of the constants than the walk took them for
        return False
    return bool(cosines(wanted, given).mean() >= BOUNDS[precision])  # NaN is not


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
