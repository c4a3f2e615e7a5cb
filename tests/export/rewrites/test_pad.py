"""A number of tokens that divides, and no attention for those that were added."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgessl.export.calibrate import observe
from edgessl.export.placement import PLACEMENTS
from edgessl.export.quantize import quantized
from edgessl.export.rewrites.pad import even_tokens, padded
from tests.export.conftest import smooth_frames
from tests.export.hand_graphs import inner, model_of
from tests.export.rewrites.conftest import FRAMES, SIDE, TOKENS, kinds, run


class TestPadded:
    @pytest.mark.parametrize(
        ("tokens", "wanted"), [(197, 198), (257, 258), (261, 261), (131, 132), (101, 102), (200, 200), (65, 65), (7, 7)]
    )
    def test_the_number_of_tokens_divides_into_blocks(self, tokens: int, wanted: int) -> None:
        assert even_tokens(tokens) == wanted

    @pytest.mark.slow
    def test_a_prime_number_of_tokens_is_one_more_inside(self, graphs) -> None:
        model = padded(graphs.encoder)
        products = [node.output[0] for node in model.graph.node if "mlp.fc1/MatMul" in node.name]
        inside = inner(model, products, frames=FRAMES)
        assert {inside[name].shape[1] for name in products} <= {TOKENS + 1, 1}
        assert TOKENS + 1 in {inside[name].shape[1] for name in products}

    @pytest.mark.slow
    def test_tokens_that_were_added_are_given_no_attention(self, graphs) -> None:
        model = padded(graphs.encoder)
        softmaxes = [
            node for node in model.graph.node if node.op_type == "Softmax" and node.input[0].endswith(".hidden")
        ]
        assert softmaxes
        names = [node.output[0] for node in softmaxes]
        for name, value in inner(model, names, frames=FRAMES).items():
            if name in names:
                assert (value[..., TOKENS:] == 0).all()
                np.testing.assert_allclose(value.sum(-1), 1, atol=1e-5)

    @pytest.mark.slow
    def test_a_rounded_graph_is_padded_from_end_to_end(self, graphs) -> None:
        """Nothing is cut back between its pairs, and it gives what it gave."""
        ranges = observe(graphs.encoder, smooth_frames(20, SIDE, SIDE))
        model = quantized(graphs.encoder, ranges, PLACEMENTS["openvino"])
        got = padded(model)
        soft = [node.output[0] for node in got.graph.node if node.op_type == "Softmax"]
        sizes = {value.shape[-1] for value in inner(got, soft, frames=FRAMES).values()}
        assert sizes - {1} == {TOKENS + 1}
        # At the end, one where a mean over tokens is taken.
        assert kinds(got)["Slice"] - kinds(model)["Slice"] <= 1
        wanted, vectors = (run(each, {"frames": FRAMES})["vectors"] for each in (model, got))
        np.testing.assert_allclose(vectors, wanted, atol=1e-5)

    def test_a_graph_without_attention_is_left_alone(self) -> None:
        node = helper.make_node("Tanh", ["x"], ["y"], name="tanh")
        model = model_of([node], {"x": (TensorProto.FLOAT, ["batch", 197, 4])}, {"y": ["batch", 197, 4]}, {})
        assert padded(model) is model

    def attention(self, *, softmax: int = -1, other: str = "n") -> onnx.ModelProto:
        """Tokens that look at each other, or softmax over channels; values of tokens, or of a constant."""
        node = helper.make_node
        nodes = [
            node("LayerNormalization", ["x", "gain"], ["n"], name="norm"),
            node("Softmax", ["n"], ["gate"], axis=softmax, name="gate"),
            node("Transpose", ["n"], ["t"], perm=[0, 2, 1], name="t"),
            node("MatMul", ["n", "t"], ["scores"], name="scores"),
            node("Softmax", ["scores"], ["soft"], name="soft"),
            node("MatMul", ["soft", other], ["mixed"], name="mixed"),
            node("Mul", ["mixed", "gate"], ["gated"], name="gated"),
            node("Add", ["x", "gated"], ["y"], name="y"),
        ]
        rng = np.random.default_rng(0)
        constants = {
            name: rng.uniform(0.5, 2, shape).astype(np.float32) for name, shape in (("gain", 4), ("v", (131, 4)))
        }
        return model_of(nodes, {"x": (TensorProto.FLOAT, ["batch", 131, 4])}, {"y": ["batch", 131, 4]}, constants)

    @pytest.mark.parametrize(("softmax", "other"), [(-1, "n"), (1, "n"), (-1, "v"), (2, "v")])
    def test_what_cannot_be_padded_is_cut_back(self, softmax: int, other: str) -> None:
        """A softmax over channels hides no token, one over tokens sums them all, and values may have no more than there were."""
        model = self.attention(softmax=softmax, other=other)
        x = {"x": np.random.default_rng(1).normal(size=(2, 131, 4)).astype(np.float32)}
        got = padded(model)
        assert got is not model
        np.testing.assert_allclose(run(got, x)["y"], run(model, x)["y"], atol=1e-5)

    def test_where_no_attention_is_reached_nothing_is_padded(self) -> None:
        node = helper.make_node
        nodes = [
            node("LayerNormalization", ["x", "gain"], ["n"], name="norm"),
            node("CumSum", ["n", "axis"], ["c"], name="c"),
            node("Transpose", ["c"], ["t"], perm=[0, 2, 1], name="t"),
            node("MatMul", ["c", "t"], ["scores"], name="scores"),
            node("Softmax", ["scores"], ["y"], name="soft"),
        ]
        constants = {"gain": np.ones(4, np.float32), "axis": np.array(1)}
        model = model_of(nodes, {"x": (TensorProto.FLOAT, ["batch", 131, 4])}, {"y": ["batch", 131, 131]}, constants)
        assert padded(model) is model

    def test_a_bias_between_tokens_gets_more_rows_and_columns(self) -> None:
        """Relative positions: a constant that stands beside the scores."""
        rng = np.random.default_rng(0)
        node = helper.make_node
        nodes = [
            node("LayerNormalization", ["x", "gain"], ["n"], name="norm"),
            node("Transpose", ["n"], ["t"], perm=[0, 2, 1], name="t"),
            node("MatMul", ["n", "t"], ["scores"], name="scores"),
            node("Add", ["scores", "bias"], ["moved"], name="moved"),
            node("Softmax", ["moved"], ["soft"], name="soft"),
            node("MatMul", ["soft", "n"], ["mixed"], name="mixed"),
            node("Add", ["x", "mixed"], ["stream"], name="stream"),
            node("Mul", ["stream", "mask"], ["y"], name="y"),
        ]
        constants = {
            "gain": rng.uniform(0.5, 2, 4).astype(np.float32),
            "bias": rng.normal(0, 3, (1, 131, 131)).astype(np.float32),
            "mask": rng.normal(0, 1, (131, 1)).astype(np.float32),
        }
        model = model_of(nodes, {"x": (TensorProto.FLOAT, ["batch", 131, 4])}, {"y": ["batch", 131, 4]}, constants)
        x = {"x": rng.normal(size=(2, 131, 4)).astype(np.float32)}
        got = padded(model)
        np.testing.assert_allclose(run(got, x)["y"], run(model, x)["y"], atol=1e-5)
        assert inner(got, ["soft"], **x)["soft"].shape == (2, 132, 132)
