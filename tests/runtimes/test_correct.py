"""An affine correction is put behind the vectors of an ONNX file as the onnx package would, and does what its formula says."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl.errors import BundleError, EngineError
from edgessl.runtimes.correct import with_affine
from edgessl.runtimes.engines import open_engine

RNG = np.random.default_rng(0)
MATRIX, SHIFT = RNG.normal(size=(5, 5)).astype(np.float32), RNG.normal(size=5).astype(np.float32)


def model(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("vectors",), **constants: np.ndarray) -> bytes:
    """`x` and whatever the nodes make of it."""
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 5 if name in ("x", "vectors") else "any"])
        for name in ("x", *outputs)
    ]
    graph = helper.make_graph(list(nodes), "graph", ends[:1], ends[1:], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, doc_string="kept")
    return made.SerializeToString()


NEGATED = model(helper.make_node("Neg", ["x"], ["vectors"]))


def divided(
    *more: onnx.NodeProto, axis: int = 1, least: float = 1e-12, outputs: tuple[str, ...] = ("vectors",)
) -> bytes:
    """`-x` over its length, in the three operators that an export has for it, and whatever comes of `more`."""
    return model(
        helper.make_node("Neg", ["x"], ["linear"]),
        helper.make_node("ReduceL2", ["linear", "axis"], ["length"], keepdims=1, noop_with_empty_axes=0),
        helper.make_node("Clip", ["length", "least"], ["bounded"]),
        helper.make_node("Div", ["linear", "bounded"], ["vectors"]),
        *more,
        outputs=outputs,
        axis=np.array([axis], np.int64),
        least=np.array(least, np.float32),
    )


DIVIDED = {
    "the last axis": divided(),
    "the same from behind": divided(axis=-1),
    "another axis": divided(axis=0),
    "a bound that matters": divided(least=3.0),
    "a length that is read": divided(helper.make_node("Neg", ["length"], ["y"]), outputs=("vectors", "y")),
    "a length that is given": divided(outputs=("vectors", "length")),
}
SHORTER = ("the last axis", "the same from behind")


def unit_formula(x: np.ndarray, case: str) -> np.ndarray:
    linear = -x.astype(np.float64)
    length = np.linalg.norm(linear, axis=0 if case == "another axis" else 1, keepdims=True)
    moved = linear / np.maximum(length, 3.0 if case == "a bound that matters" else 1e-12) @ MATRIX + SHIFT
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def formula(x: np.ndarray) -> np.ndarray:
    moved = -x.astype(np.float64) @ MATRIX + SHIFT
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [1, 4])
def test_it_is_the_formula_in_every_engine(engine_name, count):
    x = RNG.normal(size=(count, 5)).astype(np.float32)
    with closing(open_engine(engine_name, NEGATED, affine=(MATRIX, SHIFT))) as engine:
        assert list(engine.outputs) == ["vectors"]
        np.testing.assert_allclose(engine.run({"x": x})["vectors"], formula(x), atol=1e-6)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("case", DIVIDED)
def test_behind_vectors_that_are_divided_by_their_length_it_is_the_formula_too(engine_name, case, count):
    x = RNG.normal(size=(count, 5)).astype(np.float32)
    with closing(open_engine(engine_name, DIVIDED[case], affine=(MATRIX, SHIFT))) as engine:
        np.testing.assert_allclose(engine.run({"x": x})["vectors"], unit_formula(x, case), atol=1e-6)


@pytest.mark.parametrize("case", DIVIDED)
def test_the_division_is_one_operator_where_that_is_asked_for_and_changes_nothing(case):
    given = onnx.load_model_from_string(with_affine(DIVIDED[case], MATRIX, SHIFT, short=True))
    onnx.checker.check_model(given, full_check=True)
    before = ["LpNormalization"] if case in SHORTER else ["ReduceL2", "Clip", "Div"]
    kinds = [node.op_type for node in given.graph.node if node.op_type != "Neg"]
    assert kinds == [*before, "Gemm", "LpNormalization"]
    assert "LpNormalization" not in [
        node.op_type for node in onnx.load_model_from_string(with_affine(DIVIDED[case], MATRIX, SHIFT)).graph.node[:4]
    ]


def test_vectors_of_zeros_and_tiny_ones_are_divided_as_before(engine_name):
    x = np.stack([np.zeros(5), np.full(5, 1e-8), np.full(5, 3e4)]).astype(np.float32)
    with closing(open_engine(engine_name, DIVIDED["the last axis"], affine=(MATRIX, SHIFT))) as engine:
        np.testing.assert_allclose(engine.run({"x": x})["vectors"], unit_formula(x, "the last axis"), atol=1e-6)


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


def ir_of(graph, folder):
    """The graph as a file of OpenVINO's own, as an export writes it."""
    from edgessl.export.openvino import write_ir

    (folder / "graph.onnx").write_bytes(graph)
    write_ir(folder / "graph.onnx", folder / "graph.xml")
    return folder / "graph.xml"


def test_openvinos_own_files_take_it_too(with_openvino, tmp_path):
    x = RNG.normal(size=(3, 5)).astype(np.float32)
    with closing(open_engine("openvino", ir_of(NEGATED, tmp_path), affine=(MATRIX, SHIFT))) as engine:
        assert list(engine.outputs) == ["vectors"]
        for part in (x, x[:1]):
            np.testing.assert_allclose(engine.run({"x": part})["vectors"], formula(part), atol=1e-6)


@pytest.mark.parametrize("fuses", [False, True])
@pytest.mark.parametrize("case", DIVIDED)
def test_in_openvinos_own_files_the_division_is_one_operator_where_its_kernels_are(
    with_openvino, tmp_path, monkeypatch, case, fuses
):
    from edgessl.runtimes.engines import ovcorrect

    monkeypatch.setattr(ovcorrect, "_fuses", lambda dim: fuses)
    x = RNG.normal(size=(3, 5)).astype(np.float32)
    with closing(open_engine("openvino", ir_of(DIVIDED[case], tmp_path), affine=(MATRIX, SHIFT))) as engine:
        for part in (x, x[:1]):
            np.testing.assert_allclose(engine.run({"x": part})["vectors"], unit_formula(part, case), atol=1e-6)
    model = ovcorrect.shared_core().read_model(str(tmp_path / "graph.xml"))
    ovcorrect.correct(model, MATRIX, SHIFT)
    kinds = [node.get_type_name() for node in model.get_ordered_ops()]
    in_front, behind = not (fuses and case in SHORTER), not fuses
    assert kinds.count("ReduceL2") == in_front + behind


@pytest.mark.parametrize("fuses", [False, True])
def test_in_openvinos_own_files_zeros_stay_and_tiny_vectors_are_divided(with_openvino, tmp_path, monkeypatch, fuses):
    from edgessl.runtimes.engines import ovcorrect

    monkeypatch.setattr(ovcorrect, "_fuses", lambda dim: fuses)
    x = np.stack([np.zeros(5), np.full(5, 1e-8), np.full(5, 3e4)]).astype(np.float32)
    graph, nothing = ir_of(DIVIDED["the last axis"], tmp_path), np.zeros_like(MATRIX)
    with closing(open_engine("openvino", graph, affine=(MATRIX, SHIFT))) as engine:
        np.testing.assert_allclose(engine.run({"x": x})["vectors"], unit_formula(x, "the last axis"), atol=1e-6)
    with closing(open_engine("openvino", graph, affine=(nothing, nothing[0]))) as engine:
        np.testing.assert_array_equal(engine.run({"x": x})["vectors"], np.zeros_like(x))
