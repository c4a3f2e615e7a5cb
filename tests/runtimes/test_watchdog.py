"""An encoder that goes on when its engine does not: every fault of an engine, and what is said of it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest

import edgessl
from edgessl.bundle import open_bundle
from edgessl.errors import EngineError, InputError, MissingExtraError
from edgessl.runtimes import watchdog
from edgessl.runtimes.encoder import encoder_of
from edgessl.runtimes.engines import ENGINES, EngineSettings
from edgessl.runtimes.watchdog import FIRST_REST_S, MOST_HANGING, TRUSTED_AFTER, Watched, open_watched

INT8, FP32 = ("onnxruntime", "int8"), ("onnxruntime", "fp32")
PATIENT_S, HASTY_S = 30.0, 0.4


def give(value):
    """An engine that gives these vectors."""
    return lambda frames, vectors: np.full_like(vectors, value)


def raising(error):
    def fail(frames, vectors):
        raise error

    return fail


class Plan:
    """What each opened encoder does wrong, in the order in which they are opened; `None` is nothing.

    Attributes:
        opened: (engine, precision) of each.
        closed: How many were closed.
    """

    def __init__(self, bundle, *faults):
        self.bundle, self.faults, self.opened, self.closed = bundle, list(faults), [], 0

    def __call__(self, engine, precision):
        self.opened.append((engine, precision))
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        encoder = encoder_of(self.bundle, engine, precision, EngineSettings())
        embed, close = encoder.embed, encoder.close
        golden = {sample.tobytes() for sample in encoder.bundle.tensors("golden", "samples")["samples"]}

        def faulty(frames):
            # Golden samples go well unless the fault says otherwise: an engine may fail on one frame only.
            proving = len(frames) == 1 and frames[0].tobytes() in golden
            if fault is None or (proving and not getattr(fault, "always", False)):
                return embed(frames)
            return fault(frames, embed(frames))

        def counted():
            self.closed += 1
            close()

        encoder.embed, encoder.close = faulty, counted
        return encoder


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watch(tiny, clock, monkeypatch):
    """Watched(faults...), the plan that was followed, and what was told; on a device with onnxruntime alone."""
    bundle, opened = open_bundle(tiny), []
    monkeypatch.setattr(watchdog, "automatic", lambda: ("onnxruntime",))

    def start(*faults, wanted=INT8, timeout_s=PATIENT_S):
        plan, told = Plan(bundle, *faults), []
        watched = Watched(bundle, wanted, plan, timeout_s=timeout_s, tell=told.append, clock=clock)
        opened.append(watched)
        return watched, plan, told

    yield start
    for watched in opened:
        watched.close()


def close_to(vectors, tiny, frames, precision="int8"):
    with edgessl.open(tiny, precision=precision) as encoder:
        np.testing.assert_allclose(vectors, encoder.embed(frames), atol=1e-5)


def test_a_sound_engine_gives_what_the_encoder_gives(tiny, scenes):
    told = []
    with open_watched(tiny, tell=told.append) as watched, edgessl.open(tiny) as encoder:
        for batch in (1, 5, 19, 0):
            np.testing.assert_array_equal(watched.embed(scenes(batch, 0)), encoder.embed(scenes(batch, 0)))
        assert (watched.dim, watched.space_id, watched.input) == (encoder.dim, encoder.space_id, encoder.input)
        assert watched.info() == encoder.info() | {"timeout_s": 10.0}
        assert watched.health() == {
            "state": "ok",
            "restarts": 0,
            "engine": "onnxruntime",
            "precision": "int8",
            "last_error": "",
            "hanging": 0,
        }
    assert told == []


FAULTS = {
    "exception": raising(RuntimeError("out of luck")),
    "engine error": raising(EngineError("cannot run the graph")),
    "low memory": raising(MemoryError()),
    "not finite": give(np.nan),
    "not unit": give(0.5),
    "zero": give(0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_engine_that_fails_is_reopened_and_the_frame_is_not_lost(watch, tiny, scenes, fault):
    watched, plan, told = watch(FAULTS[fault])
    close_to(watched.embed(scenes(3, 0)), tiny, scenes(3, 0))
    assert plan.opened == [INT8, INT8]
    assert plan.closed == 1, "the first one's memory was given back"
    health = watched.health()
    assert (health["state"], health["restarts"], health["precision"]) == ("restarted", 1, "int8")
    assert health["last_error"].startswith("onnxruntime int8: ")
    assert [event["event"] for event in told] == ["engine_failed", "engine_restarted"]
    assert told[0]["reason"] == health["last_error"]


def test_an_engine_that_fails_again_is_replaced_and_the_other_precision_is_told(watch, tiny, scenes):
    watched, plan, told = watch(FAULTS["exception"], FAULTS["exception"])
    close_to(watched.embed(scenes(2, 1)), tiny, scenes(2, 1), "fp32")
    assert (plan.opened[:2], watched.health()["state"]) == ([INT8, INT8], "fallback")
    assert watched.health()["precision"] == "fp32"
    assert told[-1]["event"] == "engine_replaced"
    assert "vectors in fp32 are not those in int8" in told[-1]["message"]
    assert watched.info()["precision"] == "fp32"
    with edgessl.open(tiny) as encoder:
        assert watched.space_id == encoder.space_id


def test_what_fails_the_golden_samples_does_not_take_over(watch, tiny, scenes):
    def wrong(frames, vectors):
        return np.roll(vectors, 1, axis=1)  # unit vectors, and none of them right

    wrong.always = True
    watched, plan, told = watch(FAULTS["exception"], wrong)
    close_to(watched.embed(scenes(2, 1)), tiny, scenes(2, 1), "fp32")
    assert len(plan.opened) == 3
    assert "golden samples" in told[1]["reason"]


def test_a_hang_is_left_behind_and_closes_what_it_holds_when_it_ends(watch, tiny, scenes):
    gate = threading.Event()

    def hang(frames, vectors):
        gate.wait(60)
        return vectors

    watched, plan, told = watch(hang, timeout_s=HASTY_S)
    close_to(watched.embed(scenes(3, 0)), tiny, scenes(3, 0))
    assert (watched.health()["state"], watched.health()["hanging"]) == ("restarted", 1)
    assert "longer than 0.4 s" in told[0]["reason"]
    assert plan.closed == 0
    gate.set()
    for _ in range(1000):
        if not watched.health()["hanging"]:
            break
        time.sleep(0.01)
    assert (plan.closed, watched.health()["hanging"]) == (1, 0)


def test_a_late_answer_is_never_taken_for_the_next_ones(watch, tiny, scenes, monkeypatch):
    """Ctrl-C while waiting: the answer comes all the same, when nobody waits for it."""
    watched, _, _ = watch()
    worker = watched._worker
    monkeypatch.setattr(worker, "_answer", raising_interrupt)
    with pytest.raises(KeyboardInterrupt):
        watched.embed(scenes(3, 0))
    monkeypatch.undo()
    close_to(watched.embed(scenes(3, 1)), tiny, scenes(3, 1))


def raising_interrupt(*_):
    raise KeyboardInterrupt


def test_an_engine_whose_library_is_gone_is_passed_over_with_the_line_to_type(watch, tiny, scenes):
    missing = MissingExtraError("onnxruntime", "onnxruntime")
    watched, plan, told = watch(FAULTS["exception"], missing)
    assert watched.embed(scenes(2, 1)).shape == (2, 6)
    assert watched.health()["state"] == "fallback"
    assert "pip install 'edgessl[onnxruntime]'" in told[1]["reason"]
    assert len(plan.opened) == 3


def test_an_engine_that_was_asked_for_and_cannot_be_opened_is_an_error(tiny, monkeypatch):
    monkeypatch.setitem(ENGINES, "openvino", ("edgessl.absent", "None", "edgessl.absent", "openvino"))
    with pytest.raises(MissingExtraError, match=r"pip install 'edgessl\[openvino\]'"):
        open_watched(tiny, engine="openvino")


def test_an_engine_that_hangs_while_it_is_opened_is_an_error(tiny, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(watchdog, "OPENING_S", HASTY_S)
    monkeypatch.setattr(watchdog, "encoder_of", lambda *_: gate.wait(60))
    with pytest.raises(EngineError, match=r"opening took longer than 0\.4 s. Type: edgessl doctor"):
        open_watched(tiny)
    gate.set()


@pytest.mark.parametrize(
    "change",
    [lambda x: x[:, :5], lambda x: x[0], lambda x: x / 255, lambda x: None],
    ids=["size", "one", "range", "none"],
)
def test_a_wrong_frame_is_the_callers_fault_and_restarts_nothing(watch, scenes, change):
    watched, plan, told = watch()
    with pytest.raises(InputError):
        watched.embed(change(scenes(2, 0)))
    assert watched.embed(scenes(2, 0)).shape == (2, 6)
    assert (plan.opened, told, watched.health()["restarts"]) == ([INT8], [], 0)


def test_when_all_fail_every_reason_is_given_and_they_rest_before_they_are_tried_again(watch, clock, tiny, scenes):
    watched, plan, told = watch(*[raising(RuntimeError(f"reason {index}")) for index in range(40)])
    with pytest.raises(EngineError) as caught:
        watched.embed(scenes(2, 0))
    tried = len(plan.opened)
    assert all(f"reason {index}'" in str(caught.value) for index in range(tried))
    assert plan.opened == [INT8, INT8, FP32]
    assert watched.health()["state"] == "failed"
    assert (told[-1]["event"], len(told[-1]["reasons"])) == ("engines_exhausted", tried)

    clock.now += FIRST_REST_S / 2
    with pytest.raises(EngineError, match="rests"):
        watched.embed(scenes(2, 0))
    assert len(plan.opened) == tried, "nothing is opened thirty times a second"

    plan.faults.clear()
    clock.now += FIRST_REST_S
    close_to(watched.embed(scenes(2, 0)), tiny, scenes(2, 0))
    assert (watched.health()["state"], watched.health()["engine"]) == ("restarted", "onnxruntime")


def test_other_precisions_come_first_then_other_engines_and_what_runs_everywhere_last(watch, monkeypatch, scenes):
    monkeypatch.setattr(watchdog, "automatic", lambda: ("onnxruntime", "openvino", "tensorrt"))
    gone = EngineError("gone")
    watched, plan, _ = watch(FAULTS["zero"], *[gone] * 9, wanted=INT8)
    with pytest.raises(EngineError, match="every engine"):
        watched.embed(scenes(1, 0))
    assert plan.opened == [INT8, INT8, ("openvino", "int8"), ("openvino", "fp32"), FP32]


def test_rests_grow_while_nothing_runs(watch, clock, scenes):
    watched, _, told = watch(*[FAULTS["exception"]] * 100)
    for _ in range(3):
        clock.now += 1000
        with pytest.raises(EngineError, match="every engine"):
            watched.embed(scenes(1, 0))
    rests = [event["again_in_s"] for event in told if event["event"] == "engines_exhausted"]
    assert rests == [FIRST_REST_S, 2 * FIRST_REST_S, 4 * FIRST_REST_S]


def test_no_more_engines_are_left_behind_than_a_few(watch, clock, scenes):
    gate = threading.Event()

    def hang(frames, vectors):
        gate.wait(60)
        return vectors

    watched, _, _ = watch(*[hang] * 40, timeout_s=HASTY_S / 4)
    for _ in range(3):
        clock.now += 1000
        with pytest.raises(EngineError, match=r"every engine"):
            watched.embed(scenes(1, 0))
    assert watched.health()["hanging"] == MOST_HANGING
    assert "only a new process helps" in watched.health()["last_error"]
    gate.set()


def test_a_failure_after_many_answers_is_the_first_again(watch, scenes):
    class Once:
        """Fails at the given answers."""

        def __init__(self, *numbers):
            self.numbers, self.count = numbers, 0

        def __call__(self, frames, vectors):
            self.count += 1
            return np.full_like(vectors, np.nan) if self.count in self.numbers else vectors

    watched, plan, _ = watch(FAULTS["zero"], Once(TRUSTED_AFTER + 2))
    frame = scenes(1, 0)
    for _ in range(TRUSTED_AFTER + 1):
        watched.embed(frame)
    assert watched.health()["state"] == "ok"
    watched.embed(frame)
    assert plan.opened == [INT8, INT8, INT8]
    assert watched.health()["state"] == "restarted"


def test_the_fake_engine_stands_in_for_none_and_none_for_it(watch, scenes):
    watched, plan, _ = watch(*[FAULTS["exception"]] * 40)
    with pytest.raises(EngineError, match="every engine"):
        watched.embed(scenes(1, 0))
    assert "fake" not in {engine for engine, _ in plan.opened}
    faked, plan, _ = watch(*[FAULTS["exception"]] * 40, wanted=("fake", "fp32"))
    with pytest.raises(EngineError, match="every engine"):
        faked.embed(scenes(1, 0))
    assert {engine for engine, _ in plan.opened} == {"fake"}


def test_threads_share_it_and_each_gets_its_own_vectors(watch, tiny, scenes):
    watched, _, _ = watch(FAULTS["exception"])
    got = {}
    threads = [
        threading.Thread(target=partial(lambda seed: got.update({seed: watched.embed(scenes(3, seed))}), seed))
        for seed in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, vectors in got.items():
        close_to(vectors, tiny, scenes(3, seed))
    assert len(got) == 6


def test_close_twice_is_allowed_and_gives_the_memory_back(watch, scenes):
    watched, plan, _ = watch()
    watched.close()
    watched.close()
    assert plan.closed == 1
    with pytest.raises(EngineError, match="closed"):
        watched.embed(scenes(1, 0))


def test_a_time_out_of_nothing_is_refused(tiny):
    with pytest.raises(InputError, match="timeout_s must be more than 0"):
        open_watched(tiny, timeout_s=0)


HANGS = """
import pathlib, sys, time
from edgessl.bundle import open_bundle
from edgessl.runtimes.encoder import encoder_of
from edgessl.runtimes.engines import EngineSettings
from edgessl.runtimes.watchdog import Watched
import numpy as np
bundle, opened = open_bundle(pathlib.Path(sys.argv[1])), []
def open_one(engine, precision):
    encoder = encoder_of(bundle, engine, precision, EngineSettings())
    opened.append(encoder)
    if len(opened) == 1:
        encoder.embed = lambda frames: time.sleep(3600)
    return encoder
watched = Watched(bundle, ("onnxruntime", "fp32"), open_one, timeout_s=0.5, tell=lambda event: None)
print(watched.embed(np.zeros((1, 12, 10, 3), np.uint8)).shape, watched.health()["hanging"])
"""


@pytest.mark.slow
def test_a_process_ends_whatever_hangs_in_it(tiny):
    done = subprocess.run(
        [sys.executable, "-c", HANGS, str(tiny)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "(1, 6) 1\n"), done.stderr
