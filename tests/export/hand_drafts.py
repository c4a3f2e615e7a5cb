"""Drafts around small graphs written by hand: the trunk is the whole net, and the tail hands its latents on."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgessl.bundle import Kind
from edgessl.export.draft import Draft
from edgessl.export.graphs import Graphs
from edgessl.runtimes.engines import open_engine
from edgessl.runtimes.verify import Golden, embed
from edgessl.signals import image_spec
from tests.export.hand_graphs import model_of

#: With so few golden samples all others are neighbours: the cosine alone decides.
FEW = 11


def chain_net(layers: int, broken: Collection[int] = (), *, dim: int = 16, seed: int = 0) -> onnx.ModelProto:
    """Vectors `(batch, dim)` -> one Gemm and ReLU after the other -> `vectors`; near rotations, so that nothing fades.

    Args:
        layers: How many; they are called `layer.NUMBER/Gemm`.
        broken: Layers whose input has a channel three thousand times as large as the others, and weights that make up for
            it: the same function, and no eight bits hold it.
        dim: Of everything.
        seed: Of the weights.
    """
    rng = np.random.default_rng(seed)
    nodes, constants, at = [], {}, "frames"
    for index in range(layers):
        matrix = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
        if index in broken:
            large = np.ones(dim)
            large[index % dim] = 3000
            constants[f"large{index}"] = large.astype(np.float32)
            nodes.append(helper.make_node("Mul", [at, f"large{index}"], [f"x{index}"], name=f"layer.{index}/Mul"))
            at, matrix = f"x{index}", matrix / large
        constants |= {f"w{index}": matrix.astype(np.float32), f"b{index}": rng.normal(0, 0.3, dim).astype(np.float32)}
        last = index == layers - 1
        out = "vectors" if last else f"g{index}"
        inputs = [at, f"w{index}", f"b{index}"]
        nodes.append(helper.make_node("Gemm", inputs, [out], name=f"layer.{index}/Gemm", transB=1))
        if not last:
            nodes.append(
                helper.make_node("LeakyRelu", [out], [f"r{index}"], name=f"layer.{index}/LeakyRelu", alpha=0.5)
            )
            at = f"r{index}"
    return model_of(nodes, {"frames": (TensorProto.FLOAT, ["batch", dim])}, {"vectors": ["batch", dim]}, constants)


def points_of(count: int, dim: int = 16, seed: int = 1) -> np.ndarray:
    """For `chain_net`."""
    return np.random.default_rng(seed).normal(0, 1, (count, dim)).astype(np.float32)


def graphs_of(model: onnx.ModelProto) -> Graphs:
    """The net as an encoder and as a trunk without ports."""
    trunk = onnx.ModelProto.FromString(model.SerializeToString())
    for node in trunk.graph.node:
        node.output[:] = ["latents" if name == "vectors" else name for name in node.output]
    trunk.graph.output[0].name = "latents"
    return Graphs(encoder=model, trunk=trunk, same={})


def draft_of(folder: Path, model: onnx.ModelProto, samples: np.ndarray) -> Draft:
    """The net's fp32 graphs in a draft, with golden vectors of the samples."""
    graphs = graphs_of(model)
    engine = open_engine("onnxruntime", model.SerializeToString())
    vectors = embed(engine, samples)
    engine.close()
    dim = vectors.shape[1]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", dim]) for name in ("latents", "vectors")]
    tail = helper.make_graph([helper.make_node("Identity", ["latents"], ["vectors"])], "tail", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 20)]
    onnx.save(graphs.encoder, folder / "encoder.onnx")
    onnx.save(graphs.trunk, folder / "trunk.fp32.onnx")
    onnx.save(helper.make_model(tail, opset_imports=opset, ir_version=10), folder / "tail.onnx")
    return Draft(
        folder=folder,
        golden=Golden(samples=samples, vectors=vectors, names=[f"sample {row}" for row in range(len(samples))]),
        input=image_spec(32, 40),
        dim=dim,
        manifest={"space_id": "hand", "split": {"latent": [dim], "channel_axis": 1, "ports": []}},
        kinds={
            "encoder.onnx": Kind("encoder", "fp32"),
            "trunk.fp32.onnx": Kind("trunk", "fp32"),
            "tail.onnx": Kind("tail", "fp32"),
        },
    )


def files_in(folder: Path) -> set[str]:
    """Every file, as a path inside the folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
