"""One trace of an encoder, and the graphs that are parts of it: they agree because they were one."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from edgessl.export.graph import write_graph
from edgessl.export.split import Split, Whole
from edgessl.export.surgery import part, without_ports


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """fp32 graphs that share the names of nodes and values.

    Attributes:
        encoder: Frames -> vectors, without ports.
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


def _parts_of(whole: onnx.ModelProto) -> Graphs:
    plain = onnx.ModelProto()
    plain.CopyFrom(whole)
    same = without_ports(plain)
    inner = [entry.name for entry in whole.graph.output if entry.name != "vectors"]
    return Graphs(encoder=part(plain, ["vectors"]), trunk=part(whole, inner), same=same)
