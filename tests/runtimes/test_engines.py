"""What every engine promises; a new line in `ENGINES` is enough to be tested."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from edgessl.errors import EngineError, UnknownNameError
from edgessl.runtimes.engines import ENGINES, open_engine


@pytest.fixture(params=sorted(ENGINES))
def name(request):
    package, extra = ENGINES[request.param][2:]
    try:
        import_module(package)
    except ModuleNotFoundError:
        pytest.skip(f"pip install 'edgessl[{extra}]'")
    return request.param


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


def test_a_damaged_graph_is_an_engine_error(name, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match="cannot load"):
        open_engine(name, tmp_path / "bad.onnx")


def test_an_unknown_engine_lists_the_table(tiny):
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        open_engine("onxruntime", tiny / "encoder.onnx")
