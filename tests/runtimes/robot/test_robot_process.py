"""A node as the robot has it: a process that is told to end, that shares a disk, and that is fed damaged frames."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import suppress

import numpy as np
import pytest

from edgessl.runtimes.adapt.snapshots import list_snapshots

pytest.importorskip("zenoh", reason="pip install 'edgessl[zenoh]'")
pytestmark = pytest.mark.slow


@pytest.fixture
def pipe():
    """A standard input, and the end to write to; closed at the end."""
    reads, writes = os.pipe()
    yield reads, writes
    os.close(reads)
    with suppress(OSError):  # the test closed it
        os.close(writes)


@pytest.fixture
def node(tiny, tmp_path, started):
    """Start a Zenoh node that learns, and listens where nobody calls."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port = asked.getsockname()[1]

    def start(stdin, *words, state="state", **more):
        return started(
            "node", "zenoh", tiny, "--source", "-", "--listen", port, "--state", tmp_path / state, "--json", "--max-age", 0,
            *words, stdin=stdin, **more,
        )  # fmt: skip

    return start


def statuses(process) -> dict:
    """The status that the process printed at its end."""
    out, talk = process.communicate(timeout=60)
    assert process.returncode == 0, talk
    return json.loads(out) | {"talk": talk}


def test_sigterm_writes_the_state_and_ends_with_0(node, pipe, heard, scenes, tmp_path) -> None:
    process = node(pipe[0], "--log", "debug")
    heard(process, '"ready"')
    learned = 0
    while not learned:  # a learner has its frames when it says so
        os.write(pipe[1], scenes(8, seed=1).tobytes())
        learned = json.loads(heard(process, '"status"'))["facts"]["learned"]
    process.send_signal(signal.SIGTERM)
    status = statuses(process)
    assert status["frames"]["embedded"] >= learned
    assert list_snapshots(tmp_path / "state")[0].frames >= learned
    assert '"stopped"' in status["talk"]


def test_the_end_of_its_source_is_the_end_of_a_node(node, pipe, heard, scenes) -> None:
    process = node(pipe[0])
    heard(process, '"ready"')
    os.write(pipe[1], scenes(5, seed=1).tobytes())
    os.close(pipe[1])
    assert statuses(process)["frames"]["embedded"] == 5


def test_two_nodes_on_one_state_embed_both_and_one_of_them_learns(
    node, pipe, heard, scenes, started, tiny, tmp_path
) -> None:
    first = node(pipe[0])
    heard(first, '"ready"')
    frames = tmp_path / "frames.npz"
    np.savez(frames, x=scenes(6, seed=1))
    second = started(
        "node", "zenoh", tiny, "--source", frames, "--connect", "tcp/127.0.0.1:9", "--state", tmp_path / "state", "--json"
    )  # fmt: skip
    status = statuses(second)
    assert status["frames"]["embedded"] == 6
    assert "in use by another process" in status["learning"]
    assert status["health"].startswith("learning off: ")
    os.write(pipe[1], scenes(3, seed=2).tobytes())
    os.close(pipe[1])
    status = statuses(first)
    assert status["frames"]["embedded"] == 3
    assert status["learning"] == "learning"


def test_systemd_is_told_and_metrics_are_not_asked_for(node, pipe, heard, tmp_path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        process = node(pipe[0], NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000")
        assert manager.recv(100) == b"READY=1"
        assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        process.send_signal(signal.SIGTERM)
        while (said := manager.recv(100)) == b"WATCHDOG=1":
            continue
        assert said == b"STOPPING=1"
        statuses(process)


@pytest.mark.parametrize("wrong", [["--metrics", "0.0.0.0"]])
def test_a_parameter_that_cannot_be_ends_it_before_anything_is_opened(node, pipe, wrong) -> None:
    process = node(pipe[0], *wrong)
    out, talk = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert talk.startswith("error: ")
    assert wrong[1] in talk
