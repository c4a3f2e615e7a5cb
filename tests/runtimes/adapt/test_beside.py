"""Adaptation beside inference: whatever the learner does, `embed` gives the vectors of one good version, at once.

Learner and serving are made up here, so that the first can be held, broken and slow, and the vectors of a version are a
formula. The last tests run the real ones.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from edgessl.errors import EngineError, InputError
from edgessl.runtimes.adapt.beside import Beside
from edgessl.runtimes.adapt.budget import Budget, BudgetConfig
from edgessl.runtimes.adapt.learner import Learner
from edgessl.runtimes.adapt.served import Served
from edgessl.runtimes.adapt.serving import Serving
from edgessl.runtimes.adapt.waiting import Waiting


def vectors_of(number, frames):
    """What version `number` makes of frames `(batch, 3)`: `(batch, 2)`."""
    return np.stack([frames[:, 0] + 1000.0 * number, frames[:, 1] - frames[:, 2] * number], axis=1).astype(np.float32)


def frames_from(start, count):
    return np.arange(3 * start, 3 * (start + count), dtype=np.float32).reshape(count, 3)


class Learns:
    """A learner that does in its n-th call what `script(n)` does; a number that it returns becomes the new version."""

    def __init__(self, script=lambda call: None):
        self.script = script
        self.frames, self.calls, self.seen, self.saves = 0, 0, [], []
        self.events = [{"kind": "open", "frame": 0}]
        self.served = Served()
        self.threads = set()

    def observe(self, frames):
        self.threads.add(threading.current_thread())
        self.calls += 1
        self.seen.extend(frames.tolist())
        number = self.script(self.calls)
        self.frames += len(frames)
        self.events.append({"kind": "learned", "frame": self.frames})
        if number is not None:
            self.served = Served(number=number)

    def info(self):
        return {"calls": self.calls}

    def close(self, *, save=True):
        self.saves.append(save)
        self.events.append({"kind": "snapshot", "frame": self.frames})


class Serves:
    """Versions by the formula, a frame at a time, so that a change in mid-batch would show."""

    def __init__(self, script=lambda number: None):
        self.script, self.closed = script, 0

    def prepare(self, served):
        self.script(served.number)

        def embed(frames):
            rows = []
            for frame in frames:
                time.sleep(0)
                rows.append(vectors_of(served.number, frame[None]))
            return np.concatenate(rows)

        return SimpleNamespace(number=served.number, embed=embed)

    def close(self):
        self.closed += 1


def unlimited(**limits):
    return Budget(BudgetConfig(**{"ms_per_frame": None, "poll_s": 0.01, "max_temperature_c": None} | limits))


@pytest.fixture
def start():
    """Opens; everything is let go and closed at the end."""
    opened, gates = [], []

    def hold():
        gate, entered = threading.Event(), threading.Event()
        gates.append(gate)

        def script(*_):
            entered.set()
            gate.wait()

        return SimpleNamespace(script=script, gate=gate, entered=entered)

    def make(learner, serving=None, **options):
        beside = Beside(learner, serving or Serves(), **{"budget": unlimited(), "close_s": 20.0} | options)
        opened.append(beside)
        return beside

    yield SimpleNamespace(beside=make, hold=hold)
    for gate in gates:
        gate.set()
    for each in opened:
        each.close()
        each._worker.join(20)
        assert not each._worker.is_alive()


def until(happened):
    """Wait for another thread; the limit only ends a test that has failed."""
    for _ in range(20_000):
        if happened():
            return
        time.sleep(0.001)
    pytest.fail("it never happened")


def kinds(beside):
    return [event["kind"] for event in beside.events]


def test_a_blocked_learner_neither_delays_nor_changes_a_vector(start):
    held = start.hold()
    learner = Learns(held.script)
    beside = start.beside(learner, waiting=5)
    beside.embed(frames_from(0, 1))
    held.entered.wait()
    for turn in range(1, 1000):
        frames = frames_from(turn, 1 + turn % 3)
        np.testing.assert_array_equal(beside.embed(frames), vectors_of(0, frames))
    told = beside.info()
    assert (told["version"], told["state"], told["queue"]) == (0, "behind", 5)
    assert (
        told["embedded"]
        == told["dropped"] + told["queue"] + len(learner.seen)
        == 1 + sum(1 + turn % 3 for turn in range(1, 1000))
    )
    assert learner.calls == 1
    assert kinds(beside).count("behind") == 1


def test_the_queue_keeps_the_newest_frames_in_order(start):
    held = start.hold()
    learner = Learns(held.script)
    beside = start.beside(learner, waiting=4)
    beside.embed(frames_from(0, 1))
    held.entered.wait()
    for turn in range(1, 30):
        beside.embed(frames_from(turn, 1))
    held.gate.set()
    until(lambda: beside.info()["learned"] == 5)
    assert learner.seen == frames_from(0, 1).tolist() + frames_from(26, 4).tolist()
    assert [kind for kind in kinds(beside) if kind in ("behind", "caught_up")] == ["behind", "caught_up"]
    assert beside.info()["dropped"] == 25
    assert beside.info()["state"] == "learning"


def test_a_batch_larger_than_the_queue_leaves_its_newest_frames(start):
    held = start.hold()
    learner = Learns(held.script)
    beside = start.beside(learner, waiting=6)
    beside.embed(frames_from(0, 1))
    held.entered.wait()
    beside.embed(frames_from(1, 100))
    assert (beside.info()["queue"], beside.info()["dropped"]) == (6, 94)
    held.gate.set()
    until(lambda: beside.info()["learned"] == 7)
    assert learner.seen[1:] == frames_from(95, 6).tolist()


def test_frames_that_were_let_go_cost_the_budget_nothing():
    budget = unlimited(ms_per_frame=1.0, burst_ms=30.0)
    budget.settle(budget.grant(1), 1.0)  # a frame costs a millisecond
    waiting = Waiting(2, budget)
    waiting.put(frames_from(0, 10))
    assert (len(waiting), waiting.dropped) == (2, 8)
    assert budget.grant(100) == 30 - 2


@pytest.mark.parametrize("error", [TypeError("no such thing"), MemoryError("none left"), SystemExit("enough")])
def test_a_learner_that_raised_is_dead_and_is_not_started_again(start, error):
    def script(call):
        if call == 2:
            raise error
        return 7

    learner = Learns(script)
    beside = start.beside(learner)
    beside.embed(frames_from(0, 1))
    until(lambda: beside.version == 7)
    beside.embed(frames_from(1, 1))
    until(lambda: learner.saves)
    for turn in range(50):
        frames = frames_from(turn, 3)
        np.testing.assert_array_equal(beside.embed(frames), vectors_of(7, frames))
    told = beside.info()
    assert told["state"] == f"dead: {type(error).__name__}: {error}"
    assert (told["version"], told["queue"], learner.calls) == (7, 0, 2)
    dead = next(event for event in beside.events if event["kind"] == "dead")
    assert dead["serves"] == 7
    assert "test_beside.py" in dead["at"]
    beside.close()
    assert learner.saves == [False]  # what it has in memory may be broken
    assert beside.info()["state"].startswith("dead: ")


def test_every_vector_is_of_one_version_and_versions_never_go_back(start):
    learner = Learns(lambda call: call)
    beside = start.beside(learner)
    stop, found = threading.Event(), {name: [] for name in "ab"}

    def embeds(name, size):
        turn = 0
        while not stop.is_set():
            turn += 1
            frames = frames_from(turn, size)
            found[name].append((frames, *beside.embed_with_version(frames)))

    threads = [threading.Thread(target=embeds, args=(name, size)) for name, size in (("a", 3), ("b", 7))]
    for thread in threads:
        thread.start()
    until(lambda: beside.version > 60)
    stop.set()
    for thread in threads:
        thread.join()
    for run in found.values():
        numbers = [number for _, _, number in run]
        assert numbers == sorted(numbers)
        assert len(set(numbers)) > 5
        for frames, vectors, number in run:
            np.testing.assert_array_equal(vectors, vectors_of(number, frames))
    changes = [(event["before"], event["version"]) for event in beside.events if event["kind"] == "serves"]
    assert [before for before, _ in changes] == [0, *(version for _, version in changes)][:-1]


def test_a_version_that_takes_long_to_get_ready_is_not_waited_for(start):
    held = start.hold()
    beside = start.beside(Learns(lambda call: 1), Serves(lambda number: held.script() if number else None))
    beside.embed(frames_from(0, 1))
    held.entered.wait()
    for turn in range(300):
        frames = frames_from(turn, 2)
        np.testing.assert_array_equal(beside.embed(frames), vectors_of(0, frames))
    assert (beside.info()["version"], beside.info()["newest"]) == (0, 1)
    held.gate.set()
    until(lambda: beside.version == 1)


def test_a_version_that_cannot_be_served_is_left_out(start):
    def script(number):
        if number == 1:
            raise EngineError("no room")

    learner = Learns(lambda call: 1 if call < 3 else 2)
    beside = start.beside(learner, Serves(script))
    for turn in range(2):
        beside.embed(frames_from(turn, 1))
        until(lambda: beside.info()["learned"] == turn + 1)  # noqa: B023 (called at once)
    assert (beside.version, beside.info()["newest"], beside.info()["state"]) == (0, 1, "learning")
    beside.embed(frames_from(2, 1))
    until(lambda: beside.version == 2)
    refused = [event for event in beside.events if event["kind"] == "not_served"]  # tried once
    assert [(event["version"], event["serves"], event["error"]) for event in refused] == [
        (1, 0, "EngineError: no room")
    ]


def test_a_version_that_gives_nan_never_serves(start):
    class Broken(Serves):
        def prepare(self, served):
            version = super().prepare(served)
            if served.number == 1:
                version.embed = lambda frames: np.full((len(frames), 2), np.nan, np.float32)
            return version

    beside = start.beside(Learns(lambda call: call), Broken())
    beside.embed(frames_from(0, 1))
    until(lambda: "not_served" in kinds(beside))
    assert np.isfinite(beside.embed(frames_from(1, 1))).all()
    until(lambda: beside.version == 2)


def test_closing_stops_the_learner_and_lets_it_save(start):
    learner, serving = Learns(), Serves()
    with start.beside(learner, serving) as beside:
        beside.embed(frames_from(0, 3))
        until(lambda: beside.info()["learned"] == 3)
    beside.close()
    assert (learner.saves, serving.closed) == ([True], 1)
    assert kinds(beside) == ["open", "learned", "snapshot"]
    assert beside.info()["state"] == "stopped"
    assert len(learner.threads) == 1
    assert threading.current_thread() not in learner.threads
    with pytest.raises(EngineError, match="closed"):
        beside.embed(frames_from(0, 1))


def test_the_end_of_the_process_closes():
    script = f"""
import runpy
names = runpy.run_path({__file__!r})
class Tells(names["Learns"]):
    def close(self, *, save=True):
        print("closed", save)
beside = names["Beside"](Tells(), names["Serves"](), budget=names["unlimited"]())
beside.embed(names["frames_from"](0, 3))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "closed True", "")


def test_a_learner_that_hangs_is_left_behind(start):
    held = start.hold()
    learner, serving = Learns(held.script), Serves()
    beside = start.beside(learner, serving, close_s=0.05)
    beside.embed(frames_from(0, 1))
    held.entered.wait()
    beside.close()
    assert kinds(beside)[-1] == "abandoned"
    assert (learner.saves, beside.info()["state"]) == ([], "stopped")
    held.gate.set()
    until(lambda: learner.saves)
    assert learner.saves == [False]  # nothing is written after `close` has returned


def test_a_learner_that_cannot_save_says_so(start):
    class Full(Learns):
        def close(self, *, save=True):
            raise OSError("no space left on device")

    beside = start.beside(Full())
    beside.close()
    assert beside.events[-1]["error"] == "OSError: no space left on device"


def test_a_call_that_takes_too_long_is_told(start):
    held = start.hold()
    now = SimpleNamespace(s=0.0)
    beside = start.beside(Learns(held.script), hung_s=30.0, clock=lambda: now.s)
    assert beside.info()["last_learned_s"] is None
    beside.embed(frames_from(0, 1))
    held.entered.wait()
    now.s = 29.0
    beside.embed(frames_from(1, 1))
    assert beside.info()["state"] == "learning"
    now.s = 41.0
    beside.embed(frames_from(2, 1))
    beside.embed(frames_from(3, 1))
    assert beside.info()["state"] == "hung: 41 s in one call"
    held.gate.set()
    until(lambda: beside.info()["learned"] == 4)
    now.s = 43.0
    assert [kind for kind in kinds(beside) if kind in ("hung", "answered")] == ["hung", "answered"]
    told = beside.info()
    assert (told["state"], told["last_learned_s"], told["ms_per_frame"]) == ("learning", 2.0, 41_000 / 4)


def test_the_learner_gets_copies(start):
    held = start.hold()
    learner = Learns(held.script)
    beside = start.beside(learner)
    camera = frames_from(0, 1)
    beside.embed(camera)
    held.entered.wait()
    camera[:] = frames_from(5, 1)
    beside.embed(camera)
    camera[:] = -1
    held.gate.set()
    until(lambda: beside.info()["learned"] == 2)
    assert learner.seen == frames_from(0, 1).tolist() + frames_from(5, 1).tolist()


def test_what_the_budget_does_not_grant_is_not_kept(start):
    learner = Learns()
    beside = start.beside(learner, budget=unlimited(ms_per_frame=0.0))
    for turn in range(20):
        beside.embed(frames_from(turn, 5))
    told = beside.info()
    assert (told["embedded"], told["queue"], told["dropped"], learner.calls) == (100, 0, 0, 0)


def test_too_hot_pauses_learning_but_not_embedding(start, tmp_path):
    zone = tmp_path / "thermal_zone0" / "temp"
    zone.parent.mkdir()
    zone.write_text("82000\n")
    budget = Budget(BudgetConfig(ms_per_frame=None, poll_s=0.01), thermal=tmp_path, power=tmp_path / "none")
    learner = Learns()
    beside = start.beside(learner, budget=budget)
    until(lambda: beside.info()["state"] == "paused: too hot 82.0 C")
    frames = frames_from(0, 4)
    np.testing.assert_array_equal(beside.embed(frames), vectors_of(0, frames))
    assert (learner.calls, beside.info()["queue"]) == (0, 0)
    zone.write_text("60000\n")
    until(lambda: beside.info()["state"] == "learning")
    beside.embed(frames)
    until(lambda: beside.info()["learned"] == 4)
    told = [(event["kind"], event["temperature_c"]) for event in beside.events if "temperature_c" in event]
    assert told == [("paused", 82.0), ("resumed", 60.0)]


def test_every_event_has_a_kind_and_a_frame(start):
    def script(call):
        if call == 3:
            raise ValueError(call)
        return call

    beside = start.beside(Learns(script))
    for turn in range(3):
        beside.embed(frames_from(turn, 2))
        until(lambda: beside.info()["learned"] == 2 * turn + 2 or beside.info()["state"] != "learning")  # noqa: B023
    until(lambda: "dead" in kinds(beside))
    assert all(isinstance(event["kind"], str) and isinstance(event["frame"], int) for event in beside.events)
    assert [event["version"] for event in beside.events if event["kind"] == "serves"] == [1, 2]


def test_a_restored_version_serves_from_the_first_frame(start):
    learner = Learns()
    learner.served = Served(number=12)
    frames = frames_from(0, 2)
    vectors, number = start.beside(learner).embed_with_version(frames)
    np.testing.assert_array_equal(vectors, vectors_of(12, frames))
    assert number == 12


def test_a_refused_frame_is_not_learned_from(start):
    class Strict(Serves):
        def prepare(self, served):
            version = super().prepare(served)
            embed = version.embed

            def strict(frames):
                if np.isnan(frames).any():
                    raise InputError("NaN")
                return embed(frames)

            version.embed = strict
            return version

    beside = start.beside(Learns(), Strict())
    with pytest.raises(InputError, match="NaN"):
        beside.embed(np.full((1, 3), np.nan, np.float32))
    assert beside.info()["embedded"] == beside.info()["queue"] == 0


def test_a_queue_without_room_is_refused():
    with pytest.raises(InputError, match="waiting"):
        Beside(Learns(), Serves(), waiting=0)


@pytest.mark.skipif(
    not hasattr(Learner, "served") or "save" not in inspect.signature(Learner.close).parameters,
    reason="Learner.served and Learner.close(save=...) are not there yet",
)
def test_a_night_is_learned_beside_serving(encoder, tmp_path, scenes, start):
    learner = encoder.learner(tmp_path / "state", level="ports")
    with start.beside(learner, Serving(encoder)) as beside:
        day = scenes(8, 5)
        np.testing.assert_array_equal(beside.embed(day), encoder.embed(day))
        for turn in range(60):
            beside.embed(scenes(8, 100 + turn, 0.4))
            until(lambda: beside.info()["learned"] == 8 * (turn + 2))  # noqa: B023
        until(lambda: beside.version == beside.info()["newest"])
        night, served = scenes(8, 7, 0.4), learner.served  # nobody learns now
        vectors, number = beside.embed_with_version(night)
        assert number == served.number > 0
        with Serving(encoder) as alone:
            np.testing.assert_array_equal(vectors, alone.prepare(served).embed(night))
        assert np.abs(vectors - encoder.embed(night)).max() > 1e-3
        until(lambda: beside.info()["learned"] == 8 * 62)
    assert "snapshot" in kinds(beside)
    with encoder.learner(tmp_path / "state", level="ports") as again:
        assert again.frames == 8 * 62
