"""What every engine promises; a new line in `ENGINES` is enough to be tested.

TensorRT runs in the simulation that is generated from its documentation, on plans that are built here.
"""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl.errors import EngineError, InputError, UnknownNameError
from edgessl.runtimes.engines import ENGINES, FAKE, LOW_POWER, EngineSettings, open_engine
from edgessl.runtimes.engines.trtbuild import PlanOptions, build_plan
from edgessl.runtimes.graphs import takes_plans

_SPEC = importlib.util.spec_from_file_location("trt_fixtures", Path(__file__).with_name("trt") / "conftest.py")
_TRT = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_TRT)
fakes, cudart, install = _TRT.fakes, _TRT.cudart, _TRT.install  # fixtures

FACTS = {
    "engine": str,
    "version": str,
    "provider": str,
    "precision": str,
    "threads": int,
    "spin": bool,
    "affinity": str,
}


@pytest.fixture(params=ENGINES)
def name(request):
    package, extra = ENGINES[request.param][2:]
    if not takes_plans(request.param) and find_spec(package) is None:
        pytest.skip(f"pip install 'edgessl[{extra}]'")
    return request.param


@pytest.fixture
def opens(name, request, tmp_path):
    """Opens an ONNX file, or its content, in the engine; closes what was opened."""
    trt = request.getfixturevalue("install")(_TRT.VERSIONS[0]) if takes_plans(name) else None
    opened = []

    def start(graph, **options):
        if trt is not None:
            if isinstance(graph, bytes):
                graph, content = tmp_path / "graph.onnx", graph
                graph.write_bytes(content)
            graph = build_plan(trt, graph, PlanOptions(precision="fp32", batches=(1, 2, 8)))[0]
        opened.append(open_engine(name, graph, **options))
        return opened[-1]

    yield start
    for engine in opened:
        engine.close()


@pytest.fixture
def engine(opens, tiny):
    return opens(tiny / "encoder.onnx")


@pytest.fixture
def trains(name):
    if name == FAKE:
        pytest.skip("the fake engine computes nothing")
    if takes_plans(name):
        pytest.skip("tails learn in onnxruntime, beside it")


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


@pytest.mark.parametrize("batch", [1, 3])
def test_the_caller_owns_the_arrays(engine, scenes, batch):
    first = engine.run({"frames": scenes(batch, 0)})["vectors"]
    kept = first.copy()
    engine.run({"frames": scenes(batch, 1)})
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # and it may be written to


def test_a_name_that_is_no_text_is_refused(name, tiny):
    content = (tiny / "encoder.onnx").read_bytes().replace(b"frames", b"fra\xa6es")
    with pytest.raises(EngineError, match=r"cannot load|TensorRT"):
        open_engine(name, content)


def test_opens_the_content_of_a_file(opens, tiny, engine, scenes):
    other = opens((tiny / "encoder.onnx").read_bytes())
    frames = {"frames": scenes(3, 0)}
    np.testing.assert_array_equal(other.run(frames)["vectors"], engine.run(frames)["vectors"])


def test_two_stand_side_by_side_and_one_goes_on_when_the_other_is_closed(opens, tiny, engine, scenes):
    other = opens(tiny / "encoder.int8.onnx")
    first, second = scenes(3, 0), scenes(3, 1)
    alone = [engine.run({"frames": first})["vectors"], engine.run({"frames": second})["vectors"]]
    other.run({"frames": second})
    np.testing.assert_array_equal(engine.run({"frames": first})["vectors"], alone[0])
    other.close()
    np.testing.assert_array_equal(engine.run({"frames": second})["vectors"], alone[1])


@pytest.mark.parametrize(
    "feeds",
    [{}, {"images": np.zeros((2, 12, 10, 3), np.uint8)}, {"frames": np.zeros((2, 12, 10, 3), np.float32)}],
    ids=["missing", "unknown", "dtype"],
)
def test_a_wrong_feed_is_refused_by_name(engine, feeds):
    with pytest.raises(EngineError, match=r"frames|images|float"):
        engine.run(feeds)


def test_close_twice_is_allowed_and_running_then_is_not(engine, scenes):
    engine.run({"frames": scenes(1, 0)})
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run({"frames": scenes(1, 0)})
    with pytest.raises(EngineError, match="closed"):
        engine.fused()


def test_info_says_what_runs_before_and_after_closing(engine, name):
    for _ in range(2):
        facts = engine.info()
        assert {key: type(facts[key]) for key in FACTS} == FACTS
        assert facts["engine"] == name
        assert all(facts[key] != "" for key in FACTS)
        engine.close()


def test_only_the_fake_engine_says_that_it_is_fake(engine, name):
    assert ("FAKE" in engine.info()["provider"]) == (name == FAKE)


@pytest.mark.parametrize("settings", [EngineSettings(threads=2), LOW_POWER], ids=["two", "low power"])
def test_the_threads_that_were_asked_for_run(opens, name, tiny, settings, scenes):
    engine = opens(tiny / "encoder.onnx", settings=settings)
    assert engine.info()["threads"] == (1 if name == FAKE else settings.threads)
    assert engine.run({"frames": scenes(2, 0)})["vectors"].shape == (2, 6)


def test_a_graph_that_gives_its_memory_back_computes_the_same(opens, name, tiny, scenes):
    kept, given_back = (opens(tiny / "encoder.onnx", settings=EngineSettings(arena=arena)) for arena in (True, False))
    for count in (1, 3):
        frames = {"frames": scenes(count, 0)}
        np.testing.assert_array_equal(given_back.run(frames)["vectors"], kept.run(frames)["vectors"])


@pytest.mark.parametrize("settings", [EngineSettings(spin=True), EngineSettings(cores=(0,))], ids=["spin", "cores"])
def test_what_an_engine_cannot_set_is_refused_and_what_it_can_is_in_its_info(opens, name, tiny, settings):
    if name == "onnxruntime":
        facts = opens(tiny / "encoder.onnx", settings=settings).info()
        assert facts["spin"] == settings.spin
        assert facts["affinity"] == ("workers on cores 0" if settings.cores else "any core")
    else:
        with pytest.raises(InputError, match=r"takes no (spinning|cores)"):
            opens(tiny / "encoder.onnx", settings=settings)


def test_threads_are_set_in_one_place(name, tiny):
    with pytest.raises(InputError, match=r"type EngineSettings\(threads=2\)"):
        open_engine(name, tiny / "encoder.onnx", threads=2, settings=LOW_POWER)


def test_an_empty_batch_gives_empty_vectors(engine, name):
    if takes_plans(name):
        pytest.skip("a plan has a smallest batch; the encoder above it runs none")
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


def test_scalars_go_in_and_come_out(trains, opens, tiny):
    """The training step has scalar inputs and outputs, and none of its inputs has a batch of any size."""
    step = opens(tiny / "step.onnx")
    rng = np.random.default_rng(2)
    feeds = {key: rng.normal(size=info.shape).astype(np.float32) for key, info in step.inputs.items()}
    feeds |= {
        key: np.asarray(value, np.float32) for key, value in {"lr": 0.1, "momentum": 0, "pull": 0, "clip": 1e9}.items()
    }
    out = step.run(feeds)
    gap = (feeds["a"] - feeds["b"]).reshape(len(feeds["a"]), -1) @ feeds["weight.project"]
    assert out["loss.align"].shape == ()
    assert float(out["loss.align"]) == pytest.approx((gap**2).sum() / len(gap), rel=1e-4)


@pytest.mark.parametrize("shape", [(2, 12, 11, 3), (12, 10, 3), (2, 3, 12, 10)])
def test_a_wrong_shape_is_refused_by_name(engine, shape):
    with pytest.raises(EngineError, match="frames"):
        engine.run({"frames": np.zeros(shape, np.uint8)})


def test_a_damaged_graph_is_an_engine_error(name, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"cannot load|TensorRT"):
        open_engine(name, tmp_path / "bad.onnx")


def test_a_graph_with_a_loop_is_refused_before_it_can_run(name):
    if takes_plans(name):
        pytest.skip("it runs plans, which `edgessl build` makes of checked bundles")
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
