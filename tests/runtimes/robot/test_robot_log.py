"""One JSON object a line on stderr, and what systemd is told."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
from datetime import datetime, timezone

import pytest

from edgessl.errors import InputError
from edgessl.runtimes.robot.log import start_log
from edgessl.runtimes.robot.systemd import Notifier


@pytest.fixture
def lines():
    """Start the log at a level; gives what reads it."""
    stream = io.StringIO()

    def start(level: str):
        start_log(level, stream)
        return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]

    return start


def test_a_record_is_a_line_of_json_with_its_facts(lines) -> None:
    said = lines("info")
    logging.getLogger("edgessl.node").warning("shed", extra={"facts": {"level": 1, "why": "ä\nb"}})
    (line,) = said()
    assert {key: line[key] for key in ("level", "logger", "event", "facts")} == {
        "level": "warning",
        "logger": "edgessl.node",
        "event": "shed",
        "facts": {"level": 1, "why": "ä\nb"},
    }
    assert abs((datetime.now(timezone.utc) - datetime.fromisoformat(line["time"])).total_seconds()) < 60


def test_what_is_below_the_level_is_not_said(lines) -> None:
    said = lines("warning")
    logging.getLogger("edgessl.node").info("status")
    assert said() == []


def test_starting_twice_says_nothing_twice(lines) -> None:
    lines("info")
    said = lines("info")
    logging.getLogger("edgessl.node").info("once")
    assert len(said()) == 1


def test_a_traceback_stays_in_its_line(lines) -> None:
    said = lines("info")
    try:
        raise ValueError("wrong")
    except ValueError:
        logging.getLogger("edgessl.node").exception("look")
    assert "ValueError: wrong" in said()[0]["facts"]["traceback"]


@pytest.fixture
def manager(tmp_path):
    """systemd's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(2)
        yield end, {"NOTIFY_SOCKET": str(tmp_path / "notify")}


def test_systemd_is_told_in_its_own_words(manager) -> None:
    end, environment = manager
    Notifier(environment).say(READY="1", STATUS="embedding")
    assert end.recv(100) == b"READY=1\nSTATUS=embedding"


def test_an_abstract_address_is_understood() -> None:
    name = f"edgessl-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(f"\0{name}")
        end.settimeout(2)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).say(WATCHDOG="1")
        assert end.recv(100) == b"WATCHDOG=1"


def test_a_sign_of_life_is_due_at_half_of_what_systemd_allows(manager) -> None:
    environment = manager[1]
    assert Notifier(environment | {"WATCHDOG_USEC": "20000000"}).every_s == 10.0
    assert Notifier(environment).every_s is None
    assert Notifier(environment | {"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}).every_s is None  # another's
    assert Notifier({"WATCHDOG_USEC": "20000000"}).every_s is None


def test_without_systemd_or_without_its_socket_nothing_happens(tmp_path) -> None:
    Notifier({}).say(READY="1")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).say(READY="1")


def test_a_watchdog_that_is_no_number_is_named(manager) -> None:
    with pytest.raises(InputError, match="soon"):
        Notifier(manager[1] | {"WATCHDOG_USEC": "soon"})
