"""Nothing listens on a network socket unless it was asked to, and then on loopback: seen from the kernel's tables."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest

pytest.importorskip("zenoh", reason="pip install 'edgessl[zenoh]'")
pytest.importorskip("prometheus_client", reason="pip install 'edgessl[metrics]'")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc/net of Linux"),
]
_LISTEN = "0A"


def inodes(pid: int) -> set[str]:
    """Sockets that a process holds."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:  # closed meanwhile
            continue
        if match := re.fullmatch(r"socket:\[(\d+)\]", target):
            found.add(match[1])
    return found


def listening(pid: int) -> list[tuple[str, int]]:
    """Address and port of every socket of a process that others can reach: TCP that listens, UDP that is bound."""
    held, found = inodes(pid), []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            if fields[9] in held and (table.startswith("udp") or fields[3] == _LISTEN):
                found.append((address_of(address), int(port, 16)))
    return found


def address_of(text: str) -> str:
    """The kernel's hexadecimal words -> an address."""
    words = bytes.fromhex(text)
    raw = b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def wait_until(true, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while not true() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert true(), process.communicate()[1]


@pytest.fixture
def pipe():
    """A standard input that stays open until the test is over."""
    reads, writes = os.pipe()
    yield reads
    os.close(writes)
    os.close(reads)


@pytest.fixture
def router():
    """Where a node may connect to, and never learns more than that somebody is there."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        yield f"tcp/127.0.0.1:{door.getsockname()[1]}"


def test_the_test_sees_a_socket_that_listens_and_one_that_is_bound() -> None:
    before = listening(os.getpid())
    with (
        socket.socket() as door,
        socket.socket(socket.AF_INET6) as other,
        socket.socket(type=socket.SOCK_DGRAM) as post,
    ):
        door.bind(("127.0.0.1", 0))
        door.listen()
        other.bind(("::1", 0))
        other.listen()
        post.bind(("127.0.0.1", 0))
        wanted = [
            ("127.0.0.1", door.getsockname()[1]),
            ("::1", other.getsockname()[1]),
            ("127.0.0.1", post.getsockname()[1]),
        ]
        assert sorted(set(listening(os.getpid())) - set(before)) == sorted(wanted)


def test_a_node_without_metrics_listens_nowhere(tiny, pipe, router, started, heard, tmp_path) -> None:
    process = started(
        "node", "zenoh", tiny, "--source", "-", "--connect", router, "--state", tmp_path / "state",
        "--rerun", tmp_path / "out.rrd", stdin=pipe,
    )  # fmt: skip
    heard(process, '"ready"')
    assert listening(process.pid) == []
    assert len(inodes(process.pid)) >= 1  # it holds the one that it connects with


def test_with_metrics_it_listens_once_and_on_loopback(tiny, pipe, router, started, heard) -> None:
    process = started("node", "zenoh", tiny, "--source", "-", "--connect", router, stdin=pipe, EDGESSL_METRICS="0")
    url = json.loads(heard(process, '"metrics"'))["facts"]["url"]
    heard(process, '"ready"')
    ((address, port),) = listening(process.pid)
    assert address == "127.0.0.1"
    assert url == f"http://127.0.0.1:{port}/metrics"
    with urlopen(url, timeout=5) as answer:
        assert b"edgessl_frames_total" in answer.read()


def test_an_address_that_is_typed_in_full_is_listened_on(tiny, pipe, router, started, heard) -> None:
    process = started("node", "zenoh", tiny, "--source", "-", "--connect", router, "--metrics", "[::1]:0", stdin=pipe)
    heard(process, '"ready"')
    assert [address for address, _ in listening(process.pid)] == ["::1"]


def test_a_zenoh_node_that_is_to_listen_does_so_on_loopback(tiny, pipe, started, heard) -> None:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port = asked.getsockname()[1]
    process = started("node", "zenoh", tiny, "--source", "-", "--listen", port, stdin=pipe)
    heard(process, '"ready"')
    assert listening(process.pid) == [("127.0.0.1", port)]


#: runs a command, and waits where it would print what it found
HELD = """
import sys
from edgessl.cli import sinking
from edgessl.cli.main import main
sinking.result = lambda *told, **more: print("busy", flush=True) or sys.stdin.read()
main()
"""


@pytest.mark.parametrize("command", ["embed", "adapt"])
def test_embedding_and_adapting_listen_nowhere(tiny, command, tmp_path, environment) -> None:
    """The command, seen from inside when its work is over: what it opened would still be there."""
    np.savez(tmp_path / "frames.npz", x=np.zeros((5, 12, 10, 3), np.uint8))
    words = [command, str(tiny), str(tmp_path / "frames.npz"), "-o", str(tmp_path / "v.npz")]
    words += ["--state", str(tmp_path / "state")] if command == "adapt" else []
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, *words], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        assert listening(process.pid) == []
        assert (tmp_path / "v.npz").exists()
    finally:
        process.kill()
        process.communicate()
