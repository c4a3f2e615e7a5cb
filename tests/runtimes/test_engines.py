"""What every engine promises; a new line in `ENGINES` is enough to be tested."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl.errors import EngineError, UnknownNameError
from edgessl.runtimes.engines import open_engine


@pytest.fixture
def name(engine_name):
    return engine_name


@pytest.fixture
def engine(name, tiny):
    opened = open_engine(name, tiny / "encoder.onnx")
    yield opened
    opened.close()


def test_names_dtypes_and_shapes_are_known_before_the_first_run(engine):
    frames, vectors = engine.inputs["frames"], engine.outputs["vectors"]
    assert (frames.dtype, frames.shape) == ("uint8", (None, 12, 10, 3))
    assert (vectors.dtype, vectors.shape) == ("float32", (None, 6))


def test_gives_float32_of_the_batch(engine, scenes):
    vectors = engine.run({"frames": scenes(3, 0)})["vectors"]
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 6)


def test_a_batch_of_one_gives_what_a_batch_gives(engine, scenes):
    frames = scenes(5, 0)
    together = engine.run({"frames": frames})["vectors"]
    alone = np.concatenate([engine.run({"frames": frame[None]})["vectors"] for frame in frames])
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_the_caller_owns_the_arrays(engine, scenes):
    first = engine.run({"frames": scenes(3, 0)})["vectors"]
    kept = first.copy()
    engine.run({"frames": scenes(3, 1)})
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # and it may be written to


def test_a_name_that_is_no_text_is_refused(name, tiny):
    content = (tiny / "encoder.onnx").read_bytes().replace(b"frames", b"fra\xa6es")
    with pytest.raises(EngineError, match="cannot load"):
        open_engine(name, content)


def test_opens_the_content_of_a_file(name, tiny, engine, scenes):
    other = open_engine(name, (tiny / "encoder.onnx").read_bytes())
    frames = {"frames": scenes(3, 0)}
    np.testing.assert_array_equal(other.run(frames)["vectors"], engine.run(frames)["vectors"])
    other.close()


@pytest.mark.parametrize(
    "feeds",
    [{}, {"images": np.zeros((2, 12, 10, 3), np.uint8)}, {"frames": np.zeros((2, 12, 10, 3), np.float32)}],
    ids=["missing", "unknown", "dtype"],
)
def test_a_wrong_feed_is_refused_by_name(engine, feeds):
    with pytest.raises(EngineError, match=r"frames|images|float"):
        engine.run(feeds)


def test_close_twice_is_allowed_and_running_then_is_not(name, tiny, scenes):
    engine = open_engine(name, tiny / "encoder.onnx")
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run({"frames": scenes(1, 0)})


def test_info_says_what_runs(engine):
    assert {"engine", "version", "provider", "threads"} <= set(engine.info())


def test_an_empty_batch_gives_empty_vectors(engine):
    vectors = engine.run({"frames": np.zeros((0, 12, 10, 3), np.uint8)})["vectors"]
    assert (vectors.dtype, vectors.shape) == (np.float32, (0, 6))


def test_feeds_stay_as_they_are_and_may_be_views_or_read_only(engine, scenes):
    frames = scenes(6, 0)
    expected = engine.run({"frames": frames[::2].copy()})["vectors"]
    frames.flags.writeable = False
    np.testing.assert_array_equal(engine.run({"frames": frames[::2]})["vectors"], expected)
    np.testing.assert_array_equal(frames, scenes(6, 0))


def test_threads_may_share_an_engine(engine, scenes):
    batches = [scenes(3, seed) for seed in range(8)]
    expected = [engine.run({"frames": frames})["vectors"] for frames in batches]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda frames: engine.run({"frames": frames})["vectors"], batches))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_scalars_go_in_and_come_out(name, tiny):
    """The training step has scalar inputs and outputs, and none of its inputs has a batch of any size."""
    step = open_engine(name, tiny / "step.onnx")
    rng = np.random.default_rng(2)
    feeds = {key: rng.normal(size=info.shape).astype(np.float32) for key, info in step.inputs.items()}
    feeds |= {
        key: np.asarray(value, np.float32) for key, value in {"lr": 0.1, "momentum": 0, "pull": 0, "clip": 1e9}.items()
    }
    out = step.run(feeds)
    gap = (feeds["a"] - feeds["b"]).reshape(len(feeds["a"]), -1) @ feeds["weight.project"]
    assert out["loss.align"].shape == ()
    assert float(out["loss.align"]) == pytest.approx((gap**2).sum() / len(gap), rel=1e-4)
    step.close()


@pytest.mark.parametrize("shape", [(2, 12, 11, 3), (12, 10, 3), (2, 3, 12, 10)])
def test_a_wrong_shape_is_refused_by_name(engine, shape):
    with pytest.raises(EngineError, match="frames"):
        engine.run({"frames": np.zeros(shape, np.uint8)})


def test_a_damaged_graph_is_an_engine_error(name, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match="cannot load"):
        open_engine(name, tmp_path / "bad.onnx")


def test_a_graph_with_a_loop_is_refused_before_it_can_run(name):
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [1]),
        ],
    )
    loop = helper.make_node("Loop", ["", "on", "x"], ["y"], body=body)
    graph = helper.make_graph(
        [loop],
        "endless",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array(True), "on")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(EngineError, match="control flow"):
        open_engine(name, model.SerializeToString())


def test_an_unknown_engine_lists_the_table(tiny):
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        open_engine("onxruntime", tiny / "encoder.onnx")
