"""A status each second, signs of life while the encoder answers, and an end in good order."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from edgessl.runtimes.robot.rounds import Rounds
from edgessl.runtimes.robot.service import Service


class Systemd:
    """Keeps what it is told."""

    def __init__(self, every_s: float | None = None) -> None:
        self.every_s, self.said = every_s, []

    def say(self, **facts: str) -> None:
        self.said.append(facts)


@pytest.fixture
def statuses() -> list:
    return []


def test_a_status_is_sent_each_second(hand_encoder, clock, statuses) -> None:
    with Rounds(Service(hand_encoder), statuses.append, notifier=Systemd(), clock=clock) as rounds:
        for _ in range(31):
            rounds.turn()
            clock.now += 0.1
    assert len(statuses) == 4
    assert rounds.last["frames"]["embedded"] == 0
    assert hand_encoder.closed


def test_systemd_hears_that_it_is_ready_lives_and_stops(hand_encoder, clock, statuses) -> None:
    systemd = Systemd(every_s=5.0)
    with Rounds(Service(hand_encoder), statuses.append, notifier=systemd, clock=clock) as rounds:
        for _ in range(12):
            rounds.turn()
            clock.now += 1
    assert systemd.said == [{"READY": "1"}, *[{"WATCHDOG": "1"}] * 3, {"STOPPING": "1"}]


def test_an_encoder_that_fails_on_every_frame_gives_no_sign_of_life(hand_encoder, clock, statuses, picture) -> None:
    systemd, service = Systemd(every_s=1.0), Service(hand_encoder)
    hand_encoder.fails = True
    for _ in range(3):
        service.embed(picture)
    with Rounds(service, statuses.append, notifier=systemd, clock=clock) as rounds:
        rounds.turn()
        assert {"WATCHDOG": "1"} not in systemd.said
        hand_encoder.fails = False
        service.embed(picture)
        rounds.turn()
        assert {"WATCHDOG": "1"} in systemd.said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_round_and_a_second_one_would_end_the_process(hand_encoder, statuses, number) -> None:
    before = signal.getsignal(number)
    with Rounds(Service(hand_encoder), statuses.append, notifier=Systemd()) as rounds:
        assert not rounds.stopping
        os.kill(os.getpid(), number)
        assert rounds.stopping
        assert signal.getsignal(number) == signal.SIG_DFL
    assert signal.getsignal(number) == before


def test_an_error_in_the_transport_still_closes_the_service(hand_encoder, statuses) -> None:
    with pytest.raises(OSError, match="gone"), Rounds(Service(hand_encoder), statuses.append, notifier=Systemd()):
        raise OSError("the transport is gone")
    assert hand_encoder.closed


def test_a_sensor_that_raises_ends_nothing(hand_encoder, statuses, monkeypatch) -> None:
    service = Service(hand_encoder)
    looked = []

    def look() -> None:
        looked.append(1)
        raise OSError("the driver is gone")

    monkeypatch.setattr(service, "look", look)
    monkeypatch.setattr("edgessl.runtimes.robot.rounds._EVERY_S", 0.01)
    with Rounds(service, statuses.append, notifier=Systemd()) as rounds:
        while len(looked) < 3:
            rounds.turn()
        assert service.embed(np.zeros((4, 6, 3), np.uint8)).outcome == "embedded"
