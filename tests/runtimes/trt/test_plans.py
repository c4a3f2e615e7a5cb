"""The cache of plans: what counts, what does not any more, and what goes."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgessl.bundle import open_bundle, signed
from edgessl.errors import EngineError
from edgessl.runtimes import plans
from edgessl.runtimes.build import build
from edgessl.runtimes.engines.cuda import Cuda
from edgessl.runtimes.graphs import engine_of_tail, graph_for, precisions_for
from edgessl.runtimes.plans import KEEP, Key, Machine, PlanCache, cache_folder, plan_for, this_machine


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EDGESSL_CACHE", str(tmp_path / "engines"))
    return tmp_path / "engines"


def same(runs):
    return {name: [1e-3] * 4 for name in runs}


@pytest.fixture
def built(orin, robot):
    return build(robot, precision="fp32", time_runs=same)


@pytest.fixture
def bundle(robot):
    return open_bundle(robot)


def files(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.glob(f"*{suffix}"))


def rebuilt(robot, trt) -> int:
    before = len(trt._builds)
    report = build(robot, precision="fp32", time_runs=same)
    assert all(row.ok for row in report.rows)
    return len(trt._builds) - before


MACHINE = Machine(
    tensorrt="10.3", gpu="Orin", compute_capability="8.7", l4t="", cuda_runtime="12.6", cuda_driver="12.6"
)
KEY = Key(
    onnx_sha256="a",
    golden_sha256="b",
    role="encoder",
    precision="fp16",
    batches=(1, 1, 16),
    workspace_mib=None,
    strong=True,
    machine=MACHINE,
)


@pytest.mark.parametrize(
    "changed",
    [
        *({field: "other"} for field in ("onnx_sha256", "golden_sha256", "role", "precision")),
        {"batches": (1, 2, 16)},
        {"workspace_mib": 9},
        {"strong": False},
        *({"machine": replace(MACHINE, **{field: "other"})} for field in MACHINE.__dataclass_fields__),
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_whatever_a_plan_depends_on_is_in_its_name(changed):
    assert replace(KEY, **changed).digest() != KEY.digest()


def test_the_machine_is_looked_at(orin, tmp_path):
    (tmp_path / "release").write_text("# R36 (release), REVISION: 4.7\n# KERNEL_VARIANT: oot\n")
    machine = this_machine(orin, Cuda(), tmp_path / "release")
    assert machine == replace(MACHINE, tensorrt="10.3.0.30", l4t="# R36 (release), REVISION: 4.7")
    assert this_machine(orin, Cuda(), tmp_path / "nowhere").l4t == ""


def test_where_plans_lie(monkeypatch, tmp_path, cache):
    assert cache_folder() == cache
    assert cache_folder(tmp_path) == tmp_path
    monkeypatch.delenv("EDGESSL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "edgessl" / "engines"


def test_a_record_says_all(built, cache, robot):
    record = json.loads(files(cache, ".json")[0].read_text())
    assert record["key"]["machine"]["gpu"] == "Orin"
    assert record["key"]["batches"] == [1, 1, 16]
    assert record["min_cosine"] > 0.9999
    assert len(record["plan_sha256"]) == 64


@pytest.mark.parametrize("suffix", [".plan", ".json"])
@pytest.mark.parametrize("damage", ["byte", "cut", "gone", "empty"])
def test_a_damaged_entry_is_never_used_and_built_again(built, cache, orin, robot, bundle, suffix, damage):
    for file in files(cache, suffix):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes({"byte": bytes(content), "cut": bytes(content)[:-9], "gone": b"", "empty": b""}[damage])
        if damage == "gone":
            file.unlink()
    for role in ("encoder", "trunk"):
        with pytest.raises(EngineError, match="edgessl build"):
            plan_for(bundle, role, "fp32")
    assert rebuilt(robot, orin) == 2
    assert plan_for(bundle, "encoder", "fp32").is_file()


@pytest.mark.parametrize("content", ["[]", "{}", "1", "null", '{"format": 1, "sha256": 5, "key": 3}', "[" * 100_000])
def test_a_record_that_says_nothing_is_no_record(built, cache, orin, robot, content):
    for file in files(cache, ".json"):
        file.write_text(content)
    assert rebuilt(robot, orin) == 2


def test_a_record_under_another_name_does_not_count(built, cache, orin, robot):
    encoder, trunk = sorted(files(cache, ".json"), key=lambda file: "trunk" in file.read_text())
    shutil.copy(trunk, encoder)
    shutil.copy(trunk.with_suffix(".plan"), encoder.with_suffix(".plan"))
    assert rebuilt(robot, orin) == 1


def test_another_tensorrt_builds_again_and_leaves_the_old_plans(built, cache, install, robot, bundle):
    kept = plan_for(bundle, "encoder", "fp32")
    new = install("10.16.2.10")
    with pytest.raises(EngineError, match=r"TensorRT 10.16.2.10; type: edgessl build"):
        plan_for(bundle, "encoder", "fp32")
    assert rebuilt(robot, new) == 2
    install("10.3.0.30")
    assert plan_for(bundle, "encoder", "fp32") == kept


def test_another_gpu_builds_again(built, cudart, orin, robot, bundle):
    cudart.name = "Orin NX"
    with pytest.raises(EngineError, match="on this Orin NX"):
        plan_for(bundle, "encoder", "fp32")
    assert rebuilt(robot, orin) == 2


def test_other_batches_build_again_and_the_last_build_counts(built, orin, robot, bundle):
    first = plan_for(bundle, "encoder", "fp32")
    build(robot, precision="fp32", batches=(1, 4, 8), time_runs=same)
    second = plan_for(bundle, "encoder", "fp32")
    assert first != second
    count = len(orin._builds)
    build(robot, precision="fp32", time_runs=same)
    assert len(orin._builds) == count, "the first plans were kept"
    assert plan_for(bundle, "encoder", "fp32") == first


def test_a_plan_in_a_folder_that_was_named_is_found_there(orin, robot, bundle, tmp_path, cache):
    build(robot, precision="fp32", cache=tmp_path / "other", time_runs=same)
    assert plan_for(bundle, "encoder", "fp32", cache=tmp_path / "other").parent == tmp_path / "other"
    assert not cache.exists()


def test_the_cache_is_bounded_and_what_was_used_stays(cache):
    store = PlanCache(cache)
    store.prepare()
    keys = [replace(KEY, onnx_sha256=str(number)) for number in range(KEEP + 5)]
    for age, key in enumerate(keys):
        store.store(key, b"plan", {"ok": True})
        os.utime(store.plan(key).with_suffix(".json"), ns=(10**9 * age, 10**9 * age))
    store.touch(store.plan(keys[0]))
    store.prune({keys[1].digest()})
    left = [key for key in keys if store.record(key)]
    assert len(left) == KEEP
    assert len(files(cache, ".plan")) == KEEP
    assert keys[0] in left, "used last"
    assert keys[1] in left, "told to stay"
    assert keys[-1] in left
    assert keys[2] not in left


def test_what_is_known_about_kernels_is_bounded_too(cache):
    store = PlanCache(cache)
    store.prepare()
    for age in range(6):
        file = store.timing(replace(MACHINE, tensorrt=str(age)))
        file.write_bytes(b"kernels")
        os.utime(file, ns=(10**9 * age, 10**9 * age))
    store.prune(set())
    assert {store.timing(replace(MACHINE, tensorrt=str(age))) for age in (3, 4, 5)} == set(files(cache, ".cache"))


def test_a_refusal_has_no_plan_and_is_no_plan(cache):
    store = PlanCache(cache)
    store.prepare()
    store.store(KEY, b"plan", {"ok": True})
    store.store(KEY, None, {"ok": False, "reason": "wrong"})
    assert not store.plan(KEY).exists()
    assert store.record(KEY)["reason"] == "wrong"


def test_no_machine_is_looked_at_where_one_is_given(built, bundle, orin, monkeypatch):
    machine = this_machine(orin, Cuda())
    monkeypatch.setattr(plans, "load_trt", None)
    assert plan_for(bundle, "encoder", "fp32", machine=machine).suffix == ".plan"


def test_a_record_signed_for_a_plan_that_is_not_ok_does_not_count(built, cache, bundle):
    for file in files(cache, ".json"):
        file.write_text(json.dumps(signed(json.loads(file.read_text()) | {"ok": False})))
    with pytest.raises(EngineError, match="edgessl build"):
        plan_for(bundle, "encoder", "fp32")


def test_no_plan_at_all_says_what_to_type(orin, bundle, robot):
    with pytest.raises(EngineError, match=f"type: edgessl build {robot}"):
        precisions_for(bundle, "encoder", "tensorrt")
    assert precisions_for(bundle, "trunk", "tensorrt") == ()


def test_an_engine_opens_the_graph_or_the_plan(built, bundle, robot):
    assert graph_for(bundle, "encoder", "fp32", "onnxruntime") == robot / "encoder.onnx"
    assert graph_for(bundle, "encoder", "fp32", "tensorrt") == plan_for(bundle, "encoder", "fp32")
    assert precisions_for(bundle, "encoder", "onnxruntime") == ("int8", "fp32")
    assert precisions_for(bundle, "encoder", "tensorrt") == ("fp32",)
    assert (engine_of_tail("tensorrt"), engine_of_tail("openvino")) == ("onnxruntime", "openvino")
