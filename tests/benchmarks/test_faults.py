"""The faults are really there, and clean blocks are judged as a learner judges them."""

from __future__ import annotations

import runpy
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from false_alarms import ORDERS, _blocks, false_alarms, statistics
from faults import PLAIN, STRETCH, Course, Life, lead, suffer
from injections import CONFIG, FAULTS, fingerprint, training_of
from soak import resident_mb, stream

import edgessl
from edgessl.runtimes.adapt.memory import Memory
from edgessl.runtimes.adapt.store import Ring

TINY = runpy.run_path(str(Path(__file__).parents[1] / "runtimes" / "tiny_bundle.py"))
NIGHT = 0.4  # gain
LABELS = np.arange(90) % 3


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = TINY["write_tiny_bundle"](tmp_path_factory.mktemp("bundles") / "tiny.edgessl")
    with edgessl.open(path, precision="int8", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def night():
    return TINY["scenes"](800, 6, NIGHT)


@pytest.fixture(scope="module")
def adapted(encoder, night, tmp_path_factory):
    """A state at level tail, and the fingerprints of its snapshots."""
    folder = tmp_path_factory.mktemp("state") / "state"
    with encoder.learner(folder, level="tail", config=CONFIG) as learner:
        life = Life(learner, fingerprint(learner))
        for part in (night[:320], night[320:640]):
            life.observe(part, 32)
            life.snapshot()
    return folder, life.hashes


@pytest.fixture
def learner(encoder, adapted, tmp_path):
    folder = shutil.copytree(adapted[0], tmp_path / "state")
    with encoder.learner(folder, level="tail", config=CONFIG) as opened:
        yield opened


def course(encoder, night):
    return Course(
        bundle=encoder.bundle.path,
        level="tail",
        lead=night[:640],
        stretch=night[640:736],
        stretch_labels=np.arange(96) % 3,
        after=night[736:],
    )


@pytest.mark.parametrize(("name", "value"), [("black", 0), ("white", 255)])
def test_an_empty_frame_has_one_value(night, name, value):
    shown = FAULTS[name].show(night[:90], LABELS)
    assert shown.shape == night[:90].shape
    assert shown.dtype == np.uint8
    assert (shown == value).all()


def test_a_hanging_camera_shows_its_first_frame(night):
    shown = FAULTS["constant frame"].show(night[:90], LABELS)
    assert (shown == night[0]).all()
    assert len(shown) == 90


def test_a_fifth_of_the_pixels_is_salt(night):
    shown = FAULTS["salt noise"].show(night[:90], LABELS)
    changed = (shown != night[:90]).any(-1)
    assert 0.17 < changed.mean() < 0.22
    assert set(np.unique(shown[changed])) == {0, 255}


def test_class_sorted_are_the_same_frames_in_another_order(night):
    shown = FAULTS["class-sorted"].show(night[:90], LABELS)
    keys = [frame.tobytes() for frame in night[:90]]
    labels = LABELS[[keys.index(frame.tobytes()) for frame in shown]]
    assert (np.diff(labels) != 0).sum() == 2
    assert sorted(keys) == sorted(frame.tobytes() for frame in shown)


@pytest.mark.parametrize("times", [10, 100])
def test_the_learning_rate_is_what_the_step_is_fed(learner, night, monkeypatch, times):
    training, fed = training_of(learner), []
    factory = training._knobs["lr"]
    run = training._step.run
    monkeypatch.setattr(training._step, "run", lambda feeds: fed.append(float(feeds["lr"])) or run(feeds))
    training.steps = 20  # past the warm-up
    with FAULTS[f"learning rate x{times}"].within(learner):
        learner.observe(night[640:704])
    assert fed == pytest.approx([factory * times] * 8)  # of 64 frames
    assert training._knobs["lr"] == factory


def test_one_frame_in_eight_breaks_in_the_engine(learner, night):
    with FAULTS["NaN from the engine"].within(learner):
        vectors = learner.observe(night[640:672])
    broken = ~np.isfinite(vectors).all(1)
    np.testing.assert_array_equal(np.flatnonzero(broken), [7, 15, 23, 31])
    assert [event["frames"] for event in learner.events if event["kind"] == "quarantined"] == [4]
    assert np.isfinite(learner.observe(night[672:704])).all()


def test_a_training_step_that_is_not_finite_is_rolled_back_to_what_was_saved(encoder, adapted, night):
    _, told = suffer(course(encoder, night), encoder, *adapted, FAULTS["NaN in a training step"])
    assert [(each["snapshot"], each["same"]) for each in told["rollbacks"]] == [(max(adapted[1]), True)]
    assert "training step" in told["rollbacks"][0]["reason"]
    assert "NaN" in told["refused"] or "uint8" in told["refused"]


def test_a_fifth_of_the_memory_is_noise(learner):
    memory: Memory = learner._learned._replay._memory
    before, references = memory._latents.copy(), memory.references.copy()
    with FAULTS["20 % poisoned memory"].within(learner):
        pass
    changed = (memory._latents != before).any((1, 2, 3, 4))
    np.testing.assert_array_equal(changed, (memory.references != references).any(1))
    assert changed.sum() == round(0.2 * len(memory)) > 5
    np.testing.assert_allclose(np.linalg.norm(memory.references, axis=1), 1, atol=1e-5)


def test_the_clock_goes_ahead_and_back(learner):
    with FAULTS["clock jump"].within(learner):
        read = np.array([time.monotonic() for _ in range(300)])
    assert np.abs(np.diff(read)).max() == pytest.approx(7200, abs=5)
    assert (np.diff(read) < -7000).any()
    assert (np.diff(read) > 7000).any()


@pytest.mark.parametrize("name", ["snapshot torn", "snapshot with a flipped bit"])
def test_the_newest_snapshot_is_damaged_and_the_one_before_it_loads(encoder, adapted, night, name):
    _, told = suffer(course(encoder, night), encoder, *adapted, FAULTS[name])
    assert told["opened"]
    assert told["events"][0] == ("damaged", 0)


@pytest.mark.slow
def test_a_process_dies_with_half_a_snapshot_on_disk(encoder, adapted, tmp_path):
    folder = shutil.copytree(adapted[0], tmp_path / "state")
    newest = max(adapted[1])
    assert FAULTS["power cut in mid-write"].disk(encoder.bundle.path, folder, "tail", newest) == newest
    (half,) = folder.glob(".snapshot-*.partial")
    whole = (folder / f"snapshot-{newest:08d}.safetensors").stat().st_size
    assert 0.3 * whole < half.stat().st_size < 0.7 * whole
    with Ring(folder) as ring:
        assert ring.next_number == newest + 1


def test_without_a_fault_two_lives_are_the_same(encoder, adapted, night):
    first, told = suffer(course(encoder, night), encoder, *adapted, PLAIN)
    second, _ = suffer(course(encoder, night), encoder, *adapted, PLAIN)
    np.testing.assert_array_equal(first, second)
    assert told["opened"]
    assert told["rollbacks"] == []
    assert told["refused"] == ""


def test_the_lead_ends_with_a_snapshot_of_what_was_learned(encoder, night, tmp_path):
    hashes = lead(course(encoder, night), encoder, tmp_path / "state")
    assert hashes[max(hashes)] != hashes[0]
    with encoder.learner(tmp_path / "state", level="tail", config=CONFIG) as again:
        assert fingerprint(again) == hashes[max(hashes)]


def test_blocks_are_as_many_as_asked_and_a_pass_shows_every_image_of_a_class_sorted_order_once():
    blocks = list(_blocks(ORDERS["class-sorted"], LABELS, 9, 20, 0))
    assert len(blocks) == 20
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks[:10])), np.arange(90))


def test_days_give_no_alarm_and_nights_one(encoder, night):
    day = TINY["scenes"](96, 9)
    labels = np.arange(96) % 3
    rows = {row["order"]: row for row in false_alarms(encoder, day, labels, 20, 0)}
    assert rows["random"]["false_alarms"] == 0
    assert 0 < rows["random"]["scores"]["block"]["largest"] < 1
    dark = next(false_alarms(encoder, night[:96], labels, 20, 0))
    assert (dark["false_alarms"], dark["shifted_blocks"]) == (1, 20)
    assert dark["scores"]["block"]["median"] > 1
    assert statistics(encoder, day).shape == (96, 10)


def test_the_soak_has_days_and_nights():
    kinds = {name: np.full((5, 1), value) for value, name in enumerate(("clean", "fog", "snow"))}
    batches = stream(kinds, 0)
    seen = [int(next(batches)[0, 0]) for _ in range(40 * 5)][::40]
    assert seen == [0, 1, 0, 2, 0]
    assert resident_mb() > 10


def test_a_stretch_is_whole_blocks():
    assert STRETCH % CONFIG.drift.block == 0
