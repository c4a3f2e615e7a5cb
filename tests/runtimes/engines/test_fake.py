"""The engine that runs nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import edgessl
from edgessl.errors import EngineError
from edgessl.runtimes.engines import open_engine
from edgessl.runtimes.engines.base import TensorInfo
from edgessl.runtimes.engines.choice import automatic, engine_name
from edgessl.runtimes.engines.onnxnodes import ends


@pytest.fixture
def fake(tiny):
    return open_engine("fake", tiny / "encoder.onnx")


def test_vectors_are_of_unit_length_and_follow_from_the_sample_alone(fake, scenes):
    frames = scenes(5, 0)
    vectors = fake.run({"frames": frames})["vectors"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(fake.run({"frames": frames[[3, 1]]})["vectors"], vectors[[3, 1]])


def test_one_bit_changes_the_vector_and_nothing_is_alike(fake, scenes):
    frames = np.concatenate([scenes(1, 0)] * 2)
    frames[1, 3, 4, 2] ^= 1
    first, second = fake.run({"frames": frames})["vectors"]
    assert abs(first @ second) < 0.99


def test_every_output_of_a_trunk_has_its_shape_and_sees_every_input(tiny, scenes):
    trunk = open_engine("fake", tiny / "trunk.fp32.onnx")
    feeds = {"frames": scenes(3, 0)}
    feeds |= {key: np.ones(info.shape, np.float32) for key, info in trunk.inputs.items() if key != "frames"}
    real = open_engine("onnxruntime", tiny / "trunk.fp32.onnx").run(feeds)
    made = trunk.run(feeds)
    assert {key: (value.shape, value.dtype) for key, value in made.items()} == {
        key: (value.shape, value.dtype) for key, value in real.items()
    }
    assert not np.allclose(made["port0.mean"], made["port0.square"]), "outputs of one shape differ"
    other = trunk.run(feeds | {"port0.shift": np.zeros(5, np.float32)})
    assert not np.allclose(other["latents"], made["latents"])


def test_the_ends_of_a_graph_are_read_as_an_engine_reads_them(tiny):
    for path in sorted(tiny.glob("*.onnx")):
        engine = open_engine("onnxruntime", path)
        assert ends(path.read_bytes()) == (engine.inputs, engine.outputs), path.name
        engine.close()


def test_constants_that_are_listed_as_inputs_are_none():
    value = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    infos = [helper.make_tensor_value_info(name, 1, ["n", 3] if name != "w" else [2, 3]) for name in ("x", "w", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", infos[:2], infos[2:], [value])
    content = helper.make_model(graph).SerializeToString()
    info = {name: TensorInfo(name=name, dtype="float32", shape=(None, 3)) for name in ("x", "y")}
    assert ends(content) == ({"x": info["x"]}, {"y": info["y"]})


@pytest.mark.parametrize("kind", ["sequence", "text"])
def test_an_end_that_is_no_array_is_refused_by_name(kind):
    info = onnx.ValueInfoProto(
        name="odd",
        type=helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [3]))
        if kind == "sequence"
        else helper.make_tensor_type_proto(onnx.TensorProto.STRING, [3]),
    )
    content = helper.make_model(helper.make_graph([], "g", [], [info])).SerializeToString()
    with pytest.raises(EngineError, match=r"cannot load.*'odd' is"):
        open_engine("fake", content)


def test_batches_of_one_run_must_agree(tiny):
    step = open_engine("fake", _two_batches())
    with pytest.raises(EngineError, match=r"share their batch.*\[2, 3\]"):
        step.run({"a": np.zeros((2, 4), np.float32), "b": np.zeros((3, 4), np.float32)})


def _two_batches():
    infos = [helper.make_tensor_value_info(name, 1, ["n", 4]) for name in "aby"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", infos[:2], infos[2:])
    return helper.make_model(graph).SerializeToString()


def test_it_is_never_chosen_and_its_vectors_are_of_no_real_space(tiny, scenes):
    assert "fake" not in automatic()
    assert engine_name("auto") != "fake"
    with edgessl.open(tiny, engine="fake") as encoder, edgessl.open(tiny) as real:
        assert encoder.embed(scenes(3, 0)).shape == (3, 6)
        assert encoder.info()["provider"].startswith("FAKE")
        assert encoder.space_id == f"fake:{real.space_id}"
        assert "fake" not in real.chosen
