"""An affine correction is put behind the vectors of an ONNX file as the onnx package would, and does what its formula says."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgessl.errors import BundleError, EngineError
from edgessl.runtimes.correct import with_affine
from edgessl.runtimes.engines import open_engine

RNG = np.random.default_rng(0)
MATRIX, SHIFT = RNG.normal(size=(5, 5)).astype(np.float32), RNG.normal(size=5).astype(np.float32)


def model(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("vectors",)) -> bytes:
    """`x` and whatever the nodes make of it."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 5]) for name in ("x", *outputs)]
    graph = helper.make_graph(list(nodes), "graph", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, doc_string="kept")
    return made.SerializeToString()


NEGATED = model(helper.make_node("Neg", ["x"], ["vectors"]))


def formula(x: np.ndarray) -> np.ndarray:
    moved = -x.astype(np.float64) @ MATRIX + SHIFT
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [1, 4])
def test_it_is_the_formula_in_every_engine(engine_name, count):
    x = RNG.normal(size=(count, 5)).astype(np.float32)
    with closing(open_engine(engine_name, NEGATED, affine=(MATRIX, SHIFT))) as engine:
        assert list(engine.outputs) == ["vectors"]
        np.testing.assert_allclose(engine.run({"x": x})["vectors"], formula(x), atol=1e-6)


def test_all_else_stays_and_the_onnx_package_finds_nothing_wrong():
    given = onnx.load_model_from_string(with_affine(NEGATED, MATRIX, SHIFT))
    onnx.checker.check_model(given, full_check=True)
    assert given.doc_string == "kept"
    del given.graph.node[1:], given.graph.initializer[:]
    given.graph.node[0].output[0] = "vectors"
    assert given == onnx.load_model_from_string(NEGATED)


def test_what_reads_the_vectors_inside_the_graph_still_reads_the_old_ones():
    twice = model(
        helper.make_node("Neg", ["x"], ["vectors"]),
        helper.make_node("Add", ["vectors", "vectors"], ["twice"]),
        outputs=("vectors", "twice"),
    )
    x = RNG.normal(size=(3, 5)).astype(np.float32)
    with closing(open_engine("onnxruntime", with_affine(twice, MATRIX, SHIFT))) as engine:
        given = engine.run({"x": x})
    np.testing.assert_array_equal(given["twice"], -2 * x)
    np.testing.assert_allclose(given["vectors"], formula(x), atol=1e-6)


def test_a_graph_without_vectors_is_refused(engine_name):
    other = model(helper.make_node("Neg", ["x"], ["y"]), outputs=("y",))
    with pytest.raises(BundleError, match="no operator that gives 'vectors'"):
        open_engine(engine_name, other, affine=(MATRIX, SHIFT))


def test_what_is_no_onnx_file_is_refused():
    with pytest.raises(BundleError, match="cannot be read"):
        with_affine(b"\x07nothing", MATRIX, SHIFT)


def test_an_affine_of_another_size_does_not_open(engine_name):
    with (
        pytest.raises(EngineError, match="cannot load"),
        closing(open_engine(engine_name, NEGATED, affine=(MATRIX[:4, :4], SHIFT))),
    ):
        pass


def test_openvinos_own_files_take_it_too(with_openvino, tmp_path):
    from edgessl.runtimes.engines.openvino import openvino, shared_core

    onnx.save(onnx.load_model_from_string(NEGATED), tmp_path / "graph.onnx")
    openvino.save_model(shared_core().read_model(str(tmp_path / "graph.onnx")), tmp_path / "graph.xml")
    x = RNG.normal(size=(3, 5)).astype(np.float32)
    with closing(open_engine("openvino", tmp_path / "graph.xml", affine=(MATRIX, SHIFT))) as engine:
        assert list(engine.outputs) == ["vectors"]
        for part in (x, x[:1]):
            np.testing.assert_allclose(engine.run({"x": part})["vectors"], formula(part), atol=1e-6)
