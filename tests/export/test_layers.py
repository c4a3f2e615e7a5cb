"""The layer that was damaged is the layer that is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgessl.export.calibrate import observe
from edgessl.export.layers import drops, layer_cosines, starts_at
from edgessl.export.placement import PLACEMENTS, quantizable
from edgessl.export.quantize import quantized
from edgessl.export.surgery import weights_of
from edgessl.metrics import cosines
from tests.export.hand_graphs import conv_net, frames_of, inner, norm_net, tokens_of

CONVS = {"stages.0/Conv": "k0", "stages.1.1/Conv": "k1", "stages.2.0/Conv": "k2", "pool.project/Gemm": "w"}
MATRICES = {"a.q/MatMul": "wq", "a.k/MatMul": "wk", "a.o/MatMul": "wo", "b.m/MatMul": "wm"}


def damaged(model: onnx.ModelProto, weight: str) -> onnx.ModelProto:
    """A copy with noise as large as the weights in one of them, fp32 or already rounded."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    stored = weights_of(copy)
    entry = stored.get(weight) or stored[f"{weight}_quantized"]
    value = numpy_helper.to_array(entry)
    noise = np.random.default_rng(0).permutation(value.ravel()).reshape(value.shape)
    entry.CopyFrom(numpy_helper.from_array(noise, entry.name))
    return copy


@pytest.mark.parametrize("layer", CONVS)
def test_a_damaged_layer_is_named(layer: str) -> None:
    model, samples = conv_net(), frames_of(4)
    layers = layer_cosines(model, damaged(model, CONVS[layer]), samples, "onnxruntime")
    assert [name for name, _ in layers] == quantizable(model) == list(CONVS)
    assert starts_at(layers, 0.995) == layer
    assert drops(layers)[0][0] == layer
    before = layers[: list(CONVS).index(layer)]
    assert all(cosine == pytest.approx(1, abs=1e-6) for _, cosine in before)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("layer", CONVS)
def test_it_is_named_in_an_int8_graph_as_well(layer: str, placement: str) -> None:
    """Where onnxruntime's quantizer has left the ReLU out and given the layer its name."""
    model, samples = conv_net(), frames_of(4)
    rounded = quantized(model, observe(model, frames_of(30)), PLACEMENTS[placement])
    layers = layer_cosines(model, damaged(rounded, CONVS[layer]), samples, "onnxruntime")
    assert [name for name, _ in layers] == list(CONVS)
    assert starts_at(layers, 0.95) == layer
    assert drops(layers)[0][0] == layer


@pytest.mark.parametrize("layer", MATRICES)
def test_it_is_named_in_a_transformer(layer: str) -> None:
    model, samples = norm_net(), tokens_of(4)
    rounded = quantized(model, observe(model, tokens_of(30)), PLACEMENTS["symmetric"])
    layers = layer_cosines(model, damaged(rounded, MATRICES[layer]), samples, "onnxruntime")
    assert [name for name, _ in layers] == list(MATRICES)
    assert starts_at(layers, 0.95) == layer


def test_the_figures_are_the_cosines_of_the_outputs() -> None:
    """Per sample over all that a layer gives, then the mean; by the reference of ONNX."""
    model, samples = norm_net(), tokens_of(3)
    other = damaged(model, "wk")
    names = {"a.q/MatMul": "q", "a.k/MatMul": "k", "a.o/MatMul": "o", "b.m/MatMul": "m"}
    exact, near = (inner(each, list(names.values()), frames=samples) for each in (model, other))
    for layer, cosine in layer_cosines(model, other, samples, "onnxruntime"):
        one, two = (value[names[layer]].reshape(3, -1) for value in (exact, near))
        each = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
        assert cosine == pytest.approx(each.mean(), abs=1e-5), layer


def test_a_layer_behind_which_a_relu_was_left_out_is_compared_in_front_of_it() -> None:
    """The pair clips at zero, the value in front of the pair does not: both sides have what the ReLU takes away."""
    model, samples = conv_net(), frames_of(4)
    rounded = quantized(model, observe(model, frames_of(30)), PLACEMENTS["onnxruntime"])
    assert "c1" not in {name for node in rounded.graph.node for name in node.output}
    found = dict(layer_cosines(model, rounded, samples, "onnxruntime"))["stages.1.1/Conv"]
    exact = inner(model, ["c1"], frames=samples)["c1"].reshape(4, -1)
    near = inner(rounded, ["r1out"], frames=samples)["r1out"].reshape(4, -1)
    assert near.min() < -0.1
    assert found == pytest.approx(cosines(exact, near).mean(), abs=1e-3)
    assert found > 0.995 > cosines(np.maximum(exact, 0), near).mean()


def test_a_layer_that_the_candidate_does_not_have_is_left_out() -> None:
    model = conv_net()
    other = onnx.ModelProto.FromString(model.SerializeToString())
    for node in other.graph.node:
        for names in (node.input, node.output):
            names[:] = ["other" if name == "c2" else name for name in names]
    layers = layer_cosines(model, other, frames_of(2), "onnxruntime")
    assert [name for name, _ in layers] == ["stages.0/Conv", "stages.1.1/Conv", "pool.project/Gemm"]


def test_drops_are_against_the_layer_before_largest_first() -> None:
    layers = [("a", 0.99), ("b", 0.9), ("c", 0.95), ("d", 0.7)]
    assert [name for name, _ in drops(layers)] == ["d", "b", "a", "c"]
    assert [fall for _, fall in drops(layers)] == pytest.approx([0.25, 0.09, 0.01, -0.05])


def test_an_error_starts_at_the_first_layer_below_the_bound() -> None:
    layers = [("a", 0.999), ("b", 0.99), ("c", 0.2), ("d", 0.999)]
    assert starts_at(layers, 0.995) == "b"
    assert starts_at(layers, 0.5) == "c"
    assert starts_at(layers, 0.1) == "c"  # none is below: the one that loses most
    assert starts_at([("a", 0.999), ("b", float("nan")), ("c", 0.1)], 0.9) == "b"


def test_without_layers_there_is_nothing_to_name() -> None:
    assert starts_at([], 0.99) == ""
    assert drops([]) == []
    assert starts_at([("only", 1.0)], 0.99) == "only"
