"""Messages of dora's camera nodes become vectors; once by hand, once with the dora runtime itself."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from datetime import datetime, timezone
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import edgessl
from edgessl.runtimes.robot.dora import run
from edgessl.runtimes.robot.service import Service
from edgessl.runtimes.robot.systemd import Notifier

pa = pytest.importorskip("pyarrow", reason="pip install 'edgessl[dora]'")

END = {"type": "STOP", "id": "ALL_INPUTS_CLOSED"}


class Dataflow:
    """A dataflow that gives these events, then ends."""

    def __init__(self, *events) -> None:
        self.events, self.sent = list(events), []

    def next(self, timeout: float):
        return self.events.pop(0) if self.events else None

    def send_output(self, output_id: str, data, metadata) -> None:
        self.sent.append((output_id, data, metadata))

    def of(self, output: str) -> list:
        return [(data, metadata) for name, data, metadata in self.sent if name == output]


def image(frame: np.ndarray, encoding: str = "rgb8", **more) -> dict:
    facts = {"encoding": encoding, "height": frame.shape[0], "width": frame.shape[1], "stamp": 999.9}
    return {"type": "INPUT", "id": "image", "value": pa.array(frame.ravel()), "metadata": facts | more}


@pytest.fixture
def answered(hand_encoder, clock):
    """What a node sends for these events."""

    def answered(*events) -> Dataflow:
        dataflow = Dataflow(*events)
        run(Service(hand_encoder, max_age=1.0, wall=clock, clock=clock), dataflow, Notifier({}))
        return dataflow

    return answered


def test_an_image_becomes_a_vector_with_what_belongs_to_it(answered, picture) -> None:
    ((vector, facts),) = answered(image(picture), END).of("vector")
    assert vector.type == pa.float32()
    assert vector.to_pylist() == [1.0, 1.0, 1.0]
    assert facts["stamp"] == 999.9
    assert facts["age_s"] == pytest.approx(0.1)
    assert {name: facts[name] for name in ("outcome", "version", "space_id", "health")} == {
        "outcome": "embedded",
        "version": 0,
        "space_id": "hand-3",
        "health": "ok",
    }


@pytest.mark.parametrize("encoding", ["bgr8", "jpeg", "png"])
def test_what_doras_camera_nodes_send_is_understood(hand_encoder, answered, picture, encoding) -> None:
    seen = []
    inner = hand_encoder.embed
    hand_encoder.embed = lambda frames: seen.append(frames) or inner(frames)
    if encoding == "bgr8":
        event = image(np.ascontiguousarray(picture[:, :, ::-1]), encoding)
    else:
        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, encoding)
        event = image(picture, encoding)
        event["value"] = pa.array(np.frombuffer(buffer.getvalue(), np.uint8))
    assert len(answered(event).of("vector")) == 1
    assert np.abs(seen[0][0].astype(int) - picture).mean() < (10 if encoding == "jpeg" else 0.01)


def test_without_a_stamp_the_time_of_sending_counts(answered, picture) -> None:
    event = image(picture, timestamp=datetime.fromtimestamp(999.5, timezone.utc))
    del event["metadata"]["stamp"]
    ((_, facts),) = answered(event).of("vector")
    assert facts["age_s"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "damage",
    [
        {"value": pa.array(np.zeros(7, np.uint8))},
        {"value": pa.array(["text"])},
        {"value": None},
        {"metadata": {"encoding": "depth16", "height": 4, "width": 6}},
        {"metadata": {"height": "four", "width": None}},
        {"metadata": {}},
    ],
)
def test_an_unusable_image_is_answered_by_an_error_and_the_next_one_by_a_vector(answered, picture, damage) -> None:
    dataflow = answered(image(picture) | damage, image(picture))
    ((said, facts),) = dataflow.of("error")
    assert facts["outcome"] == "unusable"
    assert said.to_pylist() == [facts["reason"]]
    assert len(dataflow.of("vector")) == 1


def test_a_stale_image_is_counted_and_not_answered(answered, picture) -> None:
    dataflow = answered(image(picture, stamp=990.0))
    assert dataflow.of("vector") == dataflow.of("error") == []
    ((status, _),) = dataflow.of("status")
    assert json.loads(status.to_pylist()[0])["frames"]["stale"] == 1


def test_inputs_that_come_behind_the_end_of_the_others_are_answered(answered, picture) -> None:
    assert len(answered(END, image(picture)).of("vector")) == 1


def test_a_stop_by_hand_ends_it(answered, picture) -> None:
    assert answered({"type": "STOP", "id": "MANUAL"}, image(picture)).of("vector") == []


def test_an_input_of_another_name_is_said_once(answered, picture, caplog) -> None:
    caplog.set_level(logging.WARNING, "edgessl.node")  # whatever other tests left the root logger at
    other = image(picture) | {"id": "camera"}
    assert answered(other, other).of("vector") == []
    assert [record.facts["input"] for record in caplog.records if record.message == "ignored"] == ["camera"]


def test_silence_and_errors_of_dora_end_nothing(answered, picture) -> None:
    silence = {"type": "ERROR", "error": "Timeout event stream error: Receiver timed out"}
    broken = {"type": "ERROR", "error": "lost the daemon"}
    closed = {"type": "INPUT_CLOSED", "id": "image"}
    assert len(answered(silence, broken, closed, image(picture)).of("vector")) == 1


@pytest.mark.slow
def test_the_dataflow_of_the_example_runs_end_to_end(root, tiny, scenes, tmp_path, environment) -> None:
    if shutil.which("dora", path=environment["PATH"]) is None:
        pytest.skip("the dora command is not there: pip install dora-rs-cli")
    frames = scenes(9, seed=4)
    np.savez(tmp_path / "frames.npz", x=frames)
    flow = shutil.copytree(root / "examples" / "dora", tmp_path / "flow", ignore=shutil.ignore_patterns("out"))
    told = {
        "FRAMES": str(tmp_path / "frames.npz"),
        "VECTORS": str(tmp_path / "vectors.jsonl"),
        "EDGESSL_BUNDLE": str(tiny),
        "EDGESSL_STATE": str(tmp_path / "state"),
        "EDGESSL_PRECISION": "fp32",
        "EDGESSL_MAX_AGE": "10",
    }
    done = subprocess.run(
        ["dora", "run", str(flow / "dataflow.yml"), "--stop-after", "60s"],
        executable=shutil.which("dora", path=environment["PATH"]),
        cwd=tmp_path,
        env=environment | told,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "vectors.jsonl").read_text().splitlines()]
    vectors = np.array([line["value"] for line in lines if line["output"] == "vector"], np.float32)
    with edgessl.open(tiny, precision="fp32") as encoder:
        wanted = encoder.embed(frames)
    # The newest frame wins, so a slow machine may leave some out; those that came are these, in this order.
    places = [int(np.abs(wanted - vector).max(1).argmin()) for vector in vectors]
    np.testing.assert_allclose(vectors, wanted[places], atol=1e-6)
    assert places == sorted(set(places))
    assert len(places) >= 3
    facts = next(line for line in lines if line["output"] == "vector")
    assert (facts["space_id"], facts["version"], facts["health"]) == ("tiny-6", 0, "ok")
    assert 0 < facts["age_s"] < 10
    statuses = [json.loads(line["value"][0]) for line in lines if line["output"] == "status"]
    assert statuses[0]["level"] == "ports"
    assert [line for line in lines if line["output"] == "error"] == []


@pytest.mark.slow
def test_outside_a_dataflow_it_says_so(tiny, started) -> None:
    process = started("node", "dora", tiny)
    out, talk = process.communicate(timeout=60)
    assert process.returncode == 1, talk
    assert out == ""
    assert "no dora dataflow started this process" in talk


def test_the_example_names_what_the_node_has(root) -> None:
    text = (root / "examples" / "dora" / "dataflow.yml").read_text()
    for word in ("image", "vector", "error", "status", "node dora", "queue_size: 1"):
        assert word in text
