"""A graph that could run for ever is refused before an engine sees it."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgessl.errors import EngineError
from edgessl.runtimes.engines import open_engine
from edgessl.runtimes.engines.preflight import refuse_endless

FILES = ("encoder.onnx", "encoder.int8.onnx", "trunk.fp32.onnx", "tail.onnx", "step.onnx")


def model(nodes: list, **more: object) -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])])
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, **more).SerializeToString()


def endless() -> onnx.NodeProto:
    """While true: y = y."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["at"], ["next"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("at", TensorProto.FLOAT, [1])],
        [value("go_on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [1])],
    )
    return helper.make_node("Loop", ["", "", "x"], ["y"], body=body)


@pytest.mark.parametrize("name", FILES)
def test_exported_graphs_pass(tiny, name):
    refuse_endless((tiny / name).read_bytes())


def test_a_loop_is_refused_by_name(tmp_path):
    content = model([endless()])
    (tmp_path / "loop.onnx").write_bytes(content)
    for graph in (content, tmp_path / "loop.onnx"):
        with pytest.raises(EngineError, match="Loop"):
            open_engine("onnxruntime", graph)


def test_a_loop_in_another_spelling_of_its_length_is_refused():
    content = model([endless()])
    assert content.count(b"\x22\x04Loop") == 1
    spelled = content.replace(b"\x22\x04Loop", b"\x22\x84\x00Loop")
    grown = onnx.ModelProto.FromString(content).graph.ByteSize()
    at = content.index(onnx.ModelProto.FromString(content).graph.SerializeToString())
    assert grown + 2 < 2**14
    head = content[at - 2 : at]  # the graph's own length grows by one, and the node's
    node = onnx.ModelProto.FromString(content).graph.node[0].ByteSize()
    mended = spelled.replace(head, varint(grown + 1), 1).replace(varint(node), varint(node + 1), 1)
    assert onnx.ModelProto.FromString(mended).graph.node[0].op_type == "Loop"
    with pytest.raises(ValueError, match="Loop"):
        refuse_endless(mended)


def varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80, number >> 7]) if number > 0x7F else bytes([number])


def test_functions_which_could_hide_a_loop_are_refused():
    function = helper.make_function("local", "Hidden", ["x"], ["y"], [endless()], [helper.make_opsetid("", 20)])
    content = model([helper.make_node("Hidden", ["x"], ["y"], domain="local")], functions=[function])
    with pytest.raises(ValueError, match="functions"):
        refuse_endless(content)


def test_a_name_that_says_loop_is_no_loop():
    refuse_endless(model([helper.make_node("Identity", ["x"], ["y"], name="Loop", doc_string='"\x04Loop')]))


@pytest.mark.parametrize("content", [b"\x3a\x05ab", b"\xff" * 12, b"\x3b", b"\x08"])
def test_what_is_no_message_is_refused(content):
    with pytest.raises(ValueError, match="it "):
        refuse_endless(content)


def test_a_graph_that_names_an_output_twice_gives_it_once():
    """Found by benchmarks/fuzz_bundles.py."""
    once = onnx.ModelProto.FromString(model([helper.make_node("Identity", ["x"], ["y"])]))
    once.graph.output.append(once.graph.output[0])
    with closing(open_engine("onnxruntime", once.SerializeToString())) as engine:
        assert set(engine.run({"x": np.ones(1, np.float32)})) == {"y"}


@pytest.mark.parametrize("version", [1001, 2**31, 2**62, -1])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_version_of_operators_that_no_onnx_has_is_refused_at_once(name, version, request):
    """OpenVINO would count down from it."""
    if name == "openvino":
        request.getfixturevalue("with_openvino")
    changed = onnx.load_from_string(model([helper.make_node("Neg", ["x"], ["y"])]))
    changed.opset_import[0].version = version
    with pytest.raises(EngineError, match="operators of version"):
        open_engine(name, changed.SerializeToString())
