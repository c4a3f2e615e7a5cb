"""Adaptation takes the same path in every engine: trunk, ports, training step and tail."""

from __future__ import annotations

import numpy as np
import pytest

import edgessl
from edgessl.runtimes.engines import ENGINES


@pytest.fixture
def engine(engine_name):
    return engine_name


def _night(bundle, state, engine, level, scenes):
    with (
        edgessl.open(bundle, engine=engine, threads=1) as encoder,
        encoder.learner(state, level=level, steps_per_frame=0.25) as learner,
    ):
        vectors = [learner.observe(scenes(32, 100 + n, gain=1.0 if n < 4 else 0.45)) for n in range(16)]
        return np.concatenate(vectors), learner.info()


@pytest.mark.parametrize("level", ["recenter", "ports", "tail"])
def test_learns_what_the_first_engine_learns(tiny, tmp_path, scenes, engine, level):
    vectors, status = _night(tiny, tmp_path / "this", engine, level, scenes)
    expected, reference = _night(tiny, tmp_path / "first", next(iter(ENGINES)), level, scenes)
    assert status["shifted"]
    assert not status["frozen"]
    assert status.get("steps", 0) == reference.get("steps", 0)
    assert (status.get("steps", 0) > 0) == (level == "tail")
    assert (vectors * expected).sum(1).min() > 0.9999


def test_a_state_goes_on_in_another_engine(tiny, tmp_path, scenes, engine):
    _, before = _night(tiny, tmp_path / "state", next(iter(ENGINES)), "tail", scenes)
    with (
        edgessl.open(tiny, engine=engine, threads=1) as encoder,
        encoder.learner(tmp_path / "state", level="tail") as learner,
    ):
        assert learner.info()["steps"] == before["steps"]
        assert np.isfinite(learner.observe(scenes(8, 0))).all()
