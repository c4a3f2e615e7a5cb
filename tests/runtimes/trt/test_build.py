"""`build`: which plans are kept, refused and chosen, on a TensorRT that can be made to misbehave."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from edgessl.bundle import open_bundle
from edgessl.errors import EngineError, GateError, InputError, UnknownNameError
from edgessl.runtimes.build import build
from edgessl.runtimes.engines import trtlib
from edgessl.runtimes.engines.onnxrt import OnnxRuntime
from edgessl.runtimes.engines.tensorrt import TensorRt
from edgessl.runtimes.plans import plan_for, precisions_built


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EDGESSL_CACHE", str(tmp_path / "engines"))
    return tmp_path / "engines"


def timed(**speeds):
    """Times runs as if: precisions cheapest first, seconds each."""

    def time_runs(runs):
        assert len(runs) == len(speeds)
        for run in runs.values():
            run()
        return {name: [seconds] * 4 for name, seconds in zip(runs, speeds.values(), strict=True)}

    return time_runs


def same(runs):
    return {name: [1e-3] * 4 for name in runs}


def outcome(report, role="encoder"):
    return {row.precision: row.ok for row in report.rows if row.role == role}


def test_every_precision_is_built_judged_and_the_fastest_chosen(trt, robot):
    report = build(robot, time_runs=timed(int8=2e-3, fp16=1e-3, fp32=3e-3))
    assert outcome(report) == {"int8": True, "fp16": True, "fp32": True}
    assert report.chosen("encoder") == "fp16"
    assert [row.median_ms for row in report.rows[:3]] == pytest.approx([2, 1, 3])
    assert all(row.min_cosine > 0.9999 and row.knn_overlap == 1 for row in report.rows)
    assert all(build["strong"] for build in trt._builds)


def test_where_two_are_as_fast_the_more_precise_is_chosen(orin, robot):
    assert build(robot, time_runs=same).chosen("encoder") == "fp32"


def test_the_trunk_is_built_in_the_chosen_precision(orin, robot):
    report = build(robot, time_runs=timed(int8=1e-3, fp16=2e-3, fp32=3e-3))
    assert outcome(report, "trunk") == {"int8": True}
    assert report.chosen("trunk") == "int8"


def test_a_trunk_that_is_wrong_gives_way_to_the_next(install, robot):
    trt = install("11.1.0.5")
    calls = []

    def time_runs(runs):
        trt._faults.wrong.add("int8")  # from here on, so that it meets the trunk alone
        calls.append(len(runs))
        return {name: [0.1 * (place + 1)] * 4 for place, name in enumerate(runs)}

    report = build(robot, time_runs=time_runs)
    assert report.chosen("encoder") == "int8"
    assert outcome(report, "trunk") == {"int8": False, "fp16": True}
    assert report.chosen("trunk") == "fp16"


@pytest.mark.parametrize("fault", ["wrong", "nan"])
def test_wrong_vectors_are_refused_with_their_figures_and_the_next_rung_is_taken(trt, robot, fault):
    getattr(trt._faults, fault).update({"int8", "fp16"})
    said = []
    report = build(robot, time_runs=same, say=said.append)
    assert outcome(report) == {"int8": False, "fp16": False, "fp32": True}
    assert report.chosen("encoder") == "fp32"
    refused = next(row for row in report.rows if row.precision == "fp16")
    assert "minimum cosine" in refused.reason
    assert refused.plan == ""
    assert refused.median_ms is None
    assert any(line.startswith("refused encoder fp16: minimum cosine") for line in said)
    with pytest.raises(EngineError, match=f"no plan for encoder fp16 .*type: edgessl build {robot}"):
        plan_for(open_bundle(robot), "encoder", "fp16")


@pytest.mark.parametrize("batch", [1, 4, 9])
def test_vectors_that_are_wrong_in_one_batch_size_only_are_found(orin, robot, batch):
    orin._faults.wrong_in_batches.add(batch)
    with pytest.raises(GateError, match="minimum cosine"):
        build(robot, batches=(1, 4, 9), time_runs=same)


def test_vectors_that_are_wrong_in_a_recorded_graph_only_are_found(orin, robot):
    orin._faults.wrong_in_graphs = True
    with pytest.raises(GateError, match="minimum cosine"):
        build(robot, batches=(1, 1, 64), time_runs=same)


def test_a_wrong_plan_of_an_old_version_is_tried_with_weak_types(install, robot):
    old = install("10.3.0.30")
    old._faults.wrong_when_strong.add("fp16")
    report = build(robot, precision="fp16", time_runs=same)
    assert [(row.typing, row.ok) for row in report.rows if row.role == "encoder"] == [("strong", False), ("weak", True)]
    new = install("10.16.2.10")
    new._faults.wrong_when_strong.add("fp16")
    with pytest.raises(GateError, match=r"fp16 \(strong types\)"):
        build(robot, precision="fp16", time_runs=same)


def test_nothing_that_passes_is_a_gate_that_names_all(trt, robot):
    trt._faults.wrong.update({"int8", "fp32"})
    trt._faults.build.add("fp16")
    with pytest.raises(
        GateError, match=r"int8 .*minimum cosine.*fp16 .*any implementation.*fp32 .*minimum cosine"
    ) as c:
        build(robot, time_runs=same)
    assert c.value.exit_code == 3


def test_a_graph_that_cannot_be_read_is_refused_with_all_errors(orin, robot):
    orin._faults.parse.add("encoder.int8.onnx")
    report = build(robot, time_runs=same)
    refused = report.rows[0]
    assert (refused.precision, refused.ok) == ("int8", False)
    assert "GridSample" in refused.reason
    assert "Det" in refused.reason


def test_out_of_memory_is_not_remembered(install, robot):
    trt = install("11.1.0.5")
    trt._faults.out_of_memory_above = 2**20
    with pytest.raises(GateError, match="--workspace-mib"):
        build(robot, precision="fp32", time_runs=same)
    assert build(robot, precision="fp32", workspace_mib=1, time_runs=same).chosen("encoder") == "fp32"
    trt._faults.out_of_memory_above = None
    assert build(robot, precision="fp32", time_runs=same).chosen("encoder") == "fp32"


def test_the_second_build_builds_nothing_and_judges_again(orin, robot):
    build(robot, time_runs=same)
    built = len(orin._builds)
    report = build(robot, time_runs=same)
    assert len(orin._builds) == built
    assert all(row.cached and row.build_s == 0 for row in report.rows)
    assert all(row.min_cosine > 0.9999 for row in report.rows)
    assert len(build(robot, time_runs=same, rebuild=True).rows) == 4
    assert len(orin._builds) == 2 * built


def test_a_refusal_is_remembered_until_it_is_asked_for_again(install, robot):
    trt = install("11.1.0.5")
    trt._faults.wrong.add("int8")
    build(robot, time_runs=same)
    trt._faults.wrong.clear()
    built, said = len(trt._builds), []
    assert outcome(build(robot, time_runs=same, say=said.append))["int8"] is False
    assert len(trt._builds) == built
    assert any("--rebuild" in line for line in said)
    assert outcome(build(robot, time_runs=same, rebuild=True))["int8"] is True


def test_a_plan_that_went_wrong_since_is_refused(orin, robot):
    build(robot, precision="fp32", time_runs=same)
    orin._faults.wrong.add("fp32")
    with pytest.raises(GateError):
        build(robot, precision="fp32", time_runs=same)
    with pytest.raises(EngineError, match="no plan"):
        plan_for(open_bundle(robot), "encoder", "fp32")


def test_the_plan_is_found_and_computes_what_the_bundle_does(trt, robot, scenes):
    build(robot, time_runs=same)
    engine = TensorRt(plan_for(open_bundle(robot), "encoder", "fp16"))
    frames = {"frames": scenes(70, 9)}
    expected = OnnxRuntime(robot / "encoder.onnx").run(frames)["vectors"]
    np.testing.assert_allclose(engine.run(frames)["vectors"], expected, atol=1e-6)
    assert engine.info()["precision"] == "fp16"
    engine.close()


def test_nothing_is_left_open(orin, robot, cudart):
    orin._faults.wrong.add("int8")
    build(robot, time_runs=same)
    assert cudart.live == 0


def test_the_bundle_is_not_written_to(orin, robot):
    before = {file: file.read_bytes() for file in robot.rglob("*") if file.is_file()}
    build(robot, time_runs=same)
    assert {file: file.read_bytes() for file in robot.rglob("*") if file.is_file()} == before


def test_really_timed(orin, robot):
    report = build(robot, precision="fp32")
    assert report.rows[0].median_ms > 0


def test_the_report_is_plain_json(orin, robot):
    facts = json.loads(json.dumps(build(robot, time_runs=same).to_json()))
    assert facts["machine"]["tensorrt"] == "10.3.0.30"
    assert [row["role"] for row in facts["rows"]] == ["encoder"] * 3 + ["trunk"]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"precision": "fp8"}, UnknownNameError, "fp16"),
        ({"batches": (2, 1, 3)}, InputError, r"\(2, 1, 3\).*--batch 1,1,16"),
        ({"batches": (0, 1, 3)}, InputError, "--batch"),
        ({"batches": (1, 1, 5000)}, InputError, "1024"),
        ({"workspace_mib": 0}, InputError, "at least 1 MiB"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_anything_is_opened(robot, arguments, error, match):
    with pytest.raises(error, match=match):
        build(robot, **arguments)


def test_a_precision_that_the_bundle_lacks_is_named(orin, tiny):
    with pytest.raises(InputError, match="no encoder in fp16"):
        build(tiny, precision="fp16")


def test_no_tensorrt_says_where_it_comes_from(robot, monkeypatch, tmp_path):
    monkeypatch.setattr(trtlib, "SYSTEM_PACKAGES", tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"not on this machine.*nvidia-jetpack.*pip install tensorrt"):
        build(robot)


def test_a_cache_that_cannot_be_written_is_named(orin, robot, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match=r"plans cannot be kept in .*--cache DIR"):
        build(robot, cache=tmp_path / "file" / "engines", time_runs=same)
    assert orin._builds == [], "told before anything is built"


def test_precisions_are_listed_with_the_chosen_first(orin, robot):
    bundle = open_bundle(robot)
    assert precisions_built(bundle, "encoder") == ()
    build(robot, time_runs=timed(int8=3e-3, fp16=1e-3, fp32=2e-3))
    assert precisions_built(bundle, "encoder") == ("fp16", "int8", "fp32")
    assert precisions_built(bundle, "trunk") == ("fp16",)
    build(robot, precision="fp32", time_runs=same)
    assert precisions_built(bundle, "encoder") == ("fp32", "int8", "fp16"), "the last build decides"
