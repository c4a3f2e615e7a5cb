"""The learner as a whole: nothing without a shift, the factory after one, and the same vectors after a stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import edgessl
from edgessl.bundle import signed
from edgessl.errors import EngineError, InputError, StateError, UnknownNameError
from edgessl.runtimes.adapt.adaptation import Adaptation
from edgessl.runtimes.adapt.config import LEVELS, LearnerConfig
from edgessl.runtimes.adapt.drift import DriftConfig
from edgessl.runtimes.adapt.guard import GuardConfig
from edgessl.runtimes.adapt.memory import MemoryConfig
from edgessl.runtimes.adapt.store import RING
from edgessl.runtimes.engines.onnxrt import OnnxRuntime
from tests.runtimes.adapt.nights import NIGHT, QUICK, kinds


def cut(frames, sizes):
    start = 0
    for size in sizes:
        yield frames[start : start + size]
        start += size


@pytest.mark.parametrize("level", LEVELS)
def test_by_day_nothing_moves(encoder, tmp_path, scenes, level):
    with encoder.learner(tmp_path / "state", level=level) as learner:
        vectors = learner.observe(scenes(150, 5))
        assert learner.info()["votes"] == 0
        assert kinds(learner) == ["open"]
    np.testing.assert_allclose(vectors, encoder.embed(scenes(150, 5)), atol=1e-5)


@pytest.mark.parametrize("level", LEVELS)
def test_the_day_after_a_night_is_served_by_the_factory(encoder, tmp_path, scenes, level):
    with encoder.learner(tmp_path / "state", level=level) as learner:
        learner.observe(scenes(320, 6, NIGHT))
        assert learner.info()["shifted"]
        day = learner.observe(scenes(64, 5))
    assert "return" in kinds(learner)
    np.testing.assert_allclose(day[16:], encoder.embed(scenes(64, 5))[16:], atol=1e-5)


@pytest.mark.parametrize("level", ["recenter", "ports"])
def test_at_night_frames_find_their_day_again(encoder, tmp_path, scenes, level):
    bank = encoder.embed(scenes(150, 9))

    def recall(vectors):
        return ((vectors @ bank.T).argmax(1) == np.arange(150)).mean()

    with encoder.learner(tmp_path / "state", level=level, config=QUICK) as learner:
        learner.observe(scenes(600, 6, NIGHT))
        adapted = learner.observe(scenes(150, 9, NIGHT))
    assert recall(encoder.embed(scenes(150, 9, NIGHT))) < 0.2
    assert recall(adapted) > 0.4


@pytest.mark.parametrize("level", LEVELS)
def test_a_mild_shift_is_served_by_the_factory_and_still_judged(encoder, tmp_path, scenes, level):
    config = replace(QUICK, drift=DriftConfig(mild=1e9))
    with encoder.learner(tmp_path / "state", level=level, config=config) as learner:
        learner.observe(scenes(600, 6, NIGHT))
        votes, told = learner.info()["votes"], kinds(learner)
        assert told.count("mild") == 1
        assert not learner.info()["shifted"]
        night = learner.observe(scenes(64, 9, NIGHT))
        assert learner.info()["votes"] > votes
        learner.observe(scenes(64, 5))
    assert "return" in kinds(learner)
    np.testing.assert_allclose(night, encoder.embed(scenes(64, 9, NIGHT)), atol=1e-5)


def test_the_next_night_starts_where_the_last_one_ended(encoder, tmp_path, scenes):
    with encoder.learner(tmp_path / "state") as learner:
        learner.observe(scenes(400, 6, NIGHT))
        votes = learner.info()["votes"]
        learner.observe(scenes(64, 5))
        vectors = learner.observe(scenes(64, 9, NIGHT))
        assert "another_shift" not in kinds(learner)
        assert learner.info()["votes"] > votes
    bank = encoder.embed(scenes(64, 9))
    assert ((vectors @ bank.T).argmax(1) == np.arange(64))[16:].mean() > 0.6


@pytest.mark.parametrize("level", LEVELS)
def test_the_same_seed_and_stream_give_the_same_vectors(encoder, tmp_path, scenes, level):
    night = scenes(300, 6, NIGHT)
    found = []
    for run in ("a", "b"):
        with encoder.learner(tmp_path / run, level=level, seed=3, steps_per_frame=0.25) as learner:
            found.append(learner.observe(night))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("level", LEVELS)
def test_a_stop_changes_nothing(encoder, tmp_path, scenes, level):
    night, sizes = scenes(300, 6, NIGHT), (33, 70, 7, 90, 100)
    options = {"level": level, "seed": 3, "steps_per_frame": 0.25}
    with encoder.learner(tmp_path / "whole", **options) as learner:
        whole = [learner.observe(part) for part in cut(night, sizes)]
    for part, expected in zip(cut(night, sizes), whole, strict=True):
        with encoder.learner(tmp_path / "parts", **options) as learner:
            np.testing.assert_array_equal(learner.observe(part), expected)


@pytest.mark.parametrize("level", ["ports", "tail"])
def test_a_killed_process_goes_on_from_its_snapshot(encoder, tmp_path, scenes, level):
    night = scenes(320, 6, NIGHT)
    options = {"level": level, "seed": 3, "steps_per_frame": 0.25}
    with encoder.learner(tmp_path / "whole", **options) as learner:
        whole = np.concatenate([learner.observe(part) for part in cut(night, [40] * 8)])
    killed = encoder.learner(tmp_path / "state", **options)
    killed.observe(night[:40])
    killed.observe(night[40:80])
    killed.snapshot()
    killed.observe(night[80:120])
    killed._store.close()  # what the kernel does for a process that dies
    with encoder.learner(tmp_path / "state", **options) as learner:
        assert learner.frames == 80
        rest = np.concatenate([learner.observe(part) for part in cut(night[80:], [40] * 6)])
    np.testing.assert_array_equal(rest, whole[80:])


def test_the_tail_learns_within_its_budget(encoder, tmp_path, scenes):
    with encoder.learner(tmp_path / "state", level="tail", steps_per_frame=0.125) as learner:
        learner.observe(scenes(400, 6, NIGHT))
        info = learner.info()
    assert 0 < info["steps"] <= 400 / 8
    assert info["memory"] > 0
    assert np.isfinite(info["loss"])


def test_a_budget_of_nothing_takes_no_step(encoder, tmp_path, scenes):
    with encoder.learner(tmp_path / "state", level="tail", steps_per_frame=0) as learner:
        learner.observe(scenes(200, 6, NIGHT))
        assert learner.info()["steps"] == 0


def test_the_memory_keeps_its_budget(encoder, tmp_path, scenes):
    config = LearnerConfig(memory=MemoryConfig(budget_bytes=3000, novelty=0.0))
    with encoder.learner(tmp_path / "state", level="tail", config=config) as learner:
        learner.observe(scenes(300, 6, NIGHT))
        assert 1500 < learner.info()["memory_bytes"] <= 3000


def test_a_robot_that_stands_still_learns_next_to_nothing(encoder, tmp_path, scenes):
    wall = np.repeat(scenes(1, 6, NIGHT / 4), 500, axis=0)
    with encoder.learner(tmp_path / "state") as learner:
        learner.observe(wall)
        assert learner.info()["shifted"]
        assert learner.info()["votes"] <= 1


def test_collapse_rolls_back_and_then_freezes_at_the_factory(encoder, tmp_path, scenes):
    # Every block looks collapsed to this guard.
    config = LearnerConfig(guard=GuardConfig(collapse_spread=1e9), snapshot_every=48)
    night = scenes(900, 6, NIGHT)
    with encoder.learner(tmp_path / "state", config=config) as learner:
        vectors = learner.observe(night)
        assert learner.info()["frozen"]
    told = [event for event in learner.events if event["kind"] in ("rollback", "frozen")]
    assert [event["kind"] for event in told] == ["rollback"] * 3 + ["frozen"]
    assert told[0]["snapshot"] > 0
    np.testing.assert_allclose(vectors[-100:], encoder.embed(night)[-100:], atol=1e-5)
    with encoder.learner(tmp_path / "state", config=config) as learner:
        assert learner.info()["frozen"]  # a restart does not thaw
        assert kinds(learner) == ["frozen", "open"]  # and says so
        assert "--state" in learner.events[0]["todo"]


def test_a_step_that_is_not_finite_rolls_back(encoder, tmp_path, scenes):
    config = LearnerConfig()
    with encoder.learner(tmp_path / "state", level="tail", config=config) as learner:
        learner._learned._replay._training._knobs["lr"] = np.inf
        vectors = learner.observe(scenes(200, 6, NIGHT))
    assert np.isfinite(vectors).all()
    assert "rollback" in kinds(learner)


def test_learning_that_fails_costs_no_vector(encoder, tmp_path, scenes):
    with encoder.learner(tmp_path / "state") as learner:
        learner._learned._alignment.recenter = lambda *_, **__: 1 / 0
        assert np.isfinite(learner.observe(scenes(100, 6, NIGHT))).all()
        assert learner.info()["frozen"]
    assert "ZeroDivisionError" in next(event["error"] for event in learner.events if event["kind"] == "failed")


def test_a_restart_may_learn_after_learning_failed(encoder, tmp_path, scenes):
    with encoder.learner(tmp_path / "state") as learner:
        learner.observe(scenes(64, 6, NIGHT))
        kept = learner.snapshot()
        learner._learned._alignment.recenter = lambda *_, **__: 1 / 0
        learner.observe(scenes(64, 7, NIGHT))
        assert learner.info()["frozen"]
        assert learner.snapshot() == kept  # half of a step is not stored
    with encoder.learner(tmp_path / "state") as learner:
        assert learner.events[0]["snapshot"] == kept
        votes = learner.info()["votes"]
        learner.observe(scenes(64, 7, NIGHT))
        assert not learner.info()["frozen"]
        assert learner.info()["votes"] > votes


def test_learning_that_was_interrupted_is_not_stored(encoder, tmp_path, scenes):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    learner = encoder.learner(tmp_path / "state")
    learner.observe(scenes(64, 6, NIGHT))
    kept = learner.snapshot()
    learner._learned._alignment.recenter = interrupt
    with pytest.raises(KeyboardInterrupt), learner:
        learner.observe(scenes(64, 7, NIGHT))
    with encoder.learner(tmp_path / "state") as learner:
        assert learner.events[0]["snapshot"] == kept
        assert learner.frames == 64


def full(*_):
    raise OSError(28, "No space left on device")


def test_closing_on_a_full_disk_raises_nothing_and_lets_the_folder_go(encoder, tmp_path, scenes, monkeypatch):
    monkeypatch.setattr("edgessl.runtimes.adapt.store.save_file", full)
    with encoder.learner(tmp_path / "state") as learner:
        vectors = learner.observe(scenes(40, 6, NIGHT))
    assert np.isfinite(vectors).all()
    assert learner.events[-1]["kind"] == "snapshot_failed"
    assert "No space left" in learner.events[-1]["error"]
    monkeypatch.undo()
    encoder.learner(tmp_path / "state").close()


def test_a_rollback_that_was_not_written_is_not_counted_as_written(encoder, tmp_path, scenes, monkeypatch):
    config = LearnerConfig(guard=GuardConfig(collapse_spread=1e9, rollbacks=9))
    with encoder.learner(tmp_path / "state", config=config) as learner:
        monkeypatch.setattr("edgessl.runtimes.adapt.store.save_file", full)
        learner.observe(scenes(300, 6, NIGHT))
        assert {"rollback", "snapshot_failed"} <= set(kinds(learner))
        assert learner._rolled == 0
        monkeypatch.undo()


def test_a_learner_that_cannot_open_closes_its_engines(encoder, tmp_path, scenes, monkeypatch):
    closed = []
    close = Adaptation.close
    monkeypatch.setattr(Adaptation, "close", lambda self: (closed.append(self), close(self)))
    with encoder.learner(tmp_path / "state"):
        with pytest.raises(StateError, match="in use"):
            encoder.learner(tmp_path / "state")
        assert len(closed) == 1


@pytest.mark.parametrize("broken", ["tail.onnx", "step.onnx"])
def test_a_graph_that_cannot_be_loaded_leaves_none_open(own, tmp_path, monkeypatch, broken):
    opened, closed = [], []
    start, close = OnnxRuntime.__init__, OnnxRuntime.close
    (own / broken).write_bytes(bytes((own / broken).stat().st_size))

    def counted(self, graph, **options):
        start(self, graph, **options)
        opened.append(self)

    monkeypatch.setattr(OnnxRuntime, "__init__", counted)
    monkeypatch.setattr(OnnxRuntime, "close", lambda self: (closed.append(self), close(self)))
    with edgessl.open(own, verify=False) as encoder, pytest.raises(EngineError, match="cannot load"):
        encoder.learner(tmp_path / "state", level="tail")
    assert len(opened) > 1
    assert set(map(id, opened)) == set(map(id, closed))


def test_a_full_disk_costs_no_vector(encoder, tmp_path, scenes, monkeypatch):
    with encoder.learner(tmp_path / "state", config=LearnerConfig(snapshot_every=32)) as learner:
        monkeypatch.setattr("edgessl.runtimes.adapt.store.save_file", full)
        assert np.isfinite(learner.observe(scenes(100, 6, NIGHT))).all()
        monkeypatch.undo()
    assert "snapshot_failed" in kinds(learner)


def test_a_damaged_snapshot_is_reported_and_the_one_before_serves(encoder, tmp_path, scenes):
    with encoder.learner(tmp_path / "state") as learner:
        learner.observe(scenes(100, 6, NIGHT))
        kept = learner.snapshot()
        learner.observe(scenes(100, 7, NIGHT))
    newest = max((tmp_path / "state").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    with encoder.learner(tmp_path / "state") as learner:
        assert kinds(learner) == ["damaged", "open"]
        assert learner.events[1]["snapshot"] == kept
        assert learner.frames == 100


def test_a_state_of_another_bundle_is_refused(encoder, own, tmp_path, scenes):
    with encoder.learner(tmp_path / "state") as learner:
        learner.observe(scenes(5, 6))
    manifest = json.loads((own / "manifest.json").read_text()) | {"name": "other"}
    (own / "manifest.json").write_text(json.dumps(signed(manifest)))
    with edgessl.open(own) as other, pytest.raises(StateError, match="another bundle"):
        other.learner(tmp_path / "state")
    with encoder.learner(tmp_path / "state"):
        pass  # and the refusal left it free


def test_a_level_may_change_between_runs(encoder, tmp_path, scenes):
    for level in ("ports", "tail", "recenter", "auto"):
        with encoder.learner(tmp_path / "state", level=level) as learner:
            learner.observe(scenes(40, 6, NIGHT))
    assert learner.level == "ports"
    assert learner.frames == 160


@pytest.mark.parametrize("lower", ["recenter", "ports"])
def test_a_tail_outlives_runs_at_a_lower_level(encoder, tmp_path, scenes, lower):
    def tail(learner):
        return learner._learned.state().part("replay")

    with encoder.learner(tmp_path / "state", level="tail", steps_per_frame=0.25) as learner:
        learner.observe(scenes(200, 6, NIGHT))
        assert learner.info()["steps"] > 0
        learned = tail(learner)
    for seed in range(RING + 1):
        with encoder.learner(tmp_path / "state", level=lower) as learner:
            learner.observe(scenes(40, seed, NIGHT))
            assert "another_shift" not in kinds(learner)
    with encoder.learner(tmp_path / "state", level="tail") as learner:
        assert tail(learner).values == learned.values
        assert tail(learner).tensors.keys() == learned.tensors.keys()
        for name, value in tail(learner).tensors.items():
            np.testing.assert_array_equal(value, learned.tensors[name])


def test_close_twice_is_allowed(encoder, tmp_path, scenes):
    learner = encoder.learner(tmp_path / "state")
    learner.close()
    learner.close()
    with pytest.raises(InputError, match="closed"):
        learner.observe(scenes(1, 0))
    assert not list((tmp_path / "state").glob("*.safetensors"))  # nothing was observed


def test_wrong_arguments_are_refused_by_name(encoder, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'ports'"):
        encoder.learner(tmp_path / "state", level="port")
    with pytest.raises(InputError, match="steps_per_frame"):
        encoder.learner(tmp_path / "state", steps_per_frame=-1)


def test_a_device_without_torch_and_onnx_embeds_and_adapts(tiny, tmp_path):
    script = """
import sys
from dataclasses import replace
for name in ("torch", "onnx", "onnxscript", "torchvision", "timm", "lightly", "sklearn", "scipy"):
    sys.modules[name] = None
import numpy as np, edgessl
frames = np.random.default_rng(0).integers(0, 90, (40, 12, 10, 3)).astype(np.uint8)
with edgessl.open(sys.argv[1]) as encoder, encoder.learner(sys.argv[2], level="tail") as learner:
    assert np.isfinite(learner.observe(frames)).all()
"""
    command = [sys.executable, "-c", script, str(tiny), str(tmp_path / "state")]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
