"""One trace of an encoder, and the graphs that are parts of it: they agree because they were one."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import numpy_helper

from edgessl.export.graph import write_graph
from edgessl.export.rewrites.heads import separated
from edgessl.export.rewrites.narrow import narrowed
from edgessl.export.split import Split, Whole
from edgessl.export.surgery import part, readers_of, weights_of, without_ports


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """fp32 graphs that share the names of nodes and values.

    Attributes:
        encoder: Frames -> vectors, without ports, and without what no vector is made of.
        trunk: Frames and ports -> latents and statistics.
        same: What comes out of a port -> what goes in: with identity ports the same numbers.
    """

    encoder: onnx.ModelProto
    trunk: onnx.ModelProto
    same: dict[str, str]


def traced(split: Split) -> Graphs:
    """Trace an encoder, once.

    Raises:
        GateError: What came out is not what was promised.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "whole.onnx"
        write_graph(
            Whole(split.encoder).eval(),
            (split.encoder.blank(2), *split.identity_ports()),
            path,
            inputs=["frames", *split.port_names()],
            outputs=["vectors", "latents", *split.statistic_names()],
            dynamic=["frames"],
        )
        graphs = _parts_of(onnx.load(path))
    gc.collect()  # what the exporter leaves in cycles is several times the model
    return graphs


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
        if value not in made or made[value].op_type != "Conv":
            return []
        found[value] = made[value].name
    onward = readers_of(part(trunk, ["latents"])) if found else {}
    return list(found.values()) if all(len(onward[value]) == 1 for value in found) else []


def _parts_of(whole: onnx.ModelProto) -> Graphs:
    _with_biases(whole)
    whole = separated(whole)
    plain = onnx.ModelProto()
    plain.CopyFrom(whole)
    same = without_ports(plain)
    inner = [entry.name for entry in whole.graph.output if entry.name != "vectors"]
    taken = _products_of_use(whole)
    trunk = part(whole, [name for name in inner if not name.endswith(".products") or name in taken])
    # What both compute they compute alike: ranges are seen in the encoder, and hold for the trunk.
    shared = {name for node in trunk.graph.node for name in node.output}
    return Graphs(encoder=narrowed(part(plain, ["vectors"]), keep=shared), trunk=trunk, same=same)


def _products_of_use(whole: onnx.ModelProto) -> list[str]:
    """Outputs with the products of channels, of ports whose convolutions can take in that channels are mixed."""
    nodes = {node.name: node for node in whole.graph.node}
    ports = sum(entry.name.endswith(".scale") for entry in whole.graph.input)
    groups = [
        next((attribute.i for attribute in nodes[name].attribute if attribute.name == "group"), 1)
        for name in convolutions(whole, ports)
    ]
    return [f"port{index}.products" for index, count in enumerate(groups) if count == 1]


def _with_biases(whole: onnx.ModelProto) -> None:
    """Give each convolution that a port reads a bias, in place: there a shift finds room. The exporter drops one of zeros."""
    ports = sum(entry.name.endswith(".scale") for entry in whole.graph.input)
    names, stored = convolutions(whole, ports), weights_of(whole)
    for node in whole.graph.node:
        if node.name in names and len(node.input) == 2 and node.input[1] in stored:
            zeros = np.zeros(stored[node.input[1]].dims[0], np.float32)
            whole.graph.initializer.append(numpy_helper.from_array(zeros, f"{node.name}.bias"))
            node.input.append(f"{node.name}.bias")
