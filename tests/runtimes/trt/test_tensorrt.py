"""The TensorRT engine, in three versions of a fake that runs plans in onnxruntime."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edgessl.errors import EngineError
from edgessl.runtimes.engines import EngineSettings, trtlib
from edgessl.runtimes.engines.onnxrt import OnnxRuntime
from edgessl.runtimes.engines.tensorrt import TensorRt
from edgessl.runtimes.engines.trtbuild import PlanOptions, build_plan


def options(**changes) -> PlanOptions:
    return PlanOptions(**({"precision": "fp32", "batches": (1, 2, 5)} | changes))


@pytest.fixture
def plan(trt, tiny) -> bytes:
    return build_plan(trt, tiny / "encoder.onnx", options())[0]


@pytest.fixture
def engine(plan):
    opened = TensorRt(plan)
    yield opened
    opened.close()


@pytest.fixture
def reference(tiny):
    return OnnxRuntime(tiny / "encoder.onnx")


def close(got, wanted) -> None:
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_names_dtypes_and_shapes_are_known_before_the_first_run(engine, reference):
    assert engine.inputs == reference.inputs
    assert engine.outputs == reference.outputs


@pytest.mark.parametrize("batch", [1, 2, 5, 6, 13])
def test_gives_what_onnxruntime_gives_in_batches_larger_than_the_plan_too(engine, reference, scenes, batch):
    for seed in range(3):  # plain, recorded, launched
        frames = {"frames": scenes(batch, seed)}
        close(engine.run(frames)["vectors"], reference.run(frames)["vectors"])


def test_a_plan_in_a_file_is_opened(plan, tmp_path, reference, scenes):
    (tmp_path / "a.plan").write_bytes(plan)
    engine = TensorRt(tmp_path / "a.plan", settings=EngineSettings(threads=3))
    close(engine.run({"frames": scenes(4, 0)})["vectors"], reference.run({"frames": scenes(4, 0)})["vectors"])
    assert engine.info()["threads"] == 3
    engine.close()


def test_memory_of_its_own_is_copied_to_and_fro(fakes, cudart, install, tiny, scenes, reference):
    cudart.integrated = False
    trt = install("10.3.0.30")
    engine = TensorRt(build_plan(trt, tiny / "encoder.onnx", options())[0])
    for seed in range(3):
        frames = {"frames": scenes(3, seed)}
        close(engine.run(frames)["vectors"], reference.run(frames)["vectors"])
    assert cudart.calls.count("cudaMemcpyAsync") == 4, "two in the plain run, two in the recording"
    engine.close()
    assert cudart.live == 0


def test_every_input_of_a_trunk_is_given_and_every_output_comes_back(trt, tiny, scenes):
    engine = TensorRt(build_plan(trt, tiny / "trunk.fp32.onnx", options())[0])
    rng = np.random.default_rng(0)
    ports = {
        name: rng.random([size or 1 for size in info.shape], dtype=np.float32)
        for name, info in engine.inputs.items()
        if name != "frames"
    }
    assert len(ports) == 4
    feeds = {"frames": scenes(7, 0), **ports}
    expected = OnnxRuntime(tiny / "trunk.fp32.onnx").run(feeds)
    got = engine.run(feeds)
    assert set(got) == set(expected)
    for name, value in expected.items():
        close(got[name], value)
    engine.close()


def test_the_caller_owns_the_arrays(engine, scenes):
    first = engine.run({"frames": scenes(3, 0)})["vectors"]
    kept = first.copy()
    engine.run({"frames": scenes(3, 1)})
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    engine.close()
    assert (first == 0).all()


@pytest.mark.parametrize(
    ("feeds", "match"),
    [
        ({}, "missing or unknown: frames"),
        ({"images": np.zeros((2, 12, 10, 3), np.uint8)}, "frames, images"),
        ({"frames": np.zeros((2, 12, 10, 3), np.float32)}, r"float32 \(2, 12, 10, 3\).*uint8 \(batch, 12, 10, 3\)"),
        ({"frames": np.zeros((2, 12, 11, 3), np.uint8)}, r"\(2, 12, 11, 3\)"),
        ({"frames": np.zeros((12, 10, 3), np.uint8)}, r"\(12, 10, 3\)"),
        ({"frames": np.zeros((0, 12, 10, 3), np.uint8)}, "a batch of 0 does not fit.* 1 to 5"),
    ],
    ids=["missing", "unknown", "dtype", "size", "rank", "empty"],
)
def test_a_wrong_feed_is_refused_by_name(engine, feeds, match):
    with pytest.raises(EngineError, match=match):
        engine.run(feeds)


def test_close_twice_is_allowed_running_then_is_not_and_nothing_leaks(engine, cudart, scenes):
    for _ in range(3):
        engine.run({"frames": scenes(2, 0)})
    engine.close()
    engine.close()
    assert cudart.live == 0
    assert engine.info()["engine"] == "tensorrt"
    with pytest.raises(EngineError, match="closed"):
        engine.run({"frames": scenes(2, 0)})


def test_info_says_what_runs(engine, trt):
    facts = engine.info()
    assert {"engine", "version", "provider", "threads"} <= set(facts)
    assert (facts["engine"], facts["version"], facts["gpu"]) == ("tensorrt", trt.__version__, "Orin")
    assert (facts["compute_capability"], facts["precision"], facts["cuda_graph"]) == ("8.7", "fp32", "on")
    assert facts["batches"] == [1, 5]


def test_a_shape_is_recorded_when_it_comes_again_and_forgotten_when_another_comes(engine, cudart, scenes):
    for batch in (2, 2, 2, 3, 3, 2):
        engine.run({"frames": scenes(batch, 0)})
    assert cudart.calls.count("cudaStreamBeginCapture") == 2
    assert cudart.calls.count("cudaGraphLaunch") == 3
    assert len(cudart.graphs) == 0


def test_graphs_can_be_left_out(plan, cudart, scenes):
    engine = TensorRt(plan, cuda_graph=False)
    for _ in range(3):
        engine.run({"frames": scenes(2, 0)})
    assert "cudaStreamBeginCapture" not in cudart.calls
    assert engine.info()["cuda_graph"] == "off"
    engine.close()


def test_a_plan_that_cannot_be_recorded_runs_all_the_same_and_says_so(engine, trt, cudart, scenes, reference):
    trt._faults.not_recordable = True
    for seed in range(4):
        frames = {"frames": scenes(2, seed)}
        close(engine.run(frames)["vectors"], reference.run(frames)["vectors"])
    assert cudart.calls.count("cudaStreamBeginCapture") == 1, "tried once"
    assert "error 901" in engine.info()["cuda_graph"]


def test_what_is_not_enqueued_is_an_error_with_the_log(engine, trt, scenes):
    trt._faults.not_enqueued = True
    with pytest.raises(EngineError, match=f"TensorRT {trt.__version__} cannot run the plan: .*enqueue failed"):
        engine.run({"frames": scenes(2, 0)})


def test_a_fault_on_the_device_is_an_error(engine, trt, scenes):
    trt._faults.device_fault = True
    with pytest.raises(EngineError, match=r"failed while it ran: .*illegal memory access.*700"):
        engine.run({"frames": scenes(2, 0)})


def test_an_onnx_file_gets_the_line_to_type(trt, tiny):
    with pytest.raises(EngineError, match=r"cannot load .*encoder.onnx: .*type: edgessl build BUNDLE"):
        TensorRt(tiny / "encoder.onnx")


@pytest.mark.parametrize("content", [b"", b"no plan"])
def test_a_damaged_plan_is_refused_in_tensorrts_words(trt, cudart, content):
    with pytest.raises(EngineError, match=r"cannot load a plan of .*magic tag mismatch.*edgessl build BUNDLE"):
        TensorRt(content)
    assert cudart.live == 0


def test_a_missing_plan_is_named(trt, tmp_path):
    with pytest.raises(EngineError, match=r"cannot load .*gone.plan: .*edgessl build BUNDLE"):
        TensorRt(tmp_path / "gone.plan")


def test_a_plan_of_another_version_is_refused_in_tensorrts_words(plan, trt, install):
    install("10.7.0.23")
    with pytest.raises(EngineError, match=f"expecting library version 10.7.0.23 got {trt.__version__}"):
        TensorRt(plan)


def test_no_context_is_an_error_and_nothing_leaks(plan, trt, cudart):
    trt._faults.no_context = True
    with pytest.raises(EngineError, match=r"cannot make an execution context.*no memory for activations"):
        TensorRt(plan)
    assert cudart.live == 0


def test_no_memory_for_buffers_is_an_error_and_nothing_leaks(plan, cudart, fakes):
    cudart.failing["cudaHostAlloc"] = fakes.cudart.OUT_OF_MEMORY
    with pytest.raises(EngineError, match="out of memory"):
        TensorRt(plan)
    assert cudart.live == 0


def test_tensorrt_8_is_too_old(monkeypatch):
    class Old:
        __version__ = "8.6.1"

    monkeypatch.setitem(sys.modules, "tensorrt", Old())
    with pytest.raises(EngineError, match=r"TensorRT 8.6.1 is too old.*JetPack 6.1"):
        trtlib.load_trt()


def test_a_system_package_out_of_sight_is_told(monkeypatch, tmp_path):
    place = tmp_path / "python3.10" / "dist-packages" / "tensorrt"
    place.mkdir(parents=True)
    (place / "__init__.py").touch()
    monkeypatch.setattr(trtlib, "SYSTEM_PACKAGES", tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=f"installed in {place}.*--system-site-packages"):
        trtlib.load_trt()


def test_nowhere_says_where_it_comes_from(monkeypatch, tmp_path):
    monkeypatch.setattr(trtlib, "SYSTEM_PACKAGES", tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"not on this machine.*nvidia-jetpack.*pip install tensorrt"):
        trtlib.load_trt()


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ("libnvdla_compiler.so: cannot open shared object file", "container.*nvidia-l4t-dla-compiler"),
        ("libnvinfer.so.10: cannot open shared object file", "libnvinfer.so.10.*edgessl doctor"),
    ],
)
def test_a_library_that_is_not_whole_is_told(monkeypatch, tmp_path, said, match):
    (tmp_path / "tensorrt.py").write_text(f"raise ImportError({said!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(EngineError, match=match):
        trtlib.load_trt()


def test_a_log_keeps_the_last_errors_only(trt):
    logger = trtlib.keeping_logger(trt)
    severity = trt.ILogger.Severity
    for number in range(50):
        logger.log(severity.ERROR, f"error {number}")
        logger.log(severity.WARNING, "a warning")
    said = logger.said()
    assert said.startswith("error 30;")
    assert said.endswith("error 49")
    assert "warning" not in said
    assert logger.said() == "it gave no reason"
