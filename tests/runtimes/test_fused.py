"""What an engine made of quantization is counted in the graph that it runs, not in the file it was given."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl.errors import EngineError
from edgessl.runtimes.engines import open_engine
from edgessl.runtimes.engines.onnxnodes import Node, count_products, nodes

NOTHING = {"int8": 0, "float": 0, "unfused_dequantize": 0}


@pytest.fixture
def name(engine_name):
    return engine_name


def _fused(name, content):
    engine = open_engine(name, content, threads=1)
    try:
        return engine.fused()
    finally:
        engine.close()


def _qdq(at, constants, *, low=TensorProto.INT8):
    """Nodes that quantize `at` and compute it back, as `at.dq`."""
    constants |= {f"{at}.scale": np.float32(0.05), f"{at}.zero": np.zeros((), helper.tensor_dtype_to_np_dtype(low))}
    return [
        helper.make_node("QuantizeLinear", [at, f"{at}.scale", f"{at}.zero"], [f"{at}.q"]),
        helper.make_node("DequantizeLinear", [f"{at}.q", f"{at}.scale", f"{at}.zero"], [f"{at}.dq"]),
    ]


def _weight(at, shape, axis, constants):
    """A constant int8 weight with a scale per channel, computed back as `at.dq`."""
    rng = np.random.default_rng(8)
    constants |= {
        at: rng.integers(-127, 127, shape).astype(np.int8),
        f"{at}.scale": np.full(shape[axis], 0.01, np.float32),
        f"{at}.zero": np.zeros(shape[axis], np.int8),
    }
    return [helper.make_node("DequantizeLinear", [at, f"{at}.scale", f"{at}.zero"], [f"{at}.dq"], axis=axis)]


def _model(entries, constants, given, made):
    graph = helper.make_graph(
        entries,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, made)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _convolutions(*, outputs):
    """Two convolutions; with `outputs` what they give is quantized too, which onnxruntime needs."""
    constants = {}
    entries = _qdq("x", constants, low=TensorProto.UINT8)
    at = "x.dq"
    for index, (rows, columns) in enumerate(((6, 3), (5, 6))):
        entries += _weight(f"w{index}", (rows, columns, 3, 3), 0, constants)
        made = f"c{index}"
        entries.append(helper.make_node("Conv", [at, f"w{index}.dq"], [made]))
        if outputs:
            entries += _qdq(made, constants, low=TensorProto.UINT8)
            made += ".dq"
        at = made
    entries.append(helper.make_node("Identity", [at], ["y"]))
    return _model(entries, constants, ["batch", 3, 9, 8], ["batch", 5, 5, 4])


def _products():
    """Two matrix products whose inputs alone are quantized, as in a transformer, and one in float."""
    constants = {"z": np.random.default_rng(9).normal(size=(7, 4)).astype(np.float32)}
    entries = [*_qdq("x", constants), *_weight("w0", (10, 6), 1, constants)]
    entries += [helper.make_node("MatMul", ["x.dq", "w0.dq"], ["a"]), helper.make_node("Tanh", ["a"], ["b"])]
    entries += [*_qdq("b", constants), *_weight("w1", (6, 7), 1, constants)]
    entries += [helper.make_node("MatMul", ["b.dq", "w1.dq"], ["c"]), helper.make_node("Tanh", ["c"], ["d"])]
    entries.append(helper.make_node("MatMul", ["d", "z"], ["y"]))
    return _model(entries, constants, ["batch", 5, 10], ["batch", 5, 4])


def test_convolutions_with_quantized_outputs_are_int8_in_every_engine(name):
    assert _fused(name, _convolutions(outputs=True)) == NOTHING | {"int8": 2}


def test_products_with_quantized_inputs_are_int8_in_every_engine(name):
    assert _fused(name, _products()) == NOTHING | {"int8": 2, "float": 1}


def test_onnxruntime_leaves_a_convolution_in_float_when_its_output_is():
    """The activation and the weight of both are computed back at every run: the graph is slower than fp32."""
    counted = _fused("onnxruntime", _convolutions(outputs=False))
    assert counted == NOTHING | {"float": 2, "unfused_dequantize": 3}


def test_openvino_fuses_a_convolution_by_its_inputs_alone():
    pytest.importorskip("edgessl.runtimes.engines.openvino", reason="pip install 'edgessl[openvino]'")
    counted = _fused("openvino", _convolutions(outputs=False))
    assert counted["int8"] >= 1
    assert counted["int8"] + counted["float"] == 2


def test_openvino_counts_operands_that_stay_rounded_in_float():
    """An activation that is rounded, scaled by another input and multiplied in float gains nothing."""
    pytest.importorskip("edgessl.runtimes.engines.openvino", reason="pip install 'edgessl[openvino]'")
    constants = {"w": np.random.default_rng(9).normal(size=(10, 6)).astype(np.float32)}
    entries = [*_qdq("x", constants), helper.make_node("MatMul", ["x.dq", "w"], ["y"])]
    assert _fused("openvino", _model(entries, constants, ["batch", 10], ["batch", 6])) == {
        "int8": 0,
        "float": 1,
        "unfused_dequantize": 1,
    }


@pytest.mark.parametrize("weight", [False, True], ids=["activation", "weight"])
@pytest.mark.parametrize("between", ["nothing", "Relu", "Transpose"])
def test_openvino_counts_alike_in_its_form_for_one_sample_and_for_a_batch(weight, between):
    """With fixed sizes it computes operators in one that say less of themselves."""
    pytest.importorskip("edgessl.runtimes.engines.openvino", reason="pip install 'edgessl[openvino]'")
    constants, ends = {}, ["x.dq", "w"]
    entries = _qdq("x", constants)
    if between != "nothing":
        options = {"perm": [0, 2, 1]} if between == "Transpose" else {}
        entries.append(helper.make_node(between, ["x.dq"], ["b"], **options))
        ends[0] = "b"
    if weight:
        entries += _weight("w", (10, 6), 1, constants)
        ends[1] = "w.dq"
    else:
        constants["w"] = np.random.default_rng(9).normal(size=(10, 6)).astype(np.float32)
    shape = [4, 10] if between != "Transpose" else [10, 4]
    model = _model([*entries, helper.make_node("MatMul", ends, ["y"])], constants, ["batch", *shape], ["batch", 4, 6])
    engine = open_engine("openvino", model, threads=1)
    one = engine.fused()
    engine.run({"x": np.zeros((3, *shape), np.float32)})
    assert engine.fused() == one
    assert one["int8"] + one["float"] == 1
    engine.close()


def test_a_float_graph_has_no_int8(name, tiny):
    counted = _fused(name, (tiny / "encoder.onnx").read_bytes())
    assert counted == NOTHING | {"float": 3}


def test_counting_changes_no_vector_and_ends_with_the_engine(name, tiny, scenes):
    engine = open_engine(name, tiny / "encoder.onnx")
    before = engine.run({"frames": scenes(3, 0)})["vectors"]
    engine.fused()
    np.testing.assert_array_equal(engine.run({"frames": scenes(3, 0)})["vectors"], before)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.fused()


def test_nodes_are_read_as_the_onnx_package_reads_them(tiny):
    for path in sorted(tiny.glob("*.onnx")):
        expected = [Node(e.op_type, tuple(e.input), tuple(e.output)) for e in onnx.load(path).graph.node]
        assert list(nodes(path.read_bytes())) == expected
        assert len(expected) > 3


@pytest.mark.parametrize("content", [b"\x3a\x7f", b"\x3a", b"\xff" * 30, b"\x3f"])
def test_what_is_no_message_is_refused(content):
    with pytest.raises(ValueError, match="no ONNX file"):
        count_products(content)
