"""Rounding in front of what only moves numbers."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from edgessl.export.rewrites.hoist import hoisted
from tests.export.hand_graphs import model_of
from tests.export.rewrites.conftest import run


class TestHoisted:
    def test_a_pair_goes_in_front_of_what_only_moves_numbers(self) -> None:
        node = helper.make_node
        nodes = [
            node("Tanh", ["x"], ["t"], name="t"),
            node("Transpose", ["t"], ["turned"], perm=[0, 2, 1], name="turn"),
            node("Reshape", ["turned", "shape"], ["flat"], name="flat"),
            node("QuantizeLinear", ["flat", "scale", "zero"], ["q"], name="q"),
            node("DequantizeLinear", ["q", "scale", "zero"], ["dq"], name="dq"),
            node("MatMul", ["dq", "w"], ["y"], name="y"),
        ]
        constants = {
            "shape": np.array([-1, 20]),
            "scale": np.float32(0.02),
            "zero": np.int8(0),
            "w": np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32),
        }
        model = model_of(nodes, {"x": (TensorProto.FLOAT, ["batch", 4, 5])}, {"y": ["batch", 3]}, constants)
        x = {"x": np.random.default_rng(1).normal(size=(3, 4, 5)).astype(np.float32)}
        got = hoisted(model)
        order = [each.op_type for each in got.graph.node]
        assert order == ["Tanh", "QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape", "MatMul"]
        np.testing.assert_array_equal(run(got, x)["y"], run(model, x)["y"])

    def test_a_value_that_is_read_unrounded_too_stays_unrounded(self) -> None:
        node = helper.make_node
        nodes = [
            node("Transpose", ["x"], ["turned"], perm=[0, 2, 1], name="turn"),
            node("QuantizeLinear", ["turned", "scale", "zero"], ["q"], name="q"),
            node("DequantizeLinear", ["q", "scale", "zero"], ["dq"], name="dq"),
            node("Sub", ["dq", "turned"], ["y"], name="y"),
        ]
        constants = {"scale": np.float32(0.5), "zero": np.int8(0)}
        model = model_of(nodes, {"x": (TensorProto.FLOAT, ["batch", 4, 5])}, {"y": ["batch", 5, 4]}, constants)
        assert hoisted(model).graph.node == model.graph.node
