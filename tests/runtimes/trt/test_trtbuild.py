"""ONNX -> plan: what the builder is told, in every version, and what its failures say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgessl.errors import EngineError
from edgessl.runtimes.engines.tensorrt import TensorRt
from edgessl.runtimes.engines.trtbuild import PlanOptions, build_plan, memory_limits, typings

# What exists in some versions only, and is asked for behind hasattr.
GUARDED = {("BuilderFlag", "FP16"), ("BuilderFlag", "INT8")}


def options(**changes) -> PlanOptions:
    return PlanOptions(**({"precision": "fp16", "batches": (1, 2, 5)} | changes))


def test_the_network_is_strongly_typed_and_no_precision_is_asked_for(trt, robot):
    build_plan(trt, robot / "tensorrt/encoder.int8.onnx", options(precision="int8"))
    assert trt._builds == [{"precision": "int8", "strong": True, "flags": ["TF32"]}]


def test_fp32_means_fp32(trt, robot):
    build_plan(trt, robot / "encoder.onnx", options(precision="fp32"))
    assert trt._builds[0]["flags"] == []


def test_weak_types_are_tried_where_strong_ones_were_young(install):
    found = {version: typings(install(version), "fp16") for version in ("10.0.1.6", "10.3.0.30", "10.7.0.23")}
    assert set(found.values()) == {(True, False)}
    found = {version: typings(install(version), "fp16") for version in ("10.13.3.9", "10.16.2.10", "11.1.0.5")}
    assert set(found.values()) == {(True,)}
    assert typings(install("10.3.0.30"), "fp32") == (True,)


@pytest.mark.parametrize(("precision", "flags"), [("fp16", ["FP16", "TF32"]), ("int8", ["FP16", "INT8", "TF32"])])
def test_weak_types_need_the_flags(orin, robot, precision, flags):
    graph = robot / f"tensorrt/encoder.{precision}.onnx"
    build_plan(orin, graph, options(precision=precision, strong=False))
    assert orin._builds == [{"precision": precision, "strong": False, "flags": flags}]


def test_memory_is_limited_in_bytes(orin, robot):
    build_plan(orin, robot / "encoder.onnx", options(workspace_mib=3, tactic_mib=5))
    assert (orin._builds[0]["WORKSPACE"], orin._builds[0]["TACTIC_DRAM"]) == (3 * 2**20, 5 * 2**20)


def test_what_is_known_about_kernels_goes_on_from_build_to_build(trt, robot):
    _, first = build_plan(trt, robot / "encoder.onnx", options())
    _, second = build_plan(trt, robot / "encoder.onnx", options(), first)
    assert (first.split()[1], second.split()[1]) == (b"1", b"2")


def test_what_another_version_knew_about_kernels_is_left_aside(trt, robot):
    assert build_plan(trt, robot / "encoder.onnx", options(), b"9.9 7")[1].split()[1] == b"1"


def test_every_error_of_the_parser_is_told(trt, robot):
    trt._faults.parse.add("encoder.onnx")
    with pytest.raises(EngineError, match=r"cannot read .*encoder.onnx: GridSample 'grid': .*; Det 'volume': "):
        build_plan(trt, robot / "encoder.onnx", options())


def test_a_build_that_gives_nothing_tells_the_log(trt, robot):
    trt._faults.build.add("fp16")
    with pytest.raises(EngineError, match=r"cannot build .* in fp16: .*any implementation.*; .*second line") as caught:
        build_plan(trt, robot / "encoder.onnx", options())
    assert "warning" not in str(caught.value)


def test_out_of_memory_says_what_to_type(trt, robot):
    trt._faults.out_of_memory_above = 2**30
    with pytest.raises(EngineError, match=r"OutOfMemory.*--workspace-mib 2048"):
        build_plan(trt, robot / "encoder.onnx", options(workspace_mib=4096))
    build_plan(trt, robot / "encoder.onnx", options(workspace_mib=1024))


def test_no_builder_is_an_error_with_the_log(trt, robot):
    trt._faults.no_builder = True
    with pytest.raises(EngineError, match=r"no Builder here: .*CUDA initialization failure.*edgessl doctor"):
        build_plan(trt, robot / "encoder.onnx", options())


def meminfo(folder: Path, total_gib: float, available_gib: float) -> Path:
    sizes = {"MemTotal": total_gib, "MemAvailable": available_gib}
    file = folder / "meminfo"
    file.write_text("".join(f"{name}: {int(size * 2**20)} kB\n" for name, size in sizes.items()))
    return file


def test_a_small_board_gets_limits(tmp_path):
    assert memory_limits(None, meminfo(tmp_path, 7.4, 4)) == (1024, 2048)
    assert memory_limits(300, meminfo(tmp_path, 7.4, 4)) == (300, 2048)


def test_a_large_board_does_not(tmp_path):
    assert memory_limits(None, meminfo(tmp_path, 15.3, 4)) == (None, None)
    assert memory_limits(300, meminfo(tmp_path, 15.3, 4)) == (300, None)


def test_a_system_that_does_not_say_its_memory_gets_none(tmp_path):
    assert memory_limits(None, tmp_path / "nowhere") == (None, None)
    (tmp_path / "odd").write_text("\n:\nMemTotal:\n")
    assert memory_limits(None, tmp_path / "odd") == (None, None)


@pytest.mark.parametrize(
    "version", ["10.0.1.6", "10.3.0.30", "10.7.0.23", "10.13.3.9", "10.16.2.10", "11.0.0.1", "11.1.0.5"]
)
def test_every_name_that_is_used_exists_in_every_version(install, robot, scenes, version):
    trt = install(version)
    for strong in typings(trt, "int8"):
        plan, _ = build_plan(
            trt,
            robot / "tensorrt/trunk.int8.onnx",
            options(precision="int8", strong=strong, workspace_mib=1, tactic_mib=1),
        )
    build_plan(trt, robot / "encoder.onnx", options(precision="fp32"))
    trt._faults.parse.add("encoder.onnx")
    with pytest.raises(EngineError):
        build_plan(trt, robot / "encoder.onnx", options())
    engine = TensorRt(plan)
    engine.run(
        {"frames": scenes(2, 0)} | {name: zeros(info) for name, info in engine.inputs.items() if name != "frames"}
    )
    engine.close()
    api = json.loads(Path(__file__).with_name("trt_api.json").read_text())["classes"]
    assert len(trt._touched) > 40
    assert {name for name in trt._touched if api[name[0]].get(name[1]) != "all"} <= GUARDED


def zeros(info):
    return np.zeros([size or 1 for size in info.shape], info.dtype)
