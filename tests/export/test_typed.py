"""fp16 graphs against their fp32 source in onnxruntime, which runs fp16 slowly and right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgessl.errors import GateError, InputError
from edgessl.export.cast_first import cast_inputs_first
from edgessl.export.graph import write_graph
from edgessl.export.lint import lint
from edgessl.export.split import Split
from edgessl.export.typed import overflowing, write_half

F, H, U8, I8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT8

IMAGES = pytest.mark.parametrize("encoder", ["conv_small", "res_small", "vit_micro"], indirect=True)


def run(path: Path, **feeds: NDArray[np.generic]) -> list[NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def cosines(one: NDArray[np.float32], two: NDArray[np.float32]) -> NDArray[np.float64]:
    one, two = (value.reshape(len(value), -1).astype(np.float64) for value in (one, two))
    return (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int]]],
    opset: int = 20,
    **constants: object,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", F, ["a"] * 2)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def types_of(path: Path) -> dict[str, int]:
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    infos = (*model.graph.value_info, *model.graph.output)
    types = {entry.name: entry.type.tensor_type.elem_type for entry in infos}
    return {node.name: types[node.output[0]] for node in model.graph.node}


def clean(path: Path) -> bool:
    found = [
        finding for target in ("tensorrt:10.3", "tensorrt:10.16", "tensorrt:11.1") for finding in lint(path, target)
    ]
    return not [finding for finding in found if finding.rule != "risk-attention"]


def outputs_of(split: Split) -> list[str]:
    return ["latents", *split.statistic_names()]


@pytest.mark.slow
@IMAGES
def test_an_encoder_in_fp16_gives_its_fp32_vectors(split: Split, frames: NDArray[np.uint8], tmp_path: Path) -> None:
    source, target = tmp_path / "encoder.onnx", tmp_path / "half.onnx"
    example = torch.zeros(2, *split.encoder.input.shape, dtype=torch.uint8)
    write_graph(split.encoder, (example,), source, inputs=["frames"], outputs=["vectors"], dynamic=["frames"])
    count = write_half(source, target)
    whole = onnx.load(source)
    (expected,), (vectors,) = run(source, frames=frames), run(target, frames=frames)
    assert vectors.dtype == np.float32
    assert cosines(expected, vectors).min() > 0.9999
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5  # the norm itself is taken in fp32
    assert clean(target)
    assert count >= len(whole.graph.node) // 2
    # Weights are two bytes each, but for the prologue's and the norm's few.
    assert target.stat().st_size < 0.75 * source.stat().st_size or source.stat().st_size < 20_000
    model = onnx.load(target)
    assert model.ir_version == 10
    assert model.opset_import[0].version == 20
    assert [entry.type.tensor_type.elem_type for entry in (*model.graph.input, *model.graph.output)] == [U8, F]
    again = tmp_path / "again.onnx"
    write_half(source, again)
    assert again.read_bytes() == target.read_bytes()


@pytest.mark.slow
@IMAGES
def test_a_trunk_in_fp16_keeps_fp32_at_its_border(split: Split, frames: NDArray[np.uint8], tmp_path: Path) -> None:
    source, target = tmp_path / "trunk.onnx", tmp_path / "half.onnx"
    names, outputs = ["frames", *split.port_names()], outputs_of(split)
    example = torch.zeros(2, *split.encoder.input.shape, dtype=torch.uint8)
    write_graph(
        split.trunk, (example, *split.identity_ports()), source, inputs=names, outputs=outputs, dynamic=["frames"]
    )
    write_half(source, target)
    rng = np.random.default_rng(0)
    ports = {
        name: (value.numpy() + rng.normal(0, 0.1, value.shape)).astype(np.float32)
        for name, value in zip(names[1:], split.identity_ports(), strict=True)
    }
    expected, found = run(source, frames=frames, **ports), run(target, frames=frames, **ports)
    assert [value.dtype for value in found] == [np.float32] * len(outputs)
    assert len(outputs) >= 3
    for name, one, two in zip(outputs, expected, found, strict=True):
        assert cosines(one, two).min() > 0.9999, name
        assert np.abs(one - two).max() < 4e-3 * np.abs(one).max(), name
    assert clean(target)
    kinds = {node.op_type: types_of(target)[node.name] for node in onnx.load(target).graph.node}
    assert kinds["ReduceMean"] == F


def q_dq_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", ["x", "xs", "z"], ["xq"], name="q"),
        helper.make_node("DequantizeLinear", ["xq", "xs", "z"], ["xd"], name="dq"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="dqw", axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["m"], name="product"),
        helper.make_node("Add", ["m", "b"], ["y"], name="sum"),
    ]


def q_dq_constants(scales: NDArray[np.float32], weights: NDArray[np.int8]) -> dict[str, object]:
    zeros = np.zeros(len(scales), np.int8)
    bias = np.linspace(-1, 1, len(scales), dtype=np.float32)
    return {"xs": np.float32(0.03), "z": np.int8(0), "w": weights, "ws": scales, "wz": zeros, "b": bias}


def test_scales_are_fp16_and_int8_weights_stay(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weights = rng.integers(-127, 128, (5, 7)).astype(np.int8)
    constants = q_dq_constants(rng.uniform(0.001, 0.02, 7).astype(np.float32), weights)
    source = save(tmp_path / "a.onnx", q_dq_nodes(), {"x": (F, [3, 5])}, **constants)
    target = tmp_path / "b.onnx"
    assert write_half(source, target) == 5
    stored = {tensor.name: tensor for tensor in onnx.load(target).graph.initializer}
    assert {name: tensor.data_type for name, tensor in stored.items()} == {
        "xs.half": H, "z": I8, "w": I8, "ws.half": H, "wz": I8, "b.half": H
    }  # fmt: skip
    assert np.array_equal(numpy_helper.to_array(stored["w"]), weights)
    x = rng.normal(0, 1, (3, 5)).astype(np.float32)
    assert np.abs(run(source, x=x)[0] - run(target, x=x)[0]).max() < 0.02
    assert clean(target)


def test_a_dead_channel_does_not_keep_the_others_from_fp16(tmp_path: Path) -> None:
    weights = np.full((5, 3), 100, np.int8)
    weights[:, 1] = 0
    constants = q_dq_constants(np.asarray([0.01, 1e-12, 0.02], np.float32), weights)
    source = save(tmp_path / "a.onnx", q_dq_nodes(), {"x": (F, [3, 5])}, **constants)
    write_half(source, tmp_path / "b.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "b.onnx").graph.initializer}
    assert stored["ws.half"].tolist() == [np.float16(0.01), 1, np.float16(0.02)]
    x = np.ones((3, 5), np.float32)
    assert np.allclose(run(source, x=x)[0], run(tmp_path / "b.onnx", x=x)[0], atol=0.02)


def test_a_scale_too_small_for_fp16_stays_fp32(tmp_path: Path) -> None:
    constants = q_dq_constants(np.asarray([0.01, 1e-7, 0.02], np.float32), np.full((5, 3), 100, np.int8))
    source = save(tmp_path / "a.onnx", q_dq_nodes(), {"x": (F, [3, 5])}, **constants)
    write_half(source, tmp_path / "b.onnx")
    kinds = types_of(tmp_path / "b.onnx")
    assert (kinds["dqw"], kinds["dq"], kinds["product"]) == (F, H, H)
    assert clean(tmp_path / "b.onnx")


@pytest.mark.parametrize(("constant", "kind"), [(1e5, F), (1e-6, F), (0.5, H), (0.0, H), (60000.0, H)])
def test_a_constant_that_fp16_cannot_hold_keeps_its_node_in_fp32(tmp_path: Path, constant: float, kind: int) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"], name="r"), helper.make_node("Max", ["r", "c"], ["y"], name="max")]
    source = save(tmp_path / "a.onnx", nodes, {"x": (F, [3, 5])}, c=np.float32(constant))
    write_half(source, tmp_path / "b.onnx")
    nodes_by_name = {node.name: node for node in onnx.load(tmp_path / "b.onnx").graph.node}
    assert (nodes_by_name["max"].output[0] == "y.half") == (kind == H)


def rows_to_norm(weights: NDArray[np.float32]) -> tuple[list[onnx.NodeProto], dict[str, object]]:
    """Bytes -> resized -> product with learned weights -> divided by the root of the mean square."""
    resize = np.asarray([[0.5, 0.5, 0, 0], [0, 0, 0.25, 0.75]], np.float32)
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], name="turn", perm=[1, 0]),
        helper.make_node("Cast", ["t"], ["f"], name="cast", to=F),
        helper.make_node("MatMul", ["r", "f"], ["s"], name="resize"),
        helper.make_node("MatMul", ["s", "w"], ["m"], name="learned"),
        helper.make_node("Mul", ["m", "m"], ["sq"], name="square"),
        helper.make_node("ReduceMean", ["sq", "axes"], ["ms"], name="mean"),
        helper.make_node("Add", ["ms", "eps"], ["mse"], name="eps"),
        helper.make_node("Sqrt", ["mse"], ["rms"], name="root"),
        helper.make_node("Div", ["m", "rms"], ["d"], name="divide"),
        helper.make_node("MatMul", ["d", "w2"], ["y"], name="last"),
    ]
    square = np.eye(weights.shape[1], dtype=np.float32) * 2
    axes, eps = np.asarray([1], np.int64), np.float32(1e-6)
    return nodes, {"r": resize, "w": weights, "axes": axes, "eps": eps, "w2": square}


def test_resize_and_mean_squares_are_fp32_and_products_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    nodes, constants = rows_to_norm(rng.normal(0, 2, (3, 6)).astype(np.float32))
    source = save(tmp_path / "a.onnx", nodes, {"x": (U8, [3, 4])}, **constants)
    target = tmp_path / "b.onnx"
    assert write_half(source, target) == 2
    kinds = types_of(target)
    assert [kinds[name] for name in ("turn", "resize", "square", "mean", "eps", "root", "divide")] == [F] * 7
    assert [kinds[name] for name in ("learned", "last")] == [H] * 2
    x = rng.integers(0, 256, (3, 4)).astype(np.uint8)
    # Squares here reach far above 65504.
    expected, found = run(source, x=x)[0], run(target, x=x)[0]
    assert np.abs(run(source, x=x)[0] - found).max() < 2e-2
    assert cosines(expected, found).min() > 0.99999
    assert clean(target)


def test_nodes_whose_values_leave_fp16_are_found_and_kept(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    tensors = ["x", "ta", "tb", "tc", "y"]
    nodes = [
        helper.make_node("Mul", [tensors[i], f"k{i}"], [tensors[i + 1]], name=name) for i, name in enumerate(names)
    ]
    constants = {f"k{i}": np.float32(value) for i, value in enumerate((10, 1000, 0.001, 2))}
    source = save(tmp_path / "a.onnx", nodes, {"x": (F, [3, 5])}, **constants)
    x = np.full((3, 5), 20, np.float32)
    # 20 -> 200 -> 200,000 -> 200 -> 400: b makes the large one, c takes it.
    large = overflowing(source, [{"x": x / 1000}, {"x": x}])
    assert large == {"b", "c"}
    assert overflowing(source, [{"x": x}], limit=1e6) == set()
    assert overflowing(source, [{"x": x * np.nan}]) == set(names)
    # The first nodes of a graph are its prologue: something else stands before.
    plain = [helper.make_node("Relu", ["in"], ["x"], name="relu"), *nodes]
    source = save(tmp_path / "c.onnx", plain, {"in": (F, [3, 5])}, **constants)
    write_half(source, tmp_path / "d.onnx")
    # onnxruntime computes neighbours in fp32 on a CPU and would not see it; numpy takes the types as they are.
    with np.errstate(over="ignore"):
        assert np.isinf(ReferenceEvaluator(onnx.load(tmp_path / "d.onnx")).run(None, {"in": x})[0]).all()
    write_half(source, tmp_path / "e.onnx", keep=large)
    assert np.allclose(ReferenceEvaluator(onnx.load(tmp_path / "e.onnx")).run(None, {"in": x})[0], 400, rtol=1e-3)


def test_layer_norm_keeps_its_fp32_statistics(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="r"),
        helper.make_node("LayerNormalization", ["r", "s", "b"], ["y"], name="norm", epsilon=1e-6),
    ]
    gains, shifts = np.ones(5, np.float32), np.zeros(5, np.float32)
    source = save(tmp_path / "a.onnx", nodes, {"x": (F, [3, 5])}, s=gains, b=shifts)
    assert write_half(source, tmp_path / "b.onnx") == 2
    x = np.random.default_rng(0).uniform(1000, 9000, (3, 5)).astype(np.float32)  # squares up to 8.1e7
    assert np.abs(run(source, x=x)[0] - run(tmp_path / "b.onnx", x=x)[0]).max() < 1e-2


def test_constant_nodes_are_typed_too(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Constant", [], ["k"], value_float=0.25),
        helper.make_node("Constant", [], ["j"], value=numpy_helper.from_array(np.float32(3))),
        helper.make_node("Mul", ["r", "k"], ["m"]),
        helper.make_node("Add", ["m", "j"], ["y"]),
    ]
    source = save(tmp_path / "a.onnx", nodes, {"x": (F, [3, 5])})
    assert write_half(source, tmp_path / "b.onnx") == 3
    assert np.allclose(run(tmp_path / "b.onnx", x=np.full((3, 5), 8, np.float32))[0], 5)
    assert len({node.name for node in onnx.load(tmp_path / "b.onnx").graph.node}) == 5


def test_what_cannot_be_typed_is_refused(tmp_path: Path) -> None:
    relu = [helper.make_node("Relu", ["x"], ["y"], name="r")]
    shape = {"x": (F, [3, 5])}
    with pytest.raises(GateError, match="opset 18"):
        write_half(save(tmp_path / "a.onnx", relu, shape, opset=18), tmp_path / "b.onnx")
    with pytest.raises(InputError, match="'other'"):
        write_half(save(tmp_path / "a.onnx", relu, shape), tmp_path / "b.onnx", keep=["other"])
    (tmp_path / "a.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"a\.onnx"):
        write_half(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


def test_bytes_are_cast_before_they_are_moved(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Cast", ["t"], ["f"], to=F),
        helper.make_node("Reshape", ["f", "s"], ["y"]),
    ]
    source = save(tmp_path / "a.onnx", nodes, {"x": (U8, [3, 5])})
    model = onnx.load(source)
    assert {finding.rule for finding in lint(model, "tensorrt:10.3")} == {"uint8"}
    cast_inputs_first(model)
    assert [node.op_type for node in model.graph.node] == ["Cast", "Transpose", "Shape", "Reshape"]
    assert lint(model, "tensorrt:10.3") == []
    onnx.save(model, tmp_path / "b.onnx")
    x = np.arange(15, dtype=np.uint8).reshape(3, 5)
    assert np.array_equal(run(tmp_path / "b.onnx", x=x)[0], x.T.reshape(3, 5))
    before = model.SerializeToString()
    cast_inputs_first(model)
    assert model.SerializeToString() == before
