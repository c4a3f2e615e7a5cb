"""Where one entry is read, one is computed; the vector is the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edgessl.export.graph import write_graph
from edgessl.export.graphs import traced
from edgessl.export.rewrites.axes import Axes
from edgessl.export.rewrites.heads import separated
from edgessl.export.rewrites.narrow import narrowed
from edgessl.export.split import split_encoder
from edgessl.export.surgery import weights_of
from edgessl.export.tail import write_tail
from tests.export.hand_graphs import inner, model_of
from tests.export.rewrites.conftest import FRAMES, TOKENS, kinds, multiplications, run, vit


@pytest.mark.slow
class TestNarrowed:
    def test_a_class_token_costs_the_last_block_a_part_of_what_it_did(self, tmp_path) -> None:
        encoder = vit()
        path = tmp_path / "encoder.onnx"
        prepared = split_encoder(encoder).encoder
        write_graph(prepared, (prepared.blank(2),), path, inputs=["frames"], outputs=["vectors"], dynamic=["frames"])
        whole = separated(onnx.load(path))
        width, attention = 12, 2 * TOKENS * TOKENS * 12
        block = 12 * width * width * TOKENS + attention
        # Keys and values of all tokens; all else of one.
        last = 2 * width * width * TOKENS + 10 * width * width + 2 * TOKENS * width
        frames = FRAMES[:1]
        assert multiplications(whole, frames) - multiplications(narrowed(whole), frames) == block - last

    def test_a_mean_over_tokens_needs_them_all(self, tmp_path) -> None:
        path = tmp_path / "encoder.onnx"
        prepared = split_encoder(vit("mean")).encoder
        write_graph(prepared, (prepared.blank(2),), path, inputs=["frames"], outputs=["vectors"], dynamic=["frames"])
        whole = separated(onnx.load(path))
        assert kinds(narrowed(whole)) == kinds(whole)

    def test_weights_of_a_tail_keep_their_names_and_shapes(self, tmp_path) -> None:
        """One with an axis of tokens too: the device gives them by name."""

        class Placed(torch.nn.Module):
            def __init__(self, norm: torch.nn.Module) -> None:
                super().__init__()
                self.norm, self.where = norm, torch.nn.Parameter(torch.randn(1, TOKENS, 12))

            def forward(self, tokens: torch.Tensor) -> torch.Tensor:
                return torch.as_tensor(self.norm(tokens) + self.where)

        encoder = vit()
        encoder.stages[-1] = Placed(encoder.stages[-1])
        prepared = split_encoder(encoder)
        write_tail(prepared, tmp_path / "tail.onnx")
        stored = {name: tuple(entry.dims) for name, entry in weights_of(onnx.load(tmp_path / "tail.onnx")).items()}
        for name, value in prepared.tail_weights().items():
            assert stored[f"weight.{name}"] == tuple(value.shape)

    def test_what_a_trunk_computes_too_stays_whole(self) -> None:
        """Ranges are seen in the encoder, and hold for the trunk."""
        encoder = vit()
        encoder.cut = len(encoder.stages)  # nothing but the pool behind the trunk
        graphs = traced(split_encoder(encoder))
        names = {name for node in graphs.trunk.graph.node for name in node.output if "latents" not in name}
        shapes = [Axes.of(graph).shapes for graph in (graphs.encoder, graphs.trunk)]
        shared = [name for name in names if name in shapes[0] and name in shapes[1]]
        assert len(shared) > 50
        for name in shared:
            sizes = [[size for size in shape[name] if isinstance(size, int)] for shape in shapes]
            assert sizes[0] == sizes[1], name


class TestNarrowedByHand:
    def graph(self, *readers: onnx.NodeProto, outputs: dict[str, list[object]], other: bool = False) -> onnx.ModelProto:
        node = helper.make_node
        nodes = [
            node("MatMul", ["x", "w"], ["product"], name="product"),
            node("Add", ["product", "places"], ["sum"], name="sum"),
            node("Tanh", ["sum"], ["tanh"], name="tanh"),
            *readers,
        ]
        rng = np.random.default_rng(0)
        constants = {
            "w": rng.normal(size=(4, 6)).astype(np.float32),
            "places": rng.normal(size=(7, 6)).astype(np.float32),
            "two": np.array(2),
            **{str(number): np.array([number]) for number in (0, 1, 3, 4)},
            "channels": np.array([2]),
        }
        inputs: dict[str, tuple[int, list[object]]] = {"x": (TensorProto.FLOAT, ["batch", 7, 4])}
        if other:
            inputs |= {"other": (TensorProto.FLOAT, ["batch", "any", 6]), "count": (TensorProto.INT64, [1])}
        return model_of(nodes, inputs, outputs, constants)

    X = np.random.default_rng(1).normal(size=(3, 7, 4)).astype(np.float32)

    def test_an_entry_in_the_middle_takes_its_own_constants(self) -> None:
        model = self.graph(
            helper.make_node("Gather", ["tanh", "two"], ["y"], axis=1, name="take"), outputs={"y": ["batch", 6]}
        )
        got = narrowed(model)
        np.testing.assert_allclose(run(got, {"x": self.X})["y"], run(model, {"x": self.X})["y"], atol=1e-6)
        inside = inner(got, ["product", "tanh"], x=self.X)
        assert inside["product"].shape == inside["tanh"].shape == (3, 1, 6)

    def test_a_value_that_is_read_in_whole_elsewhere_is_computed_in_whole(self) -> None:
        model = self.graph(
            helper.make_node("Slice", ["tanh", "3", "4", "1"], ["y"], name="take"),
            helper.make_node("Neg", ["sum"], ["z"], name="whole"),
            outputs={"y": ["batch", 1, 6], "z": ["batch", 7, 6]},
        )
        got = narrowed(model)
        for name, value in run(model, {"x": self.X}).items():
            np.testing.assert_allclose(run(got, {"x": self.X})[name], value, atol=1e-6)
        inside = inner(got, ["sum", "tanh"], x=self.X)
        assert (inside["sum"].shape, inside["tanh"].shape) == ((3, 7, 6), (3, 1, 6))

    def test_two_entries_are_not_one(self) -> None:
        nodes = [
            helper.make_node("Slice", ["tanh", "3", "4", "1"], ["y3"], name="y3"),
            helper.make_node("Gather", ["tanh", "two"], ["y2"], axis=1, name="y2"),
        ]
        model = self.graph(*nodes, outputs={"y3": ["batch", 1, 6], "y2": ["batch", 6]})
        assert narrowed(model).graph.node == model.graph.node

    @pytest.mark.parametrize("kind", ["Gather", "Slice"])
    def test_two_takes_in_a_row(self, kind: str) -> None:
        if kind == "Gather":
            nodes = [
                helper.make_node("Gather", ["tanh", "two"], ["a"], axis=1, name="a"),
                helper.make_node("Neg", ["a"], ["b"], name="b"),
                helper.make_node("Gather", ["b", "two"], ["y"], axis=1, name="y"),
            ]
            model = self.graph(*nodes, outputs={"y": ["batch"]})
        else:
            nodes = [
                helper.make_node("Slice", ["tanh", "3", "4", "1"], ["a"], name="a"),
                helper.make_node("Neg", ["a"], ["b"], name="b"),
                helper.make_node("Slice", ["b", "3", "4", "channels"], ["y"], name="y"),
            ]
            model = self.graph(*nodes, outputs={"y": ["batch", 1, 1]})
        np.testing.assert_allclose(run(narrowed(model), {"x": self.X})["y"], run(model, {"x": self.X})["y"], atol=1e-6)

    def test_an_operand_of_unknown_size_is_not_stretched_to_one_entry(self) -> None:
        nodes = [
            helper.make_node("Slice", ["other", "0", "count", "1"], ["part"], name="part"),
            helper.make_node("Add", ["tanh", "part"], ["both"], name="both"),
            helper.make_node("Gather", ["both", "two"], ["y"], axis=1, name="take"),
        ]
        model = self.graph(*nodes, outputs={"y": ["batch", 6]}, other=True)
        feeds = {"x": self.X, "other": self.X.repeat(2, 2)[..., :6], "count": np.array([7])}
        np.testing.assert_allclose(run(narrowed(model), feeds)["y"], run(model, feeds)["y"], atol=1e-6)

    def test_what_mixes_the_entries_is_left_as_it_is(self) -> None:
        """A softmax over tokens needs them all; behind it one is enough."""
        nodes = [
            helper.make_node("Softmax", ["tanh"], ["soft"], axis=1, name="soft"),
            helper.make_node("Neg", ["soft"], ["neg"], name="neg"),
            helper.make_node("Gather", ["neg", "two"], ["y"], axis=1, name="take"),
        ]
        model = self.graph(*nodes, outputs={"y": ["batch", 6]})
        got = narrowed(model)
        np.testing.assert_allclose(run(got, {"x": self.X})["y"], run(model, {"x": self.X})["y"], atol=1e-6)
        inside = inner(got, ["soft", "neg"], x=self.X)
        assert (inside["soft"].shape, inside["neg"].shape) == ((3, 7, 6), (3, 1, 6))
