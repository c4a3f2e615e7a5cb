"""Cuts in a graph change what it holds and nothing that it computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl.export.surgery import (
    in_order,
    part,
    rename_inputs,
    set_weight,
    static_batch,
    weights_of,
    with_outputs,
    without_ports,
)
from edgessl.runtimes.engines import open_engine
from tests.export.hand_graphs import conv_net, frames_of, inner, is_sorted, model_of, norm_net, tokens_of

PORTS = {"port0.scale": np.ones(6, np.float32), "port0.shift": np.zeros(6, np.float32)}


def test_without_ports_the_graph_is_what_it_was_with_ones_and_zeros() -> None:
    model = conv_net(ports=True)
    frames = frames_of(3)
    with_ports = inner(model, ["vectors"], frames=frames, **PORTS)["vectors"]
    same = without_ports(model)
    assert same == {"scaled": "c0", "shifted": "c0"}
    plain = part(model, ["vectors"])
    assert [entry.name for entry in plain.graph.input] == ["frames"]
    np.testing.assert_array_equal(inner(plain, ["vectors"], frames=frames)["vectors"], with_ports)
    np.testing.assert_array_equal(inner(conv_net(), ["vectors"], frames=frames)["vectors"], with_ports)


def test_ports_behind_one_another_are_all_taken_out() -> None:
    node = helper.make_node
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Mul", ["port0.scale", "a"], ["b"]),  # the port stands first here
        node("Add", ["b", "port0.shift"], ["c"]),
        node("Unsqueeze", ["port1.scale", "first"], ["wide"]),
        node("Mul", ["c", "wide"], ["d"]),
        node("Neg", ["d"], ["y"]),
    ]
    inputs = {name: (TensorProto.FLOAT, [4]) for name in ("port0.scale", "port0.shift", "port1.scale")}
    model = model_of(nodes, {"x": (TensorProto.FLOAT, ["n", 4])} | inputs, {"y": ["n", 4]}, {"first": np.array([0])})
    assert without_ports(model) == {"b": "a", "c": "a", "d": "a"}
    assert [node.op_type for node in part(model, ["y"]).graph.node] == ["Relu", "Neg"]


def test_a_product_with_something_else_than_a_port_stays() -> None:
    model = conv_net()
    before = model.SerializeToString()
    assert without_ports(model) == {}
    assert model.SerializeToString() == before


def test_a_part_holds_what_its_outputs_need_and_nothing_else() -> None:
    model = conv_net(ports=True)
    trunk = part(model, ["port0.mean"])
    assert [node.name for node in trunk.graph.node] == ["Cast", "Div", "Transpose", "stages.0/Conv", "stat"]
    assert set(weights_of(trunk)) == {"full", "k0", "b0", "plane"}
    assert [entry.name for entry in trunk.graph.input] == ["frames"]
    onnx.checker.check_model(trunk, full_check=True)
    frames = frames_of(2)
    np.testing.assert_array_equal(
        inner(trunk, ["port0.mean"], frames=frames)["port0.mean"],
        inner(model, ["port0.mean"], frames=frames, **PORTS)["port0.mean"],
    )
    assert len(model.graph.node) > len(trunk.graph.node), "the given graph was changed"


def test_outputs_come_in_the_order_that_was_asked_for() -> None:
    model = conv_net(ports=True)
    assert [entry.name for entry in part(model, ["port0.mean", "vectors"]).graph.output] == ["port0.mean", "vectors"]


def test_inner_values_come_out_and_nothing_goes() -> None:
    model = conv_net()
    more = with_outputs(model, ["c1", "vectors", "sum"])
    assert [entry.name for entry in more.graph.output] == ["vectors", "c1", "sum"]
    assert len(more.graph.node) == len(model.graph.node)
    engine = open_engine("onnxruntime", more.SerializeToString())
    frames = frames_of(2)
    got, wanted = engine.run({"frames": frames}), inner(model, ["c1", "sum"], frames=frames)
    engine.close()
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_nodes_are_sorted_again(seed: int) -> None:
    model = conv_net(ports=True)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    order = np.random.default_rng(seed).permutation(len(nodes))
    del model.graph.node[:]
    model.graph.node.extend([nodes[index] for index in order])
    in_order(model)
    assert is_sorted(model)
    assert sorted(node.name for node in model.graph.node) == sorted(node.name for node in nodes)


def test_sorted_nodes_stay_as_they_are() -> None:
    model = conv_net()
    before = model.SerializeToString()
    in_order(model)
    assert model.SerializeToString() == before


def test_a_long_chain_from_its_end_is_no_recursion() -> None:
    nodes = [helper.make_node("Neg", [f"v{index}"], [f"v{index + 1}"], name=str(index)) for index in range(3000)]
    graph = helper.make_graph(
        nodes[::-1],
        "chain",
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("v3000", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph)
    in_order(model)
    assert [node.name for node in model.graph.node] == [str(index) for index in range(3000)]


def test_one_sample_per_run_is_a_batch_of_one() -> None:
    model, frames = conv_net(), frames_of(1)
    single = static_batch(model, 1)
    shaped = onnx.shape_inference.infer_shapes(single)
    sizes = [
        size
        for entry in (*shaped.graph.input, *shaped.graph.output, *shaped.graph.value_info)
        for size in entry.type.tensor_type.shape.dim
    ]
    assert len(sizes) > 20
    assert all(size.HasField("dim_value") for size in sizes)
    assert (single.ir_version, single.opset_import[0].version) == (10, 20)
    np.testing.assert_allclose(
        inner(single, ["vectors"], frames=frames)["vectors"],
        inner(model, ["vectors"], frames=frames)["vectors"],
        atol=1e-6,
    )
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch", "the given graph was changed"


def test_a_weight_with_two_readers_changes_for_the_one_that_is_named() -> None:
    model, tokens = norm_net(), tokens_of(2)
    before = inner(model, ["n0", "n1"], frames=tokens)
    gain = numpy_helper.to_array(weights_of(model)["gain"])
    name = set_weight(model, "gain", gain * 2, copy_for=["b.norm/LayerNormalization"])
    onnx.checker.check_model(model, full_check=True)
    after = inner(model, ["n0", "n1"], frames=tokens)
    np.testing.assert_array_equal(after["n0"], before["n0"])
    assert np.abs(after["n1"] - before["n1"]).max() > 0.1
    np.testing.assert_array_equal(numpy_helper.to_array(weights_of(model)[name]), gain * 2)
    np.testing.assert_array_equal(numpy_helper.to_array(weights_of(model)["gain"]), gain)


def test_a_weight_changes_for_all_its_readers_otherwise() -> None:
    model = norm_net()
    value = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32).T  # not contiguous
    assert set_weight(model, "gain", value) == "gain"
    np.testing.assert_array_equal(numpy_helper.to_array(weights_of(model)["gain"]), value)


def test_every_reader_reads_the_other_value() -> None:
    model = conv_net()
    rename_inputs(model, {"r1out": "c1"})
    assert [node.input[0] for node in model.graph.node if "c1" in node.input] == ["c1", "c1", "c1"]
