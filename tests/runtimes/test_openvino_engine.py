"""What OpenVINO has of its own: IR files, and compilers that fail."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl.errors import EngineError
from edgessl.export.openvino import write_ir
from edgessl.runtimes.engines import open_engine

# Through the engine's file, which keeps openvino from reporting its import.
openvino = pytest.importorskip("edgessl.runtimes.engines.openvino", reason="pip install 'edgessl[openvino]'").openvino

SIGNAL = """
import faulthandler, gc, pathlib, signal, sys
from edgessl.runtimes.engines import open_engine
faulthandler.enable()
engines = [open_engine("openvino", pathlib.Path(sys.argv[1])) for _ in range(3)]
for engine in engines:
    engine.close()
del engine, engines
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""


@pytest.fixture
def ir(tiny, tmp_path):
    openvino.save_model(openvino.convert_model(tiny / "encoder.onnx"), tmp_path / "encoder.xml", compress_to_fp16=False)
    return tmp_path / "encoder.xml"


def test_an_ir_gives_what_its_onnx_file_gives(ir, tiny, scenes):
    written, reference = open_engine("openvino", ir), open_engine("onnxruntime", tiny / "encoder.onnx")
    assert written.inputs == reference.inputs
    assert written.outputs == reference.outputs
    for batch in (1, 4, 0):
        frames = {"frames": scenes(batch, 0)}
        np.testing.assert_allclose(written.run(frames)["vectors"], reference.run(frames)["vectors"], atol=1e-5)
    written.close()
    reference.close()


@pytest.mark.parametrize("damage", ["no weights", "short weights", "no graph"])
def test_a_damaged_ir_is_an_engine_error(ir, damage):
    weights = ir.with_suffix(".bin")
    if damage == "no weights":
        weights.unlink()
    elif damage == "short weights":
        weights.write_bytes(weights.read_bytes()[:64])
    else:
        ir.write_text("<net")
    with pytest.raises(EngineError, match="cannot load"):
        open_engine("openvino", ir)


def test_a_compiler_that_fails_is_an_engine_error_with_its_reason(tiny, monkeypatch):
    """As with Q/DQ pairs in the residual stream of a ViT: the compiler throws, and the bundle has another precision."""

    def fail(*_, **__):
        raise RuntimeError("Exception from src/core.cpp:135:\n\n[GatherTransformation] Axis 1 is out of range\n")

    monkeypatch.setattr(openvino.Core, "compile_model", fail)
    with pytest.raises(EngineError, match=r"encoder\.onnx: \[GatherTransformation\] Axis 1 is out of range$"):
        open_engine("openvino", tiny / "encoder.onnx")


def test_floats_are_computed_in_fp32(tiny):
    """Its default is bf16 or f16 where the processor has it."""
    engine = open_engine("openvino", tiny / "encoder.onnx", threads=1)
    assert engine.info() == {
        "engine": "openvino",
        "version": openvino.__version__.partition("-")[0],
        "provider": "CPU",
        "precision": "fp32",
        "threads": 1,
        "spin": False,
        "affinity": "bound to cores that openvino chose",
        "cache": "off",
    }
    engine.close()


@pytest.mark.slow
def test_a_signal_finds_its_handler_after_engines_were_closed_in_any_order(tiny):
    """Cores of openvino 2026.4.1 leave a freed signal stack behind when the first of two goes first."""
    command = [sys.executable, "-c", SIGNAL, str(tiny / "encoder.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("module", ["edgessl.runtimes.engines.openvino", "edgessl.export.openvino"])
def test_nothing_is_reported_on_import(module):
    code = f"import sys, {module}; print(sys.modules['openvino_telemetry'])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "None"


def test_an_input_keeps_its_name_where_what_follows_does_nothing(tmp_path):
    """Minus 0, over 1: taken out by the engine, whose input then has three names."""
    nothing = [helper.make_node("Sub", ["frames", "zero"], ["sub"]), helper.make_node("Div", ["sub", "one"], ["div"])]
    numbers = [
        numpy_helper.from_array(np.full((1, 2, 1), value, np.float32), name)
        for name, value in (("zero", 0), ("one", 1))
    ]
    shape = helper.make_tensor_type_proto(1, ["n", 2, 3])
    ends = [onnx.ValueInfoProto(name=name, type=shape) for name in ("frames", "vectors")]
    graph = helper.make_graph(
        [*nothing, helper.make_node("Relu", ["div"], ["vectors"])], "g", ends[:1], ends[1:], numbers
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "g.onnx")
    write_ir(tmp_path / "g.onnx", tmp_path / "g.xml")
    series = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    for file in ("g.onnx", "g.xml"):
        engine = open_engine("openvino", tmp_path / file)
        assert list(engine.inputs) == ["frames"], file
        np.testing.assert_array_equal(engine.run({"frames": series})["vectors"], series.clip(0))
        engine.close()


def test_a_large_sample_is_read_where_it_lies_and_then_let_go():
    """Whatever its memory is like: in order, turned, read-only, or one byte off."""
    ends = [
        helper.make_tensor_value_info(name, kind, ["n", *shape])
        for name, kind, shape in (("frames", TensorProto.UINT8, [480, 300]), ("sums", TensorProto.FLOAT, [480]))
    ]
    axis = numpy_helper.from_array(np.array([2]), "axis")
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["floats", "axis"], ["sums"], keepdims=0),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    engine = open_engine("openvino", model.SerializeToString())
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 255, (1, 480, 300), np.uint8)
    turned = rng.integers(0, 255, (1, 300, 480), np.uint8).transpose(0, 2, 1)
    still = rng.integers(0, 255, (1, 480, 300), np.uint8)
    still.flags.writeable = False
    odd = rng.integers(0, 255, 480 * 300 + 1, np.uint8)[1:].reshape(1, 480, 300)
    for frame in (plain, turned, still, odd, plain):
        held = sys.getrefcount(frame)
        np.testing.assert_array_equal(engine.run({"frames": frame})["sums"], frame.sum(2, dtype=np.float32))
        assert sys.getrefcount(frame) == held
    batch = rng.integers(0, 255, (3, 480, 300), np.uint8)
    np.testing.assert_array_equal(engine.run({"frames": batch})["sums"], batch.sum(2, dtype=np.float32))
    engine.close()
