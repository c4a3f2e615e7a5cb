"""Small graphs written by hand, and what the reference of ONNX makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgessl.export.surgery import with_outputs


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[object]]],
    outputs: Mapping[str, Sequence[object]],
    constants: Mapping[str, np.ndarray],
) -> onnx.ModelProto:
    """A checked model; outputs are float."""
    graph = helper.make_graph(
        list(nodes),
        "hand",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def conv_net(*, ports: bool = False, seed: int = 0) -> onnx.ModelProto:
    """Frames `(batch, 9, 7, 3)` -> three convolutions, a sum around the last one, a pool, a Gemm -> `vectors` of 5."""
    rng = np.random.default_rng(seed)
    constants = {
        "k0": rng.normal(0, 0.4, (6, 3, 3, 3)).astype(np.float32),
        "k1": rng.normal(0, 0.2, (8, 6, 3, 3)).astype(np.float32),
        "k2": rng.normal(0, 0.2, (8, 8, 1, 1)).astype(np.float32),
        "b0": rng.normal(0, 0.2, 6).astype(np.float32),
        "b1": rng.normal(0, 0.2, 8).astype(np.float32),
        "w": rng.normal(0, 0.5, (5, 8)).astype(np.float32),
        "full": np.float32(255),
        "plane": np.array([2, 3]),
        "shape": np.array([1, -1, 1, 1]),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["frames"], ["float"], name="Cast", to=TensorProto.FLOAT),
        node("Div", ["float", "full"], ["unit"], name="Div"),
        node("Transpose", ["unit"], ["image"], name="Transpose", perm=[0, 3, 1, 2]),
        node("Conv", ["image", "k0", "b0"], ["c0"], name="stages.0/Conv", pads=[1, 1, 1, 1], strides=[2, 2]),
    ]
    at = "c0"
    if ports:
        nodes += [
            node("ReduceMean", ["c0", "plane"], ["port0.mean"], name="stat", keepdims=0),
            node("Reshape", ["port0.scale", "shape"], ["scale"], name="r0"),
            node("Reshape", ["port0.shift", "shape"], ["shift"], name="r1"),
            node("Mul", ["c0", "scale"], ["scaled"], name="port/Mul"),
            node("Add", ["scaled", "shift"], ["shifted"], name="port/Add"),
        ]
        at = "shifted"
    nodes += [
        node("Relu", [at], ["r0out"], name="stages.1.0/Relu"),
        node("Conv", ["r0out", "k1", "b1"], ["c1"], name="stages.1.1/Conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1out"], name="stages.1.2/Relu"),
        node("Conv", ["r1out", "k2"], ["c2"], name="stages.2.0/Conv"),
        node("Add", ["r1out", "c2"], ["sum"], name="stages.2/Add"),
        node("ReduceMean", ["sum", "plane"], ["mean"], name="pool/ReduceMean", keepdims=0),
        node("Gemm", ["mean", "w"], ["vectors"], name="pool.project/Gemm", transB=1),
    ]
    inputs = {"frames": (TensorProto.UINT8, ["batch", 9, 7, 3])}
    outputs: dict[str, Sequence[object]] = {"vectors": ["batch", 5]}
    if ports:
        inputs |= {f"port0.{part}": (TensorProto.FLOAT, [6]) for part in ("scale", "shift")}
        outputs["port0.mean"] = ["batch", 6]
    return model_of(nodes, inputs, outputs, constants)


def norm_net(*, outlier: float = 1.0, seed: int = 0) -> onnx.ModelProto:
    """Series `(batch, 5, 12)` -> two layer norms that share a gain and a bias, products behind them -> `vectors`.

    Args:
        outlier: How much larger two channels of the first norm are, and how much smaller the weights that read them.
        seed: Of the weights.
    """
    rng = np.random.default_rng(seed)
    large = np.ones(12, np.float32)
    large[[3, 7]] = outlier
    constants = {
        "gain": rng.uniform(0.5, 1.5, 12).astype(np.float32) * large,
        "bias": rng.normal(0, 0.2, 12).astype(np.float32) * large,
        "wq": rng.normal(0, 0.4, (12, 9)).astype(np.float32) / large[:, None],
        "wk": rng.normal(0, 0.2, (12, 9)).astype(np.float32) / large[:, None],
        "wm": rng.normal(0, 0.3, (12, 6)).astype(np.float32) / large[:, None],
        "wo": rng.normal(0, 0.3, (9, 12)).astype(np.float32),
        "axis": np.array([1]),
    }
    node = helper.make_node
    nodes = [
        node("LayerNormalization", ["frames", "gain", "bias"], ["n0"], name="a.norm/LayerNormalization"),
        node("MatMul", ["n0", "wq"], ["q"], name="a.q/MatMul"),
        node("MatMul", ["n0", "wk"], ["k"], name="a.k/MatMul"),
        node("Mul", ["q", "k"], ["qk"], name="a/Mul"),
        node("Softmax", ["qk"], ["soft"], name="a/Softmax"),
        node("MatMul", ["soft", "wo"], ["o"], name="a.o/MatMul"),
        node("Add", ["frames", "o"], ["stream"], name="a/Add"),
        node("LayerNormalization", ["stream", "gain", "bias"], ["n1"], name="b.norm/LayerNormalization"),
        node("MatMul", ["n1", "wm"], ["m"], name="b.m/MatMul"),
        node("ReduceMean", ["m", "axis"], ["vectors"], name="pool/ReduceMean", keepdims=0),
    ]
    return model_of(nodes, {"frames": (TensorProto.FLOAT, ["batch", 5, 12])}, {"vectors": ["batch", 6]}, constants)


def attention_net() -> onnx.ModelProto:
    """Series `(batch, 5, 12)` -> queries, keys and values, what one gives the other, and a product behind it."""
    rng = np.random.default_rng(0)
    node = helper.make_node
    nodes = [
        *(node("MatMul", ["frames", f"w{part}"], [part], name=f"{part}/MatMul") for part in "qkv"),
        node("Transpose", ["k"], ["turned"], perm=[0, 2, 1], name="turn"),
        node("MatMul", ["q", "turned"], ["scores"], name="scores/MatMul"),
        node("Softmax", ["scores"], ["soft"], name="soft/Softmax"),
        node("MatMul", ["soft", "v"], ["mixed"], name="mixed/MatMul"),
        node("ReduceMean", ["mixed", "axis"], ["vectors"], name="pool", keepdims=0),
    ]
    constants: dict[str, np.ndarray] = {
        f"w{part}": rng.normal(0, 0.3, (12, 7)).astype(np.float32) for part in "qkv"
    } | {"axis": np.array([1])}
    return model_of(nodes, {"frames": (TensorProto.FLOAT, ["batch", 5, 12])}, {"vectors": ["batch", 7]}, constants)


def frames_of(count: int, seed: int = 1) -> np.ndarray:
    """For `conv_net`: low-pass noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 3, 3, 3)).repeat(3, 1).repeat(3, 2)[:, :, :7]
    return np.clip(coarse + rng.normal(0, 9, coarse.shape), 0, 255).astype(np.uint8)


def tokens_of(count: int, seed: int = 1) -> np.ndarray:
    """For `norm_net`."""
    return np.random.default_rng(seed).normal(0, 1, (count, 5, 12)).astype(np.float32)


def inner(model: onnx.ModelProto, names: Sequence[str], **feeds: np.ndarray) -> dict[str, np.ndarray]:
    """Values of a graph, outputs or not, as the reference of ONNX computes them."""
    values = ReferenceEvaluator(with_outputs(model, names)).run(list(names), feeds)
    return dict(zip(names, (np.asarray(value) for value in values), strict=True))


def is_sorted(model: onnx.ModelProto) -> bool:
    """Whether every node stands behind what it reads, and every value is made once."""
    have = {entry.name for entry in (*model.graph.input, *model.graph.initializer)} | {""}
    for node in model.graph.node:
        if not have.issuperset(node.input) or have.intersection(name for name in node.output if name):
            return False
        have.update(node.output)
    return have.issuperset(entry.name for entry in model.graph.output)


def places_of_pairs(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Activation -> the node that quantizes it."""
    return {node.input[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
