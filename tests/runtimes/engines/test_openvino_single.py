"""One sample has a compiled form of its own in OpenVINO; it is the same graph, and whoever runs no batch pays for none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl.errors import BundleError, EngineError
from edgessl.export.openvino import write_ir
from edgessl.runtimes.engines import open_engine, read_constants

openvino = pytest.importorskip("edgessl.runtimes.engines.openvino", reason="pip install 'edgessl[openvino]'").openvino

ONE, ANY = "one", "any"
OTHERS = {  # graphs that have no form for one sample, or one with more rows: operator, its constants, what it computes
    "doubled": ("Concat", {}, [None, 3], (1, 4), lambda x: np.concatenate([x, x])),
    "pairs": ("Reshape", {"to": np.array([-1, 2, 3])}, [None, 2, 3], (2, 4), lambda x: x.reshape(-1, 2, 3)),
}


@pytest.fixture
def compiled(monkeypatch):
    """What was compiled, in turn: for one sample, or for any batch."""
    forms, compile_model = [], openvino.Core.compile_model

    def record(core, model, *args, **kwargs):
        forms.append(ANY if any(port.get_partial_shape().is_dynamic for port in model.inputs) else ONE)
        return compile_model(core, model, *args, **kwargs)

    monkeypatch.setattr(openvino.Core, "compile_model", record)
    return forms


@pytest.fixture
def refuses(monkeypatch):
    """Lets the compiler refuse one of the two forms from now on."""
    compile_model = openvino.Core.compile_model

    def refuse(form):
        def compile_other(core, model, *args, **kwargs):
            if any(port.get_partial_shape().is_dynamic for port in model.inputs) == (form == ANY):
                raise RuntimeError("Exception from src/core.cpp:135:\n\nno such form\n")
            return compile_model(core, model, *args, **kwargs)

        monkeypatch.setattr(openvino.Core, "compile_model", compile_other)

    return refuse


@pytest.fixture
def opens():
    opened = []

    def start(graph, **options):
        opened.append(open_engine("openvino", graph, **options))
        return opened[-1]

    yield start
    for engine in opened:
        engine.close()


def graph_of(nodes, inputs, outputs, constants):
    values = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends.items()]
        for ends in (inputs, outputs)
    ]
    numbers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", *values, numbers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("file", ["encoder.onnx", "encoder.int8.onnx"])
def test_one_sample_gives_its_row_of_a_batch(opens, compiled, tiny, scenes, file):
    engine, frames = opens(tiny / file), scenes(5, 0)
    alone = [engine.run({"frames": frame[None]})["vectors"] for frame in frames]
    together = engine.run({"frames": frames})["vectors"]
    assert compiled == [ONE, ANY]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-6)
    np.testing.assert_array_equal(engine.run({"frames": frames[:1]})["vectors"], alone[0])


def test_ports_have_no_batch_and_hold_in_both_forms(opens, compiled, tiny, scenes):
    engine, frames = opens(tiny / "trunk.fp32.onnx"), scenes(3, 0)
    ports = {
        name: numbers(*info.shape, seed=len(name)) for name, info in engine.inputs.items() if name.startswith("port")
    }
    alone = [engine.run({"frames": frame[None], **ports}) for frame in frames]
    together = engine.run({"frames": frames, **ports})
    reference = open_engine("onnxruntime", tiny / "trunk.fp32.onnx").run({"frames": frames, **ports})
    assert (compiled, len(ports), len(together)) == ([ONE, ANY], 4, 5)
    for name, value in together.items():
        np.testing.assert_allclose(np.concatenate([out[name] for out in alone]), value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(value, reference[name], rtol=1e-4, atol=1e-5)


def test_who_runs_single_samples_compiles_for_no_batch(opens, compiled, tiny, scenes):
    engine = opens(tiny / "encoder.onnx")
    for seed in range(3):
        engine.run({"frames": scenes(1, seed)})
    assert engine.fused()["float"] == 3
    assert engine.info()["provider"] == "CPU"
    assert compiled == [ONE]


def test_the_form_for_a_batch_is_compiled_once(opens, compiled, tiny, scenes):
    engine = opens(tiny / "encoder.onnx")
    for batch in (0, 2, 1, 7, 0, 1):
        assert engine.run({"frames": scenes(batch, 0)})["vectors"].shape == (batch, 6)
    assert compiled == [ONE, ANY]


def test_threads_that_need_it_at_once_wait_for_one_compilation(opens, compiled, tiny, scenes):
    engine, frames = opens(tiny / "encoder.onnx"), scenes(3, 0)
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda _: engine.run({"frames": frames})["vectors"], range(8)))
    assert compiled == [ONE, ANY]
    np.testing.assert_array_equal(got, [got[0]] * 8)


def test_ends_are_described_alike_before_and_after_a_batch_and_by_onnxruntime(opens, tiny, scenes):
    for file in ("encoder.onnx", "trunk.fp32.onnx", "tail.onnx", "step.onnx"):
        engine, reference = opens(tiny / file), open_engine("onnxruntime", tiny / file)
        assert (engine.inputs, engine.outputs) == (reference.inputs, reference.outputs), file
    engine = opens(tiny / "encoder.onnx")
    before = dict(engine.inputs), dict(engine.outputs)
    engine.run({"frames": scenes(2, 0)})
    assert (engine.inputs, engine.outputs) == before


def test_an_output_keeps_its_name_where_another_holds_the_same(opens):
    """The compiled graph's output has the names of everything that it is equal to."""
    nodes = [
        helper.make_node(kind, [of], [to])
        for kind, of, to in (("Relu", "x", "a"), ("Identity", "a", "y"), ("Identity", "a", "b"))
    ]
    engine, x = opens(graph_of(nodes, {"x": ["n", 3]}, {"y": ["n", 3], "b": ["n", 3]}, {})), numbers(4, 3)
    for batch in (1, 4):
        found = engine.run({"x": x[:batch]})
        assert list(found) == ["y", "b"]
        for value in found.values():
            np.testing.assert_array_equal(value, x[:batch].clip(0))


def test_constants_stand_in_both_forms(opens, compiled, tiny, tmp_path, scenes):
    write_ir(tiny / "encoder.onnx", tmp_path / "encoder.xml")
    was = read_constants("openvino", tmp_path / "encoder.xml", ["kernel0"])["kernel0"]
    constants = {"kernel0": was + numbers(*was.shape)}
    engine, frames = opens(tmp_path / "encoder.xml", constants=constants), scenes(3, 0)
    reference = open_engine("onnxruntime", tiny / "encoder.onnx", constants=constants)
    expected = reference.run({"frames": frames})["vectors"]
    alone = [engine.run({"frames": frame[None]})["vectors"] for frame in frames]
    np.testing.assert_allclose(np.concatenate(alone), expected, atol=1e-5)
    np.testing.assert_allclose(engine.run({"frames": frames})["vectors"], expected, atol=1e-5)
    assert compiled == [ONE, ANY]
    with pytest.raises(BundleError, match="export it again"):
        opens(tmp_path / "encoder.xml", constants={"kernel0": numbers(7)})


@pytest.mark.parametrize("name", OTHERS)
def test_a_graph_that_is_another_one_for_one_sample_is_compiled_for_any_batch(opens, compiled, name):
    kind, constants, shape, batches, expected = OTHERS[name]
    node = helper.make_node(kind, ["x", *(constants or ["x"])], ["y"], **({"axis": 0} if kind == "Concat" else {}))
    engine, x = opens(graph_of([node], {"x": [None, 3]}, {"y": shape}, constants)), numbers(4, 3)
    for batch in batches:
        np.testing.assert_array_equal(engine.run({"x": x[:batch]})["y"], expected(x[:batch]))
    assert compiled == [ANY]


def test_an_output_without_a_batch_is_whole_in_both_forms(opens, compiled):
    node, rows = helper.make_node("Add", ["x", "rows"], ["y"]), numbers(4, 3, seed=1)
    engine, x = opens(graph_of([node], {"x": [None, 3]}, {"y": [4, 3]}, {"rows": rows})), numbers(4, 3)
    for batch in (1, 4):
        np.testing.assert_array_equal(engine.run({"x": x[:batch]})["y"], x[:batch] + rows)
    assert compiled == [ONE, ANY]


def test_a_graph_without_a_batch_is_compiled_once(opens, compiled, tiny):
    opens(tiny / "step.onnx")
    assert len(compiled) == 1


def test_a_size_that_varies_beside_the_batch_is_left_free(opens, compiled):
    node = helper.make_node("Relu", ["x"], ["y"])
    engine = opens(graph_of([node], {"x": ["n", "steps", 3]}, {"y": ["n", "steps", 3]}, {}))
    for shape in ((1, 5, 3), (1, 2, 3), (4, 2, 3)):
        x = numbers(*shape)
        np.testing.assert_array_equal(engine.run({"x": x})["y"], x.clip(0))
    assert compiled == [ANY]


def test_a_graph_that_does_not_say_how_many_sizes_it_has_is_refused_and_not_guessed(opens, compiled, tmp_path):
    shapes = [openvino.PartialShape([-1, 3]), openvino.PartialShape.dynamic()]
    inputs = [openvino.op.Parameter(openvino.Type.f32, shape) for shape in shapes]
    openvino.save_model(openvino.Model([end.output(0) for end in inputs], inputs), tmp_path / "any.xml")
    with pytest.raises(EngineError, match="cannot load"):  # not the CPU's either
        opens(tmp_path / "any.xml")
    assert compiled == [ANY]


def test_where_the_compiler_refuses_one_sample_any_batch_serves_it(opens, refuses, tiny, scenes):
    expected = opens(tiny / "encoder.onnx").run({"frames": scenes(3, 0)})["vectors"]
    refuses(ONE)
    engine = opens(tiny / "encoder.onnx")
    np.testing.assert_allclose(engine.run({"frames": scenes(3, 0)})["vectors"], expected, atol=1e-6)
    np.testing.assert_allclose(engine.run({"frames": scenes(3, 0)[:1]})["vectors"], expected[:1], atol=1e-6)


def test_where_the_compiler_refuses_a_batch_it_is_an_engine_error_and_single_samples_go_on(
    opens, refuses, tiny, scenes
):
    engine = opens(tiny / "encoder.onnx")
    expected = engine.run({"frames": scenes(1, 0)})["vectors"]
    refuses(ANY)
    for _ in range(2):
        with pytest.raises(EngineError, match=r"for a batch: no such form$"):
            engine.run({"frames": scenes(3, 0)})
        np.testing.assert_array_equal(engine.run({"frames": scenes(1, 0)})["vectors"], expected)


@pytest.mark.parametrize("batches", [(), (1,), (3,), (1, 3)], ids=str)
def test_whatever_ran_closing_ends_it(opens, compiled, tiny, scenes, batches):
    engine = opens(tiny / "encoder.onnx")
    for batch in batches:
        engine.run({"frames": scenes(batch, 0)})
    before = list(compiled)
    engine.close()
    engine.close()
    for batch in (1, 3, 0):
        with pytest.raises(EngineError, match="closed"):
            engine.run({"frames": scenes(batch, 0)})
    with pytest.raises(EngineError, match="closed"):
        engine.fused()
    assert engine.info()["engine"] == "openvino"
    assert compiled == before
