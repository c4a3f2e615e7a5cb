"""Adaptation may be missing, held by another, read-only or broken; the robot has its vectors and is told why."""

from __future__ import annotations

import errno
import json
import logging
import math
from itertools import cycle
from pathlib import Path
from threading import Event, Thread
from time import sleep

import numpy as np
import pytest

import edgessl
from edgessl.errors import EngineError, StateError
from edgessl.manifest import signed
from edgessl.runtimes.adapt.beside import Beside
from edgessl.runtimes.adapt.budget import Budget
from edgessl.runtimes.adapt.snapshots import list_snapshots
from edgessl.runtimes.robot.adapting import Adapting
from edgessl.runtimes.robot.learning import Learning
from edgessl.runtimes.robot.opening import open_service
from edgessl.runtimes.robot.parameters import Parameters

BATCH = np.zeros((1, 4, 6, 3), np.uint8)


@pytest.fixture
def heard(caplog):
    caplog.set_level(logging.DEBUG, "edgessl.node")
    return caplog


def rewrite(bundle: Path, **changes: object) -> None:
    """The same bundle with other facts, as another export would write it."""
    file = bundle / "manifest.json"
    file.write_text(json.dumps(signed(json.loads(file.read_text()) | changes)))


def service_of(bundle: Path, state: Path, **more):
    return open_service(Parameters(bundle=bundle, state=state, **more))


def test_a_node_learns_and_closing_writes_its_state(tiny, tmp_path, scenes) -> None:
    with service_of(tiny, tmp_path / "state") as service:
        for frame in cycle(scenes(40, seed=2)):
            assert service.embed(frame).outcome == "embedded"
            if service.status()["learned"]:
                break
        assert service.status()["level"] == "ports"
    assert list_snapshots(tmp_path / "state")[0].frames >= 1


def test_the_factorys_version_gives_the_vectors_of_the_encoder(tiny, tmp_path, scenes) -> None:
    frames = scenes(5, seed=2)
    with edgessl.open(tiny) as encoder, service_of(tiny, tmp_path / "state") as service:
        np.testing.assert_allclose([service.embed(frame).vector for frame in frames], encoder.embed(frames), atol=1e-6)


def test_two_processes_on_one_state_the_second_embeds_and_says_so(tiny, tmp_path, scenes, heard) -> None:
    state = tmp_path / "state"
    # The lock is flock's, which is between two open files as it is between two processes.
    with edgessl.open(tiny) as encoder, encoder.learner(state), service_of(tiny, state) as second:
        answer = second.embed(scenes(1, seed=2)[0])
        assert (answer.outcome, answer.version) == ("embedded", 0)
        assert "in use by another process" in answer.health
        assert second.status()["learning"].startswith("off: ")
        assert second.alive
    assert [record.message for record in heard.records].count("learning_off") == 1


def test_the_second_takes_over_when_the_first_has_ended(tiny, tmp_path, scenes, clock) -> None:
    def opened(budget):
        encoder = edgessl.open(tiny)
        try:
            return Adapting(encoder, encoder.adapting(tmp_path / "state", budget=budget))
        except BaseException:
            encoder.close()
            raise

    with edgessl.open(tiny) as encoder, encoder.learner(tmp_path / "state"):
        second = Learning(opened, clock=clock)
        clock.now += 11
        second.look(held=False)
        assert "in use" in second.trouble
    clock.now += 21
    second.look(held=False)
    assert second.trouble == ""
    assert second.embed(scenes(1, seed=2))[0] is not None
    second.close()


def test_a_state_on_a_read_only_disk_embeds_on_and_says_so(tiny, tmp_path, scenes, monkeypatch) -> None:
    (tmp_path / "state").mkdir()
    opens = Path.open

    def read_only(self: Path, mode: str = "r", *args, **more):
        if self.parent == tmp_path / "state" and mode != "rb":
            raise OSError(errno.EROFS, "Read-only file system", str(self))
        return opens(self, mode, *args, **more)

    monkeypatch.setattr(Path, "open", read_only)
    with service_of(tiny, tmp_path / "state") as service:
        answer = service.embed(scenes(1, seed=2)[0])
    assert answer.outcome == "embedded"
    assert "Read-only file system" in answer.health


def test_a_state_of_another_bundle_embeds_on_and_is_left_alone(tiny, own, tmp_path, scenes) -> None:
    with edgessl.open(tiny) as encoder, encoder.learner(tmp_path / "state") as learner:
        learner.observe(scenes(1, seed=2))
    before = {file.name: file.read_bytes() for file in (tmp_path / "state").glob("*.safetensors")}
    rewrite(own, name="other")
    with service_of(own, tmp_path / "state") as service:
        assert "another bundle" in service.embed(scenes(1, seed=2)[0]).health
    assert before
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "state").glob("*.safetensors")}


def test_what_can_never_adapt_is_refused_before_the_first_frame(own, tmp_path) -> None:
    rewrite(own, adaptable=False)
    with pytest.raises(edgessl.EdgeSSLError, match="only embeds"):
        service_of(own, tmp_path / "state")


def test_it_is_tried_again_later_and_later(clock, pupil, heard) -> None:
    tries: list[float] = []

    def opened(budget):
        tries.append(clock.now)
        if len(tries) < 4:
            raise StateError("in use by another process")
        return pupil

    learning = Learning(opened, clock=clock)
    assert learning.embed(BATCH) == (None, 0)
    assert learning.trouble == "learning off: in use by another process"
    for _ in range(100):
        clock.now += 1
        learning.look(held=False)
    assert [round(at - tries[0]) for at in tries] == [0, 10, 30, 70]
    assert learning.trouble == ""
    assert learning.embed(BATCH)[1] == pupil.version
    assert [record.message for record in heard.records].count("learning_off") == 1  # not a line for every try


def test_the_pauses_end_at_ten_minutes(clock) -> None:
    tries: list[float] = []

    def opened(budget):
        tries.append(clock.now)
        raise StateError("in use")

    learning = Learning(opened, clock=clock)
    for _ in range(5000):
        clock.now += 1
        learning.look(held=False)
    assert max(np.diff(tries)) == 600


def test_an_adapting_encoder_that_fails_on_and_on_is_opened_again(clock, pupil) -> None:
    opened = []
    learning = Learning(lambda budget: opened.append(budget) or pupil, clock=clock)
    pupil.fails = True
    assert [learning.embed(BATCH)[0] for _ in range(3)] == [None] * 3
    learning.look(held=False)
    assert pupil.closed == 1
    assert learning.state == "off: a graph is gone"
    pupil.fails = False
    clock.now += 11
    learning.look(held=False)
    assert len(opened) == 2
    assert learning.embed(BATCH)[1] == pupil.version


@pytest.mark.parametrize("error", [RuntimeError("no memory for a buffer"), MemoryError()])
def test_any_failure_of_what_adapts_leaves_the_frame_to_the_factorys_encoder(pupil, error) -> None:
    def fails(frames):
        raise error

    pupil.embed_with_version = fails
    learning = Learning(lambda budget: pupil)
    assert learning.embed(BATCH) == (None, 0)
    assert [learning.embed(BATCH)[0] for _ in range(2)] == [None] * 2
    assert learning.state == f"off: {error!r}"


def test_any_failure_to_open_again_is_told_and_not_tried_every_second(clock, pupil) -> None:
    tries = []

    def opens(budget):
        tries.append(clock.now)
        if len(tries) > 1:
            raise ValueError("a driver has another opinion")
        return pupil

    learning = Learning(opens, clock=clock)
    pupil.fails = True
    assert [learning.embed(BATCH)[0] for _ in range(3)] == [None] * 3
    learning.look(held=False)
    clock.now += 11
    with pytest.raises(ValueError, match="another opinion"):
        learning.look(held=False)
    assert "another opinion" in learning.trouble
    clock.now += 5
    learning.look(held=False)
    assert len(tries) == 2


def test_vectors_that_are_not_finite_are_not_served(pupil) -> None:
    pupil.embed_with_version = lambda frames: (np.full((1, 3), np.inf, np.float32), 7)
    learning = Learning(lambda budget: pupil)
    assert learning.embed(BATCH) == (None, 0)


def test_a_dead_or_hung_learner_is_trouble_and_a_pause_is_none(pupil) -> None:
    learning = Learning(lambda budget: pupil)
    said = {}
    for pupil.state in ("learning", "behind", "paused: too hot 80.0 C", "hung: 31 s in one call", "dead: OSError: x"):
        said[pupil.state.partition(":")[0]] = bool(learning.trouble)
    assert said == {"learning": False, "behind": False, "paused": False, "hung": True, "dead": True}


def test_drift_is_not_told_before_the_first_block(pupil) -> None:
    pupil.learner |= {"frames": 31}
    assert math.isnan(Learning(lambda budget: pupil).drift)


def test_every_event_of_the_learner_is_logged_once(pupil, heard) -> None:
    learning = Learning(lambda budget: pupil)
    pupil.events = [{"kind": "open"}, {"kind": "snapshot_failed", "error": "disk full"}]
    learning.look(held=False)
    pupil.events = [*pupil.events[1:], {"kind": "serves"}]  # the oldest was let go
    learning.look(held=False)
    learning.look(held=False)
    told = [(record.facts["kind"], record.levelname) for record in heard.records if record.message == "learner"]
    assert told == [("open", "INFO"), ("snapshot_failed", "ERROR"), ("serves", "INFO")]


def test_closing_twice_is_allowed_and_nothing_is_opened_after_it(clock, pupil) -> None:
    opened = []
    learning = Learning(lambda budget: opened.append(1) or pupil, clock=clock)
    learning.close()
    learning.close()
    clock.now += 1000
    learning.look(held=False)
    assert (pupil.closed, len(opened)) == (1, 1)


def test_what_is_off_stays_off_after_closing(clock) -> None:
    tries = []

    def opened(budget):
        tries.append(1)
        raise StateError("in use")

    learning = Learning(opened, clock=clock)
    learning.close()
    clock.now += 1000
    learning.look(held=False)
    assert len(tries) == 1


def test_closing_waits_for_a_run_that_is_under_way(tiny) -> None:
    begun, order = Event(), []

    class Slow:
        def embed_with_version(self, frames: np.ndarray) -> tuple[np.ndarray, int]:
            begun.set()
            sleep(0.1)
            order.append("embedded")
            return frames, 1

        def close(self) -> None:
            order.append("closed")

    with edgessl.open(tiny) as encoder:
        adapting = Adapting(encoder, Slow())
        asking = Thread(target=adapting.embed_with_version, args=(BATCH,))
        asking.start()
        begun.wait()
        adapting.close()
        asking.join()
    assert order == ["embedded", "closed"]


def test_a_held_budget_grants_nothing_says_why_and_lets_go() -> None:
    budget = Budget()
    assert budget.grant(1) == 1
    budget.hold("the board is hot")
    assert (budget.grant(5), budget.take_step()) == (0, False)
    assert budget.paused == budget.info()["paused"] == "the board is hot"
    budget.hold("")
    assert budget.take_step()
    assert budget.paused == ""


def test_a_held_budget_stops_the_real_learner(tiny, tmp_path, scenes) -> None:
    budget = Budget()
    budget.hold("the board is hot")
    with edgessl.open(tiny) as encoder:
        live: Beside = encoder.adapting(tmp_path / "state", budget=budget)
        live.embed(scenes(40, seed=2))
        info = live.info()
        live.close()
    assert (info["learned"], info["queue"], info["state"]) == (0, 0, "paused: the board is hot")


def test_an_error_that_is_none_of_ours_is_not_hidden() -> None:
    def opened(budget):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Learning(opened)


def test_an_engine_that_cannot_open_the_adapting_encoder_is_trouble_only() -> None:
    def opened(budget):
        raise EngineError("no memory")

    assert Learning(opened).trouble == "learning off: no memory"


def test_an_adapting_encoder_that_hangs_is_left_and_the_next_frame_does_not_wait(tiny, tmp_path, scenes) -> None:
    encoder = edgessl.open(tiny)
    beside = encoder.adapting(tmp_path / "state")
    goes_on, asked = Event(), []

    class Hung:
        events, info, close = beside.events, beside.info, beside.close

        def embed_with_version(self, frames: np.ndarray) -> tuple[np.ndarray, int]:
            asked.append(1)
            goes_on.wait()
            return beside.embed_with_version(frames)

    learning = Learning(lambda budget: Adapting(encoder, Hung(), timeout_s=0.05))
    batch = scenes(1, seed=2)
    assert learning.embed(batch) == (None, 0)
    assert learning.trouble == "learning off: a run took longer than 0.05 s"
    assert learning.embed(batch) == (None, 0)
    assert len(asked) == 1
    goes_on.set()
    learning.close()


def test_an_adapting_encoder_answers_through_its_deadline(tiny, tmp_path, scenes) -> None:
    batch = scenes(1, seed=2)
    encoder = edgessl.open(tiny)
    wanted = encoder.embed(batch)
    learning = Learning(lambda budget: Adapting(encoder, encoder.adapting(tmp_path / "state", budget=budget)))
    vectors, version = learning.embed(batch)
    learning.close()
    np.testing.assert_allclose(vectors, wanted, atol=1e-6)
    assert version == 0
