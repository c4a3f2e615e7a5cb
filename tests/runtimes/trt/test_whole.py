"""A bundle built, opened, adapted and verified with TensorRT, as a user does it."""

from __future__ import annotations

import numpy as np
import pytest

import edgessl
from edgessl.bundle import open_bundle
from edgessl.errors import EngineError
from edgessl.runtimes.build import build
from edgessl.runtimes.verify import replay


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESSL_CACHE", str(tmp_path / "engines"))


def cheapest_fastest(runs):
    return {name: [1e-3 * (place + 1)] * 4 for place, name in enumerate(runs)}


def test_without_a_plan_opening_says_what_to_type(orin, robot):
    for precision in ("auto", "fp16"):
        with pytest.raises(EngineError, match=f"type: edgessl build {robot}"):
            edgessl.open(robot, engine="tensorrt", precision=precision)
    with pytest.raises(EngineError, match=f"type: edgessl build {robot}"):
        replay(open_bundle(robot), "tensorrt")


def test_auto_opens_what_build_chose_and_embeds_adapts_and_verifies(trt, robot, scenes, tmp_path):
    trt._faults.wrong.add("int8")
    build(robot, time_runs=cheapest_fastest)
    with edgessl.open(robot, engine="tensorrt") as encoder:
        assert encoder.precision == "fp16"
        with edgessl.open(robot, engine="onnxruntime", precision="fp32") as reference:
            np.testing.assert_allclose(encoder.embed(scenes(100, 3)), reference.embed(scenes(100, 3)), atol=1e-5)
        assert encoder.embed(scenes(3, 0)[:0]).shape == (0, 6)
        with encoder.learner(tmp_path / "state") as learner:
            for seed in range(6):
                assert np.isfinite(learner.observe(scenes(40, seed, 0.4))).all()
    rows = replay(open_bundle(robot), "tensorrt")
    assert {(row.name, row.ok) for row in rows} == {
        ("encoder fp32", True),
        ("encoder fp16", True),
        ("trunk + tail fp16", True),
    }


def test_where_the_trunk_of_the_chosen_precision_is_wrong_the_next_one_adapts(install, robot, scenes, tmp_path):
    trt = install("11.1.0.5")

    def time_runs(runs):
        trt._faults.wrong.add("int8")  # from here on, so that it meets the trunk alone
        return cheapest_fastest(runs)

    report = build(robot, time_runs=time_runs)
    assert (report.chosen("encoder"), report.chosen("trunk")) == ("int8", "fp16")
    trt._faults.wrong.clear()
    with edgessl.open(robot, engine="tensorrt") as encoder:
        assert encoder.precision == "int8"
        with encoder.learner(tmp_path / "state") as learner:
            assert np.isfinite(learner.observe(scenes(40, 0))).all()
