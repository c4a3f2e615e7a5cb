"""Pairs stand where the placement says, with the scales that follow from the ranges, and round as numpy does."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from edgessl.export.calibrate import Ranges, observe
from edgessl.export.graphs import Graphs
from edgessl.export.placement import PLACEMENTS, Placement, is_transformer, options_of, quantizable
from edgessl.export.quantize import quantized
from edgessl.export.surgery import weights_of
from edgessl.runtimes.engines import open_engine
from tests.export.hand_graphs import (
    attention_net,
    conv_net,
    frames_of,
    inner,
    is_sorted,
    model_of,
    norm_net,
    places_of_pairs,
    tokens_of,
)

UNSIGNED, SYMMETRIC = PLACEMENTS["onnxruntime"], PLACEMENTS["symmetric"]
BOTH = pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS)


@pytest.fixture(scope="module")
def conv_ranges() -> Ranges:
    return observe(conv_net(), frames_of(30))


@pytest.fixture(scope="module")
def norm_ranges() -> Ranges:
    return observe(norm_net(), tokens_of(30))


def stored(model: onnx.ModelProto, name: str) -> np.ndarray:
    return np.asarray(numpy_helper.to_array(weights_of(model)[name]))


def read_by(model: onnx.ModelProto, name: str) -> list[str]:
    """What a node reads."""
    return list(next(node for node in model.graph.node if node.name == name).input)


def test_in_a_convolutional_net_onnxruntime_gets_inputs_outputs_and_sums(conv_ranges: Ranges) -> None:
    pairs = places_of_pairs(quantized(conv_net(), conv_ranges, UNSIGNED))
    # c0 and c1 have the names of the ReLUs behind them; of the Gemm the input only, and its output is the vector.
    assert set(pairs) == {"image", "r0out", "r1out", "c2", "sum", "mean"}


def test_the_symmetric_placement_has_inputs_of_products_and_sums_only(conv_ranges: Ranges) -> None:
    model = quantized(conv_net(), conv_ranges, SYMMETRIC)
    assert set(places_of_pairs(model)) == {"image", "r0out", "r1out", "c2", "mean"}
    assert [node.op_type for node in model.graph.node].count("Relu") == 2


@BOTH
def test_a_transformers_stream_stays_in_float(norm_ranges: Ranges, placement: Placement) -> None:
    """Neither the sum, nor a product of two activations, nor what comes out of a matrix."""
    model = quantized(norm_net(), norm_ranges, placement)
    assert set(places_of_pairs(model)) == {"n0", "soft", "n1"}
    assert read_by(model, "a/Add") == ["frames", "o"]
    assert read_by(model, "b.norm/LayerNormalization")[0] == "stream"


def test_openvino_gets_attention_in_integers_with_all_steps_above_zero_behind_a_softmax() -> None:
    model = attention_net()
    ranges = observe(model, tokens_of(30))
    written = quantized(model, ranges, PLACEMENTS["openvino"])
    pairs = places_of_pairs(written)
    assert set(pairs) == {"frames", "q", "turned", "v", "soft"}
    assert stored(written, pairs["soft"].input[2]).dtype == np.uint8
    assert stored(written, pairs["soft"].input[1]) == pytest.approx(ranges.high["soft"] / 255, rel=1e-5)
    assert stored(written, pairs["v"].input[2]).dtype == np.int8
    assert set(places_of_pairs(quantized(model, ranges, SYMMETRIC))) == {"frames"}
    rounded, exact = (inner(each, ["vectors"], frames=tokens_of(9, 5))["vectors"] for each in (written, model))
    assert 0 < np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()


def test_one_product_of_attention_can_stay_in_float() -> None:
    model = attention_net()
    written = quantized(model, observe(model, tokens_of(30)), PLACEMENTS["openvino"], exclude=["scores/MatMul"])
    assert set(places_of_pairs(written)) == {"frames", "v", "soft"}


def test_what_was_not_rounded_in_training_is_not_rounded_afterwards() -> None:
    model = attention_net()
    ranges = replace(observe(model, tokens_of(30)), trained=True)
    assert set(places_of_pairs(quantized(model, ranges, PLACEMENTS["openvino"]))) == {"frames"}


@pytest.mark.parametrize(
    ("placement", "activations", "biases"), [(UNSIGNED, np.uint8, np.int32), (SYMMETRIC, np.int8, np.float32)]
)
def test_types_are_what_the_engine_takes(
    conv_ranges: Ranges, placement: Placement, activations: type, biases: type
) -> None:
    model = quantized(conv_net(), conv_ranges, placement)
    for name, pair in places_of_pairs(model).items():
        zero = stored(model, pair.input[2])
        assert zero.dtype == activations, name
        assert placement is UNSIGNED or zero == 0, name
    for weight in ("k0", "k1", "k2", "w"):
        assert stored(model, f"{weight}_quantized").dtype == np.int8
        assert not stored(model, f"{weight}_zero_point").any()
    assert stored(model, "b1_quantized" if placement is UNSIGNED else "b1").dtype == biases


@BOTH
def test_scales_follow_from_the_ranges(placement: Placement) -> None:
    """Around zero, below it, above it and nothing at all: zero is always a step of the grid."""
    low = {"n0": -1.5, "soft": 0.25, "n1": -3.0}
    high = {"n0": 4.25, "soft": 0.875, "n1": -0.5}
    model = quantized(norm_net(), Ranges(low, high), placement)
    for name, pair in places_of_pairs(model).items():
        least, most = min(low[name], 0), max(high[name], 0)
        if placement is UNSIGNED:
            scale, zero = (most - least) / 255, round(-least / ((most - least) / 255))
        else:
            scale, zero = max(-least, most) / 127, 0
        assert stored(model, pair.input[1]) == pytest.approx(scale, rel=1e-6), name
        assert stored(model, pair.input[2]) == zero, name


def test_a_value_that_never_moved_has_a_scale_above_zero() -> None:
    still = Ranges({"n0": 0.0, "soft": 0.0, "n1": 0.0}, {"n0": 0.0, "soft": 0.0, "n1": 0.0})
    for placement in PLACEMENTS.values():
        model = quantized(norm_net(), still, placement)
        assert all(0 < stored(model, pair.input[1]) < 1e-7 for pair in places_of_pairs(model).values())


@BOTH
def test_weights_are_rounded_per_channel(conv_ranges: Ranges, norm_ranges: Ranges, placement: Placement) -> None:
    """Symmetric, 127 steps a side, along the axis of the layer's outputs."""
    for net, ranges, axes in (
        (conv_net(), conv_ranges, {"k0": 0, "k1": 0, "k2": 0, "w": 0}),
        (norm_net(), norm_ranges, {"wq": 1, "wk": 1, "wo": 1, "wm": 1}),
    ):
        model = quantized(net, ranges, placement)
        for name, axis in axes.items():
            weight = stored(net, name)
            others = tuple(place for place in range(weight.ndim) if place != axis)
            # The scale is one float32 number per channel; a tie between two integers falls where that puts it.
            scale = (np.abs(weight).max(others, keepdims=True).astype(np.float64) / 127).astype(np.float32)
            np.testing.assert_array_equal(stored(model, f"{name}_scale"), scale.ravel())
            np.testing.assert_array_equal(stored(model, f"{name}_quantized"), np.rint(weight / scale), name)


@BOTH
@pytest.mark.parametrize("left_out", [["stages.0/Conv"], ["stages.1.1/Conv", "pool.project/Gemm"]])
def test_excluded_layers_stay_in_float(conv_ranges: Ranges, placement: Placement, left_out: list[str]) -> None:
    weights = {"stages.0/Conv": "k0", "stages.1.1/Conv": "k1", "stages.2.0/Conv": "k2", "pool.project/Gemm": "w"}
    model = quantized(conv_net(), conv_ranges, placement, exclude=left_out)
    for layer, weight in weights.items():
        assert (weight in read_by(model, layer)) == (layer in left_out), layer
        assert (f"{weight}_quantized" in weights_of(model)) == (layer not in left_out), layer
    first, last = ("image", "mean") if "stages.0/Conv" in left_out else ("mean", "image")
    assert first not in places_of_pairs(model)
    assert last in places_of_pairs(model)


@BOTH
def test_with_all_layers_excluded_no_weight_is_rounded(norm_ranges: Ranges, placement: Placement) -> None:
    net = norm_net()
    model = quantized(net, norm_ranges, placement, exclude=quantizable(net))
    assert [node.op_type for node in model.graph.node] == [node.op_type for node in net.graph.node]


@BOTH
def test_the_graph_is_sorted_and_valid_and_the_given_one_untouched(
    conv_ranges: Ranges, norm_ranges: Ranges, placement: Placement
) -> None:
    for net, ranges in ((conv_net(), conv_ranges), (conv_net(ports=True), conv_ranges), (norm_net(), norm_ranges)):
        before = net.SerializeToString()
        model = quantized(net, ranges, placement)
        assert is_sorted(model)
        onnx.checker.check_model(model, full_check=True)
        assert {entry.domain for entry in model.opset_import} == {""}
        assert (model.ir_version, model.opset_import[0].version) == (10, 20)
        assert net.SerializeToString() == before
        assert quantized(net, ranges, placement).SerializeToString() == model.SerializeToString()


def test_what_comes_out_of_a_port_has_the_range_of_what_goes_in(conv_ranges: Ranges) -> None:
    """Where the port's output is what a product reads; the port itself is not rounded."""
    net = conv_net(ports=True)
    del net.graph.node[[node.name for node in net.graph.node].index("stages.1.0/Relu")]
    for node in net.graph.node:
        node.input[:] = ["shifted" if name == "r0out" else name for name in node.input]
    for placement in PLACEMENTS.values():
        model = quantized(net, conv_ranges, placement, same={"scaled": "c0", "shifted": "c0"})
        pair = places_of_pairs(model)["shifted"]
        span = conv_ranges.high["c0"] - conv_ranges.low["c0"]
        largest = max(conv_ranges.high["c0"], -conv_ranges.low["c0"])
        assert stored(model, pair.input[1]) == pytest.approx(
            span / 255 if placement is UNSIGNED else largest / 127, rel=1e-5
        )
        assert not {"scale", "shift", "scaled", "port0.scale", "port0.shift"} & set(places_of_pairs(model))


def test_a_resize_in_front_of_the_first_layer_is_no_layer() -> None:
    net = conv_net()
    for node in net.graph.node:
        node.input[:] = ["resize.k0" if name == "k0" else name for name in node.input]
    weights_of(net)["k0"].name = "resize.k0"
    assert quantizable(net) == ["stages.1.1/Conv", "stages.2.0/Conv", "pool.project/Gemm"]
    assert quantizable(norm_net()) == ["a.q/MatMul", "a.k/MatMul", "a.o/MatMul", "b.m/MatMul"]


def test_sums_are_quantized_where_no_residual_stream_runs() -> None:
    assert not is_transformer(conv_net())
    assert is_transformer(norm_net())
    for placement, more in ((UNSIGNED, {"Add", "Relu", "Clip", "MaxPool"}), (SYMMETRIC, {"Add"})):
        products = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
        assert set(options_of(placement, conv_net())["op_types_to_quantize"]) == products | more
        assert set(options_of(placement, norm_net())["op_types_to_quantize"]) == products


def test_the_root_logger_keeps_its_level(norm_ranges: Ranges) -> None:
    before = logging.getLogger().level
    with pytest.raises(ValueError, match="soft"):
        quantized(norm_net(), Ranges({"n0": -1.0}, {"n0": 1.0}), UNSIGNED)
    assert logging.getLogger().level == before


SHAPES = {"Gemm": (4, 11), "MatMul": (11, 4), "Conv": (4, 3, 3, 2), "ConvTranspose": (3, 4, 2, 3)}


@BOTH
@pytest.mark.parametrize("kind", SHAPES)
def test_one_layer_computes_what_numpy_rounds(placement: Placement, kind: str) -> None:
    rng = np.random.default_rng(7)
    weight = rng.normal(0, 0.3, SHAPES[kind]).astype(np.float32)
    axis = {"Gemm": 0, "MatMul": 1, "Conv": 0, "ConvTranspose": 1}[kind]
    size = (11,) if kind in ("Gemm", "MatMul") else (3, 6, 5)
    bias = rng.normal(0, 0.3, 4).astype(np.float32)
    inputs = ["frames", "weight"] + ["bias"] * (kind != "MatMul")
    out = ["n"] + ([4] if len(size) == 1 else [4, None, None])
    net = model_of(
        [helper.make_node(kind, inputs, ["vectors"], name="layer", **({"transB": 1} if kind == "Gemm" else {}))],
        {"frames": (TensorProto.FLOAT, ["n", *size])},
        {"vectors": out},
        {"weight": weight} | ({"bias": bias} if kind != "MatMul" else {}),
    )
    frames = rng.normal(0.4, 1, (9, *size)).astype(np.float32)
    exact = inner(net, ["vectors"], frames=frames)["vectors"]
    low, high = {"frames": -1.25, "vectors": float(exact.min())}, {"frames": 2.5, "vectors": float(exact.max())}

    def rounded(value: np.ndarray, name: str) -> tuple[np.ndarray, float]:
        span = high[name] - low[name]
        if placement is UNSIGNED:
            scale, zero, least, most = span / 255, round(-low[name] / (span / 255)), 0, 255
        else:
            scale, zero, least, most = max(-low[name], high[name]) / 127, 0, -128, 127
        return (np.clip(np.rint(value.astype(np.float64) / scale) + zero, least, most) - zero) * scale, scale

    others = tuple(place for place in range(weight.ndim) if place != axis)
    per_channel = np.abs(weight).max(others, keepdims=True).astype(np.float64) / 127
    matrix = np.rint(weight / per_channel) * per_channel
    seen, scale = rounded(frames, "frames")
    steps = scale * per_channel.ravel()
    shift = np.rint(bias / steps) * steps if placement is UNSIGNED else bias
    expected = _layer(kind, seen, matrix, shift)
    tolerance = 1e-4
    if kind in placement.outputs:
        expected, step = rounded(expected, "vectors")
        tolerance += step  # a number between two steps may fall to either side in float32
    model = quantized(net, Ranges(low, high), placement)
    assert np.abs(expected - exact).max() > 0.01, "the ranges cut nothing off: rounding would not be seen"
    for got in (inner(model, ["vectors"], frames=frames)["vectors"], _ran(model, frames)):
        np.testing.assert_allclose(got, expected, atol=tolerance)
        assert np.mean(np.abs(got - expected) > 1e-4) < 0.02


def _layer(kind: str, value: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """In float64, by PyTorch."""
    x, w, b = (torch.from_numpy(np.asarray(each, np.float64)) for each in (value, weight, bias))
    if kind == "MatMul":
        return (x @ w).numpy()
    layers = {"Gemm": functional.linear, "Conv": functional.conv2d, "ConvTranspose": functional.conv_transpose2d}
    return layers[kind](x, w, b).numpy()  # type: ignore[operator, no-any-return]


def _ran(model: onnx.ModelProto, frames: np.ndarray) -> np.ndarray:
    engine = open_engine("onnxruntime", model.SerializeToString())
    try:
        return engine.run({"frames": frames})["vectors"]
    finally:
        engine.close()


@pytest.mark.slow
def test_an_encoders_int8_graphs_are_parts_of_one(graphs: Graphs, seen: Ranges) -> None:
    """Trunk and encoder, both of PyTorch's exporter: same weights, same scales where both have a pair."""
    for placement in PLACEMENTS.values():
        encoder, trunk = (
            quantized(model, seen, placement, same=graphs.same) for model in (graphs.encoder, graphs.trunk)
        )
        for model in (encoder, trunk):
            assert is_sorted(model)
            onnx.checker.check_model(model, full_check=True)
        one, other = weights_of(encoder), weights_of(trunk)
        rounded = [name for name in one if name.endswith(("_quantized", "_scale", "_zero_point")) and name in other]
        assert len(rounded) > 6
        for name in rounded:
            np.testing.assert_array_equal(stored(encoder, name), stored(trunk, name), name)
