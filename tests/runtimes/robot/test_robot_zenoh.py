"""Vectors go where the node was told to send them, over a loopback endpoint of the test's own."""

from __future__ import annotations

import json
import socket
import time
from types import SimpleNamespace

import numpy as np
import pytest

from edgessl.errors import InputError
from edgessl.runtimes.robot.feed import feed
from edgessl.runtimes.robot.service import Service
from edgessl.runtimes.robot.systemd import Notifier
from edgessl.signals import image_spec
from edgessl.sources.arrays import ArraySource

zenoh = pytest.importorskip("zenoh", reason="pip install 'edgessl[zenoh]'")
robot = pytest.importorskip("edgessl.runtimes.robot.zenoh", reason="pip install 'edgessl[zenoh]'")


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]


@pytest.fixture
def other():
    """Another peer, which listens on loopback and keeps what it hears: endpoint, and (key, payload, attachment)."""
    port, heard = free_port(), []
    with zenoh.open(robot.session_config([], [robot.endpoint(str(port))], multicast=False)) as session:
        session.declare_subscriber(
            "robot7/**",
            lambda sample: heard.append(
                (
                    str(sample.key_expr),
                    sample.payload.to_bytes(),
                    json.loads(sample.attachment.to_bytes()) if sample.attachment else None,
                    str(sample.encoding),
                )
            ),
        )
        yield f"tcp/127.0.0.1:{port}", heard


def wait_for(true) -> None:
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()


def test_vectors_errors_and_status_arrive_with_what_belongs_to_them(hand_encoder, picture, other) -> None:
    where, heard = other
    given = [("a.png", None, picture), None, ("b.png", 12.5, np.zeros(3)), ("c.png", None, picture)]
    with robot.Publisher("robot7/camera", connect=[where]) as publisher:
        wait_for(lambda: publisher.listened_to)
        last = robot.run(Service(hand_encoder), iter(given), publisher, Notifier({}))
        wait_for(lambda: len(heard) >= 5)
    assert last["frames"] == {"embedded": 2, "stale": 0, "skipped": 0, "unusable": 1, "failed": 0}
    vectors = [line for line in heard if line[0] == "robot7/camera/vector"]
    assert [facts["name"] for _, _, facts, _ in vectors] == ["a.png", "c.png"]
    np.testing.assert_array_equal(robot.vector_of(vectors[0][1]), np.ones(3, np.float32))
    assert vectors[0][1] == np.ones(3, "<f4").tobytes()
    assert vectors[0][2] | {"age_s": 0} == {
        "name": "a.png",
        "stamp": None,
        "dim": 3,
        "outcome": "embedded",
        "version": 0,
        "space_id": "hand-3",
        "health": "ok",
        "age_s": 0,
    }
    ((_, reason, facts, encoding),) = [line for line in heard if line[0] == "robot7/camera/error"]
    assert (facts["outcome"], facts["stamp"], encoding) == ("unusable", 12.5, "text/plain")
    assert reason.decode() == facts["reason"]
    statuses = [json.loads(line[1]) for line in heard if line[0] == "robot7/camera/status"]
    assert statuses[-1] == json.loads(json.dumps(last))


@pytest.mark.slow
def test_a_node_may_start_before_the_one_it_connects_to(hand_encoder, picture) -> None:
    port, heard = free_port(), []
    with robot.Publisher("robot7", connect=[f"tcp/127.0.0.1:{port}"]) as publisher:
        assert not publisher.listened_to
        with zenoh.open(robot.session_config([], [robot.endpoint(str(port))], multicast=False)) as session:
            session.declare_subscriber("robot7/vector", heard.append)
            wait_for(lambda: publisher.listened_to)
            robot.run(Service(hand_encoder), [("a", None, picture)], publisher, Notifier({}))
            wait_for(lambda: heard)


def test_a_session_does_only_what_it_was_told_to() -> None:
    config = robot.session_config(["tcp/127.0.0.1:1"], [], multicast=False)
    assert json.loads(config.get_json("listen/endpoints")) == []
    assert json.loads(config.get_json("scouting/multicast/enabled")) is False
    assert json.loads(config.get_json("scouting/gossip/enabled")) is False
    assert json.loads(config.get_json("connect/endpoints")) == ["tcp/127.0.0.1:1"]


def test_multicast_is_on_when_it_is_asked_for() -> None:
    config = robot.session_config([], [], multicast=True)
    assert json.loads(config.get_json("scouting/multicast/enabled")) is True


@pytest.mark.parametrize(
    ("text", "found"),
    [("7447", "tcp/127.0.0.1:7447"), ("tcp/0.0.0.0:7447", "tcp/0.0.0.0:7447"), ("quic/robot:1", "quic/robot:1")],
)
def test_a_port_alone_is_on_loopback(text: str, found: str) -> None:
    assert robot.endpoint(text) == found


@pytest.mark.parametrize("text", ["robot:7447", "", "tcp/", ":7447"])
def test_what_is_no_endpoint_is_named(text: str) -> None:
    with pytest.raises(InputError, match="no endpoint"):
        robot.endpoint(text)


def test_a_publisher_that_nobody_could_hear_is_refused() -> None:
    with pytest.raises(InputError, match="--connect"):
        robot.Publisher("edgessl")


def test_a_key_that_zenoh_refuses_is_named() -> None:
    with pytest.raises(InputError, match=r"a//b"):
        robot.Publisher("a//b", listen=[str(free_port())])


class Live:
    """A live source that says what it was told to: a frame, or nothing for a while."""

    ended = False

    def __init__(self, given) -> None:
        self.given, self.closed = list(given), False

    def read(self, timeout_s: float):
        frame = self.given.pop(0)
        self.ended = not self.given
        return frame

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.closed = True


def test_a_live_source_that_is_silent_does_not_stop_the_rounds(monkeypatch, picture) -> None:
    frame = SimpleNamespace(name="camera:0#000001", stamp_s=5.0, frame=picture)
    live, told = Live([None, None, frame]), {}
    monkeypatch.setattr("edgessl.runtimes.robot.feed.open_live", lambda data, **more: told.update(more) or live)
    with feed("camera:0", image_spec(4, 6), 0.25) as frames:
        assert not live.closed
        found = list(frames)
    assert found == [None, None, ("camera:0#000001", 5.0, picture)]
    assert told["max_age_s"] == 0.25
    assert live.closed


def test_any_source_feeds_a_node(frames_folder) -> None:
    with feed(str(frames_folder), image_spec(32, 40), 0.5) as frames:
        found = list(frames)
    assert len(found) == 39
    assert {frame.shape for _, _, frame in found} == {(32, 40, 3)}
    assert all(stamp_s is None for _, stamp_s, _ in found)


def test_stamps_of_a_recording_are_published_and_make_no_frame_too_old(monkeypatch, hand_encoder, picture) -> None:
    recording = ArraySource("run", np.stack([picture] * 2), image_spec(*picture.shape[:2]), ["run#0", "run#1"])
    recording.stamps = np.array([0.0, 0.04])
    monkeypatch.setattr("edgessl.runtimes.robot.feed.open_source", lambda data, **more: recording)
    told = []
    publisher = SimpleNamespace(
        status=lambda status: None,
        answer=lambda answer, *, name, stamp_s: told.append((name, stamp_s, answer.outcome)),
    )
    with feed("run.mp4", recording.spec, 0.1) as frames:
        robot.run(Service(hand_encoder, max_age=0.1), frames, publisher, Notifier({}), recorded=True)
    assert told == [("run#0", 0.0, "embedded"), ("run#1", 0.04, "embedded")]
