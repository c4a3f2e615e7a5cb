"""OpenVINO's own format is the same graph, the same bytes every time, and names nothing of this machine."""

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


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A convolution, shapes computed in the graph, a matrix product and a quantized one: what OpenVINO names itself."""
    return _write(tmp_path_factory.mktemp("somewhere") / "mixed.onnx", quantized=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The same without quantization."""
    return _write(tmp_path_factory.mktemp("somewhere") / "plain.onnx", quantized=False)


def _write(path, *, quantized):
    rng = np.random.default_rng(3)
    constants = {
        "kernel": rng.normal(0, 0.3, (6, 3, 3, 3)).astype(np.float32),
        "project": rng.normal(0, 0.3, (24, 10)).astype(np.float32),
        "gain": rng.normal(1, 0.1, 10).astype(np.float32),
        "small": rng.integers(-127, 127, (10, 5)).astype(np.int8),
        "step": np.full(5, 0.01, np.float32),
        "zero": np.zeros(5, np.int8),
        "scale": np.float32(0.05),
        "point": np.int8(0),
        "first": np.array([0]),
        "rest": np.array([-1]),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["frames", "kernel"], ["conv"], strides=[4, 4]),
        node("Relu", ["conv"], ["relu"]),
        node("Shape", ["relu"], ["shape"]),
        node("Gather", ["shape", "first"], ["batch"]),
        node("Concat", ["batch", "rest"], ["to"], axis=0),
        node("Reshape", ["relu", "to"], ["flat"]),
        node("MatMul", ["flat", "project"], ["wide"]),
        node("Gelu", ["wide"], ["gelu"]),
        node("LayerNormalization", ["gelu", "gain"], ["norm"]),
        node("QuantizeLinear", ["norm", "scale", "point"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "point"], ["dq"]),
        node("DequantizeLinear", ["small", "step", "zero"], ["dqw"], axis=1),
        node("MatMul", ["dq", "dqw"], ["out"]),
        node("LpNormalization", ["out"], ["vectors"], axis=1, p=2),
    ]
    if not quantized:
        nodes = [entry for entry in nodes if "Linear" not in entry.op_type]
        nodes[-2].input[:] = ["norm", "dqw"]
        constants["dqw"] = constants.pop("small") * constants.pop("step")
    graph = helper.make_graph(
        nodes,
        "mixed",
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["batch", 3, 9, 8])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


@pytest.fixture
def frames():
    return np.random.default_rng(4).normal(size=(3, 3, 9, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "half", "bound"),
    # A value between two int8 steps may fall on either side; fp16 keeps eleven bits.
    [("plain", False, 1 - 1e-6), ("plain", True, 1 - 1e-5), ("mixed", False, 0.999)],
)
def test_gives_what_the_graph_gives_at_any_batch(request, tmp_path, frames, kind, half, bound):
    source = request.getfixturevalue(kind)
    write_ir(source, tmp_path / "graph.xml", half=half)
    reference, written = open_engine("onnxruntime", source), open_engine("openvino", tmp_path / "graph.xml")
    assert written.inputs == reference.inputs
    assert written.outputs == reference.outputs
    for batch in (1, 3):
        expected = reference.run({"frames": frames[:batch]})["vectors"]
        got = written.run({"frames": frames[:batch]})["vectors"]
        assert (expected * got).sum(1).min() > bound
    reference.close()
    written.close()


def test_int8_stays_int8(mixed, tmp_path):
    write_ir(mixed, tmp_path / "graph.xml")
    written = open_engine("openvino", tmp_path / "graph.xml")
    assert written.fused()["int8"] == 1
    written.close()


@pytest.mark.parametrize(("kind", "half"), [("plain", False), ("plain", True), ("mixed", False)])
def test_the_same_graph_gives_the_same_bytes(request, tmp_path, kind, half):
    source = request.getfixturevalue(kind)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_ir(source, tmp_path / name / "graph.xml", half=half)
    for suffix in (".xml", ".bin"):
        first, second = ((tmp_path / name / "graph").with_suffix(suffix).read_bytes() for name in ("a", "b"))
        assert first == second


@pytest.mark.slow
def test_another_process_and_another_folder_give_the_same_bytes(mixed, tmp_path):
    write_ir(mixed, tmp_path / "here.xml")
    moved = tmp_path / "elsewhere" / "other.onnx"
    moved.parent.mkdir()
    moved.write_bytes(mixed.read_bytes())
    code = (
        "import sys; from pathlib import Path; from edgessl.export.openvino import write_ir; "
        "write_ir(*map(Path, sys.argv[1:]))"
    )
    subprocess.run([sys.executable, "-c", code, moved, tmp_path / "there.xml"], check=True, capture_output=True)
    for suffix in (".xml", ".bin"):
        here, there = ((tmp_path / name).with_suffix(suffix).read_bytes() for name in ("here", "there"))
        assert here == there


def test_no_path_of_this_machine_is_in_the_files(mixed, tmp_path):
    write_ir(mixed, tmp_path / "graph.xml")
    content = (tmp_path / "graph.xml").read_bytes() + (tmp_path / "graph.bin").read_bytes()
    for part in (str(mixed.parent), str(tmp_path), "mixed.onnx", sys.prefix):
        assert part.encode() not in content


def test_half_halves_the_weights_of_a_float_graph(plain, tmp_path):
    for half in (False, True):
        write_ir(plain, tmp_path / f"{half}.xml", half=half)
    full, halved = ((tmp_path / f"{half}.bin").stat().st_size for half in (False, True))
    weights = 6 * 3 * 3 * 3 + 24 * 10 + 10 * 5
    assert full - halved >= 2 * weights
    assert halved >= 2 * weights


def test_what_cannot_be_converted_is_refused_with_the_reason(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"cannot convert bad\.onnx"):
        write_ir(tmp_path / "bad.onnx", tmp_path / "graph.xml")
    assert not (tmp_path / "graph.xml").exists()


def test_another_suffix_is_refused(mixed, tmp_path):
    with pytest.raises(EngineError, match=r"graph\.xml"):
        write_ir(mixed, tmp_path / "graph.ir")
