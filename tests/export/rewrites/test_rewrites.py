"""Rewritten graphs give what they gave, in fewer or other steps; ONNX's own reference and PyTorch say what that is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edgessl.encoders import EncoderModule, build_encoder
from edgessl.export.calibrate import observe
from edgessl.export.graph import write_graph
from edgessl.export.graphs import Graphs, traced
from edgessl.export.placement import PLACEMENTS
from edgessl.export.quantize import quantized
from edgessl.export.rewrites.axes import Axes
from edgessl.export.rewrites.heads import separated
from edgessl.export.rewrites.hoist import hoisted
from edgessl.export.rewrites.narrow import narrowed
from edgessl.export.rewrites.pad import even_tokens, padded
from edgessl.export.split import Split, split_encoder
from edgessl.export.surgery import weights_of
from edgessl.export.tail import write_tail
from edgessl.signals import image_spec
from tests.export.conftest import smooth_frames
from tests.export.hand_graphs import inner, model_of

SIDE, TOKENS = 40, 101  # patches of 4 pixels and a class token: a prime


def vit(pool: str = "cls", tail: int = 1) -> EncoderModule:
    torch.manual_seed(5)
    encoder = build_encoder(
        "vit_micro", image_spec(SIDE, SIDE), dim=12, depth=3, heads=3, patch=4, pool=pool, tail=tail
    )
    with torch.no_grad():  # as drawn, its blocks change next to nothing
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return encoder.eval()


@pytest.fixture(scope="module", params=["cls", "mean", "cls+mean"])
def encoder(request: pytest.FixtureRequest) -> EncoderModule:
    return vit(request.param)


@pytest.fixture(scope="module")
def split(encoder: EncoderModule) -> Split:
    return split_encoder(encoder)


@pytest.fixture(scope="module")
def graphs(split: Split) -> Graphs:
    return traced(split)


@pytest.fixture(scope="module")
def plain(encoder: EncoderModule, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """The encoder as the exporter leaves it."""
    path = tmp_path_factory.mktemp("plain") / "encoder.onnx"
    prepared = split_encoder(encoder).encoder
    write_graph(prepared, (prepared.blank(2),), path, inputs=["frames"], outputs=["vectors"], dynamic=["frames"])
    return onnx.load(path)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    names = [entry.name for entry in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(None, feeds), strict=True))


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def multiplications(model: onnx.ModelProto, frames: np.ndarray) -> int:
    """Of all MatMuls, counted on what they give."""
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    names = {name for node in products for name in (node.input[0], node.output[0])} - set(weights_of(model))
    values = inner(model, sorted(names), frames=frames)
    return sum(values[node.output[0]].size * values[node.input[0]].shape[-1] for node in products)


FRAMES = smooth_frames(3, SIDE, SIDE, seed=4)


@pytest.fixture(scope="module")
def rounded(graphs: Graphs) -> onnx.ModelProto:
    """The encoder in int8, as OpenVINO gets it."""
    ranges = observe(graphs.encoder, smooth_frames(20, SIDE, SIDE))
    return quantized(graphs.encoder, ranges, PLACEMENTS["openvino"])


@pytest.mark.slow
class TestAllOfThem:
    @pytest.mark.parametrize("rewrite", [narrowed, padded, hoisted])
    def test_a_rounded_encoder_gives_what_it_gave(self, rounded, rewrite) -> None:
        got = rewrite(rounded)
        wanted, vectors = (run(each, {"frames": FRAMES})["vectors"] for each in (rounded, got))
        np.testing.assert_allclose(vectors, wanted, atol=1e-5)

    @pytest.mark.parametrize("rewrite", [narrowed, padded, separated])
    def test_an_encoder_gives_the_vectors_of_pytorch(self, plain, encoder, rewrite) -> None:
        before = plain.SerializeToString(deterministic=True)
        rewritten = rewrite(plain)
        with torch.no_grad():
            wanted = encoder(torch.from_numpy(FRAMES)).numpy()
        np.testing.assert_allclose(run(rewritten, {"frames": FRAMES})["vectors"], wanted, atol=2e-5)
        assert plain.SerializeToString(deterministic=True) == before, "the graph that was given has changed"

    def test_a_trunk_gives_its_latents_and_statistics_in_their_shapes(self, graphs, split) -> None:
        rng = np.random.default_rng(2)
        ports = {name: rng.uniform(0.5, 1.5, 12).astype(np.float32) for name in split.port_names()}
        wanted = run(graphs.trunk, {"frames": FRAMES} | ports)
        got = run(padded(graphs.trunk), {"frames": FRAMES} | ports)
        assert list(got) == list(wanted)
        for name, value in wanted.items():
            np.testing.assert_allclose(got[name], value, atol=1e-4, rtol=1e-4, err_msg=name)

    @pytest.mark.parametrize("rewrite", [narrowed, padded, separated, hoisted])
    def test_what_is_rewritten_already_stays(self, plain, rounded, rewrite) -> None:
        once = rewrite(plain if rewrite is separated else rounded)
        assert kinds(rewrite(once)) == kinds(once)


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


class TestSeparated:
    @pytest.mark.slow
    def test_each_block_has_three_products_for_one_and_no_scale_beside_them(self, plain) -> None:
        got = separated(plain)
        names = [node.name for node in got.graph.node if "attn.qkv" in node.name and node.op_type == "MatMul"]
        assert len(names) == 9
        assert kinds(plain)["Mul"] - kinds(got)["Mul"] == 3
        assert kinds(got)["Slice"] == kinds(plain)["Slice"] - 9

    @pytest.mark.slow
    def test_queries_keys_and_values_keep_their_names(self, plain) -> None:
        """Ranges that calibration saw are found by name."""
        products = [node for node in plain.graph.node if node.op_type == "MatMul"]
        activations = {name for node in products for name in node.input} - set(weights_of(plain))
        got = separated(plain)
        made = {name for node in got.graph.node for name in node.output}
        assert activations <= made
        before = inner(plain, sorted(activations), frames=FRAMES)
        after = inner(got, sorted(activations), frames=FRAMES)
        for name in activations:
            np.testing.assert_allclose(after[name], before[name], atol=1e-5, err_msg=name)


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


#: kind, shape in, attributes, constants, shape out, axis in -> out
CASES = [
    ("Transpose", (2, 3, 5), {"perm": [2, 0, 1]}, {}, (5, 2, 3), {0: 1, 1: 2, 2: 0}),
    ("Reshape", (2, 3, 20), {}, {"c": [2, 3, 4, 5]}, (2, 3, 4, 5), {0: 0, 1: 1, 2: None}),
    ("Squeeze", (2, 1, 5), {}, {"c": [1]}, (2, 5), {0: 0, 1: None, 2: 1}),
    ("Unsqueeze", (2, 3), {}, {"c": [0, 2]}, (1, 2, 1, 3), {0: 1, 1: 3}),
    ("ReduceMean", (2, 3, 5), {"keepdims": 0}, {"c": [1]}, (2, 5), {0: 0, 1: None, 2: 1}),
    ("ReduceMean", (2, 3, 5), {"keepdims": 1}, {"c": [-1]}, (2, 3, 1), {0: 0, 1: 1, 2: None}),
    ("Softmax", (2, 3, 5), {"axis": 1}, {}, (2, 3, 5), {0: 0, 1: None, 2: 2}),
    ("LayerNormalization", (2, 3, 5), {"axis": -2}, {"g": np.ones((3, 5))}, (2, 3, 5), {0: 0, 1: None, 2: None}),
    ("MatMul", (2, 3, 5), {}, {"w": np.ones((5, 4))}, (2, 3, 4), {0: 0, 1: 1, 2: None}),
    ("Gather", (2, 3, 5), {"axis": 1}, {"c": 2}, (2, 5), {0: 0, 1: None, 2: 1}),
    ("CumSum", (2, 3, 5), {}, {"c": 1}, (2, 3, 5), {0: None, 1: None, 2: None}),
]


class TestAxes:
    @pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}{place}" for place, case in enumerate(CASES)])
    def test_an_entry_of_the_output_moves_with_its_entry_of_the_input_alone(self, case) -> None:
        """Held against the operator itself: one entry is changed, and what changes is looked at."""
        kind, shape, attributes, constants, out, wanted = case
        node = helper.make_node(kind, ["x", *constants], ["y"], name="n", **attributes)
        stored = {name: np.asarray(value) for name, value in constants.items()}
        stored = {name: value.astype(np.float32) if value.dtype == float else value for name, value in stored.items()}
        model = model_of([node], {"x": (TensorProto.FLOAT, shape)}, {"y": out}, stored)
        axes = Axes.of(model)
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        for axis, expected in wanted.items():
            found = axes.through(model.graph.node[0], 0, axis)
            assert found == expected
            if found is None:
                continue
            moved = x.copy()
            np.moveaxis(moved, axis, 0)[1 % shape[axis]] += 1
            changed = run(model, {"x": moved})["y"] != run(model, {"x": x})["y"]
            entries = np.moveaxis(changed, found, 0).reshape(changed.shape[found], -1).any(1)
            assert entries.nonzero()[0].tolist() == [1 % shape[axis]]
