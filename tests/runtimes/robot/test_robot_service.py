"""A frame in, an answer out; what is wrong with a frame, an engine or a clock is counted and said, and ends nothing."""

from __future__ import annotations

import logging
import math
from enum import IntEnum

import numpy as np
import pytest

from edgessl.runtimes.robot.learning import Learning
from edgessl.runtimes.robot.service import Service


class Shed(IntEnum):
    NONE = 0
    ADAPTATION = 1
    RATE = 2


class Board:
    """Sensors that somebody else moves."""

    shed, why = Shed.NONE, "cpu 91.0 C"

    def look(self) -> Shed:
        return self.shed


class Notes:
    """An observer that keeps what it is told."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.frames, self.statuses, self.breaks, self.closed = [], [], breaks, 0

    def frame(self, frame, answer) -> None:
        if self.breaks:
            raise OSError(28, "No space left on device")
        self.frames.append((frame, answer))

    def status(self, status) -> None:
        self.statuses.append(status)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def heard(caplog):
    caplog.set_level(logging.DEBUG, "edgessl.node")
    return caplog


def outcomes(service: Service) -> dict[str, int]:
    return {name: count for name, count in service.status()["frames"].items() if count}


def test_an_embedded_frame_has_a_vector_and_its_age(hand_encoder, picture, clock) -> None:
    answer = Service(hand_encoder, wall=clock, clock=clock).embed(picture, stamp_s=clock.now - 0.04)
    np.testing.assert_array_equal(answer.vector, np.ones(3, np.float32))
    assert (answer.outcome, answer.version, answer.space_id, answer.health) == ("embedded", 0, "hand-3", "ok")
    assert answer.age_s == pytest.approx(0.04)
    assert math.isnan(answer.drift)


def test_the_age_counts_up_to_the_answer(hand_encoder, picture, clock) -> None:
    service = Service(hand_encoder, wall=clock, clock=clock)
    inner = hand_encoder.embed

    def slow(frames):
        clock.now += 0.5
        return inner(frames)

    hand_encoder.embed = slow
    answer = service.embed(picture, stamp_s=clock.now)
    assert (answer.age_s, answer.took_s) == (0.5, 0.5)


def test_a_stale_frame_is_dropped_before_it_is_decoded(hand_encoder, clock) -> None:
    service = Service(hand_encoder, max_age=0.05, wall=clock, clock=clock)
    answer = service.embed(lambda: pytest.fail("it was decoded"), stamp_s=clock.now - 0.0501)
    assert (answer.outcome, answer.vector, hand_encoder.calls) == ("stale", None, 0)
    assert "0.050 s old" in answer.reason
    assert outcomes(service) == {"stale": 1}


def test_a_frame_of_just_the_age_is_embedded(hand_encoder, picture, clock) -> None:
    service = Service(hand_encoder, max_age=0.5, wall=clock, clock=clock)
    assert service.embed(picture, stamp_s=clock.now - 0.5).outcome == "embedded"
    assert service.embed(picture).outcome == "embedded"  # without a stamp nothing is known of its age


def test_a_clock_that_jumps_ends_nothing_and_is_said_once(hand_encoder, picture, clock, heard) -> None:
    service = Service(hand_encoder, max_age=0.5, wall=clock, clock=clock)
    stamp_s = clock.now
    clock.now -= 3600  # backwards: the frames come from the future
    assert [service.embed(picture, stamp_s).outcome for _ in range(3)] == ["embedded"] * 3
    assert [record.message for record in heard.records].count("clock") == 1
    clock.now += 7200  # forwards: those in flight are an hour old, those behind them are not
    assert service.embed(picture, stamp_s).outcome == "stale"
    assert service.embed(picture, clock.now).outcome == "embedded"


def test_a_second_of_nothing_but_stale_frames_is_said(hand_encoder, picture, clock, heard) -> None:
    service = Service(hand_encoder, max_age=0.5, wall=clock, clock=clock)
    said = []
    for stamp_s in (1.0, 1.0, clock.now, 1.0):
        service.embed(picture, stamp_s)
        service.status()
        said.append([record.message for record in heard.records].count("every frame is stale"))
    assert said == [1, 1, 1, 2]  # once, and once more after frames came through


def test_the_rate_is_a_limit_and_the_newest_frames_win(hand_encoder, picture, clock) -> None:
    service = Service(hand_encoder, rate=10, wall=clock, clock=clock)
    times = []
    for tick in range(300):  # 30 Hz for 10 s
        clock.now = 1000 + tick / 30
        if service.embed(picture).outcome == "embedded":
            times.append(clock.now)
    assert 99 <= len(times) <= 101
    assert outcomes(service) == {"embedded": len(times), "skipped": 300 - len(times)}


def test_after_a_pause_no_burst_makes_up_for_it(hand_encoder, picture, clock) -> None:
    service = Service(hand_encoder, rate=10, wall=clock, clock=clock)
    service.embed(picture)
    clock.now += 60
    assert [service.embed(picture).outcome for _ in range(3)] == ["embedded", "skipped", "skipped"]


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 6), np.uint8),
        np.zeros((6, 4, 3), np.uint8),
        np.zeros((4, 6, 3), np.float32),
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((4, 6, 4), np.uint8),
    ],
)
def test_an_unusable_frame_is_answered_by_its_reason(hand_encoder, picture, wrong) -> None:
    service = Service(hand_encoder)
    answer = service.embed(wrong)
    assert (answer.outcome, answer.vector) == ("unusable", None)
    assert str(wrong.dtype) in answer.reason
    assert service.embed(picture).outcome == "embedded"
    assert outcomes(service) == {"unusable": 1, "embedded": 1}


def test_a_failing_engine_is_an_answer_and_no_sign_of_life(hand_encoder, picture) -> None:
    service = Service(hand_encoder)
    hand_encoder.fails = True
    answers = [service.embed(picture) for _ in range(3)]
    assert [answer.outcome for answer in answers] == ["failed"] * 3
    assert answers[-1].reason == "the engine is gone"
    assert not service.alive
    assert service.status()["health"] == "engine failed"
    hand_encoder.fails = False
    assert service.embed(picture).outcome == "embedded"
    assert service.alive


def test_a_vector_that_is_not_finite_never_leaves(hand_encoder, picture) -> None:
    hand_encoder.value = np.nan
    answer = Service(hand_encoder).embed(picture)
    assert (answer.outcome, answer.vector) == ("failed", None)


@pytest.mark.parametrize("error", [MemoryError("no room"), ZeroDivisionError("a bug")])
def test_no_exception_of_any_kind_ends_the_node(hand_encoder, picture, error) -> None:
    def frame() -> np.ndarray:
        raise error

    service = Service(hand_encoder)
    answer = service.embed(frame)
    assert (answer.outcome, answer.reason) == ("failed", f"{type(error).__name__}: {error}")
    assert service.embed(picture).outcome == "embedded"


def test_what_the_watchdog_says_is_the_health(hand_encoder, picture) -> None:
    state = {"state": "fallback", "restarts": 3, "engine": "onnxruntime", "precision": "fp32", "last_error": "hung"}
    hand_encoder.health = lambda: state
    service = Service(hand_encoder)
    assert service.embed(picture).health == "fallback"
    assert service.status()["restarts"] == 3
    assert service.alive
    state["state"] = "failed"
    assert not service.alive


def test_a_flood_of_bad_frames_is_logged_once(hand_encoder, picture, heard) -> None:
    service = Service(hand_encoder)
    for _ in range(30):
        service.embed(np.zeros(3))
    service.embed(picture)
    service.embed(np.zeros(3))
    assert [record.message for record in heard.records].count("unusable") == 2


def test_under_pressure_adaptation_goes_first_then_every_second_frame_never_embedding(
    hand_encoder, pupil, picture, clock, heard
) -> None:
    board = Board()
    learning = Learning(lambda budget: pupil)
    service = Service(hand_encoder, learning, pressure=board, wall=clock, clock=clock)
    service.look()
    assert not learning.budget.paused
    board.shed = Shed.ADAPTATION
    service.look()
    assert learning.budget.paused
    assert heard.records[-1].facts == {"before": "nothing", "now": "adaptation", "why": "cpu 91.0 C"}
    assert [service.embed(picture).outcome for _ in range(4)] == ["embedded"] * 4
    board.shed = Shed.RATE
    service.look()
    assert service.status()["shed"] == "rate"
    seen = []
    for _ in range(6):
        clock.now += 1 / 30
        seen.append(service.embed(picture).outcome)
    assert seen.count("embedded") == 3
    board.shed = Shed.NONE
    service.look()
    assert not learning.budget.paused
    assert service.embed(picture).outcome == "embedded"


def test_an_adapting_encoder_gives_version_and_drift(hand_encoder, pupil, picture) -> None:
    answer = Service(hand_encoder, Learning(lambda budget: pupil)).embed(picture)
    assert (answer.vector[0], answer.version) == (2.0, 5)
    assert answer.drift == pytest.approx(3.0 / (2.0 * 0.5))  # the score in alarms, and an alarm is two thresholds


def test_where_the_adapting_encoder_fails_the_factorys_embeds(hand_encoder, pupil, picture) -> None:
    service = Service(hand_encoder, Learning(lambda budget: pupil))
    pupil.fails = True
    answer = service.embed(picture)
    assert (answer.outcome, answer.vector[0], answer.version) == ("embedded", 1.0, 0)


def test_an_observer_that_breaks_costs_no_vector_and_is_told_no_more(hand_encoder, picture, heard) -> None:
    broken, sound = Notes(breaks=True), Notes()
    service = Service(hand_encoder, observers=[broken, sound])
    assert [service.embed(picture).outcome for _ in range(2)] == ["embedded"] * 2
    assert len(sound.frames) == 2
    assert [record.message for record in heard.records].count("observer_lost") == 1


def test_closing_closes_everything_once(hand_encoder, pupil) -> None:
    notes = Notes()
    service = Service(hand_encoder, Learning(lambda budget: pupil), observers=[notes])
    service.close()
    service.close()
    assert (hand_encoder.closed, pupil.closed, notes.closed) == (True, 1, 1)


def test_a_status_is_plain_json(hand_encoder, pupil, picture) -> None:
    import json

    service = Service(hand_encoder, Learning(lambda budget: pupil), temperature=lambda: 61.5)
    service.embed(picture)
    service.look()
    status = json.loads(json.dumps(service.status(), allow_nan=False))
    assert status["temperature_c"] == 61.5
    assert status["frames"]["embedded"] == 1
    assert status["engine"] == {"state": "ok", "restarts": 0, "engine": "hand", "precision": "fp32"}
