"""Images of ROS become vectors, against a stand-in of rclpy: none of this has run under ROS."""

from __future__ import annotations

import array
import importlib.util
import json
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import edgessl
from edgessl.errors import InputError
from edgessl.runtimes.robot.opening import open_service
from edgessl.runtimes.robot.parameters import parameters_from
from edgessl.runtimes.robot.ros2 import ERROR, OK, WARN, RosNode, diagnosis_of, frame_of, stamp_s_of
from edgessl.runtimes.robot.service import Service
from edgessl.runtimes.robot.systemd import Notifier

rosbags = pytest.importorskip("rosbags", reason="pip install 'edgessl[bags]'")


@pytest.fixture(scope="module")
def fake():
    spec = importlib.util.spec_from_file_location("fake_rclpy", Path(__file__).with_name("fake_rclpy.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ros(fake, monkeypatch):
    """Install the stand-in; what it is given is a list and a dict."""

    def install(*messages, **parameters):
        found = fake.FakeRos(parameters, list(messages))
        found.install(monkeypatch)
        return found

    return install


@pytest.fixture
def image(fake):
    def image(frame: np.ndarray, encoding: str = "rgb8", pad: int = 0, sec: int = 1000, nanosec: int = 250_000_000):
        rows = np.pad(frame.reshape(frame.shape[0], -1), ((0, 0), (0, pad)))
        made = fake.message("sensor_msgs/msg/Image")(
            height=frame.shape[0],
            width=frame.shape[1],
            encoding=encoding,
            step=rows.shape[1],
            data=array.array("B", rows.tobytes()),
        )
        made.header.stamp.sec, made.header.stamp.nanosec, made.header.frame_id = sec, nanosec, "camera"
        return made

    return image


def answered(ros, service: Service, **more) -> SimpleNamespace:
    with RosNode(["--ros-args"]) as node:
        node.run(service, Notifier({}), **more)
    published = ros.node.published
    return SimpleNamespace(vectors=published.get("~/vector", []), diagnostics=published.get("/diagnostics", []))


def test_an_image_becomes_a_vector_whose_label_is_its_header(ros, hand_encoder, picture, image, clock) -> None:
    clock.now = 1000.5
    found = answered(ros(image(picture)), Service(hand_encoder, wall=clock))
    (message,) = found.vectors
    assert list(message.data) == [1.0, 1.0, 1.0]
    (dim,) = message.layout.dim
    assert (dim.size, dim.stride, message.layout.data_offset) == (3, 3, 0)
    assert json.loads(dim.label) == {
        "stamp": [1000, 250_000_000],
        "frame_id": "camera",
        "outcome": "embedded",
        "version": 0,
        "space_id": "hand-3",
        "health": "ok",
        "age_s": 0.25,
    }


def test_it_listens_as_sensors_are_listened_to(ros, hand_encoder) -> None:
    found = ros()
    answered(found, Service(hand_encoder))
    ((kind, topic, _, qos),) = found.node.subscribed
    assert (kind.__name__, topic) == ("Image", "image")
    assert (qos.depth, qos.reliability) == (1, "best effort")
    assert found.args == ["--ros-args"]
    assert found.node.destroyed
    assert not found.up


def test_a_compressed_image_is_read(ros, hand_encoder, picture, fake) -> None:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    sent = fake.message("sensor_msgs/msg/CompressedImage")(format="rgb8; png compressed bgr8", data=buffer.getvalue())
    found = ros(sent)
    assert len(answered(found, Service(hand_encoder), compressed=True).vectors) == 1
    assert found.node.subscribed[0][:2] == (fake.message("sensor_msgs/msg/CompressedImage"), "image/compressed")


@pytest.mark.parametrize("text", ["jpeg", "bgr8; jpeg compressed bgr8", "rgb8; jpeg compressed ", "JPEG"])
def test_what_image_transport_calls_jpeg_is_one(picture, text: str) -> None:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "jpeg")
    assert frame_of(SimpleNamespace(format=text, data=array.array("B", buffer.getvalue())), None).shape == (4, 6, 3)


def test_a_depth_image_in_a_compressed_topic_is_refused() -> None:
    with pytest.raises(InputError, match="compressedDepth"):
        frame_of(SimpleNamespace(format="16UC1; compressedDepth", data=b"\0" * 20), None)


@pytest.mark.parametrize("pad", [0, 6])
def test_rows_are_read_by_their_step(picture, image, pad: int) -> None:
    message = image(np.ascontiguousarray(picture[:, :, ::-1]), "bgr8", pad)
    np.testing.assert_array_equal(frame_of(message, None), picture)


def test_an_unusable_image_ends_nothing_and_stands_in_the_diagnostics(ros, hand_encoder, picture, image) -> None:
    found = answered(ros(image(picture, "16UC1"), image(picture)), Service(hand_encoder))
    assert len(found.vectors) == 1
    (status,) = found.diagnostics[0].status
    values = {pair.key: pair.value for pair in status.values}
    assert values["frames.unusable"] == "1"


def test_diagnostics_have_level_stamp_and_plain_text(ros, hand_encoder, picture, image) -> None:
    hand_encoder.fails = True
    ros_up = ros(image(picture))
    (array_,) = answered(ros_up, Service(hand_encoder)).diagnostics
    (status,) = array_.status
    assert (status.level, status.name, status.message, status.hardware_id) == (
        ERROR,
        "edgessl",
        "engine failed",
        "hand-3",
    )
    assert (array_.header.stamp.sec, array_.header.stamp.nanosec) == (1000, 0)


@pytest.mark.parametrize(
    ("health", "level"),
    [("ok", OK), ("restarted", WARN), ("fallback", WARN), ("learning off: x", WARN), ("failed", ERROR)],
)
def test_health_is_a_level(health: str, level: bytes) -> None:
    found, message, values = diagnosis_of({"health": health, "frames": {"stale": 2}, "restarts": 1, "drift": 0.5})
    assert (found, message) == (level, health)
    assert values == {"health": health, "frames.stale": "2", "restarts": "1", "drift": "0.5"}


def test_parameters_of_ros_are_a_layer_and_those_not_given_have_none(ros) -> None:
    ros(threads=2, level=1, metrics=9400, bundle="robot.edgessl")
    with RosNode() as node:
        given = node.parameters()
    assert given == {"threads": 2, "level": 1, "metrics": 9400, "bundle": "robot.edgessl"}
    assert parameters_from({"threads": "4"}, given).threads == 4
    assert parameters_from({}, given).level == "ports"


def test_the_age_is_by_the_nodes_clock_so_a_simulation_may_drive_it(ros, tiny, image, scenes) -> None:
    frames = scenes(2, seed=0)
    found = ros(image(frames[0]), image(frames[1], sec=990))
    with RosNode() as node:
        service = open_service(parameters_from({"bundle": str(tiny), "max_age": "1"}), wall=node.wall)
        status = node.run(service, Notifier({}))
    assert status["frames"]["embedded"] == status["frames"]["stale"] == 1
    with edgessl.open(tiny) as encoder:
        np.testing.assert_allclose(found.node.published["~/vector"][0].data, encoder.embed(frames[:1])[0], atol=1e-6)


def test_a_stamp_that_nobody_set_is_none(fake) -> None:
    header = fake.message("std_msgs/msg/Header")()
    assert stamp_s_of(header) is None
    header.stamp.nanosec = 5
    assert stamp_s_of(header) == pytest.approx(5e-9)


def test_without_ros_it_says_what_to_source() -> None:
    with pytest.raises(InputError, match=r"source /opt/ros"):
        RosNode()


def test_the_command_hands_its_arguments_to_ros(ros, tiny, image, scenes, monkeypatch, tmp_path) -> None:
    from typer.testing import CliRunner

    from edgessl.cli.main import app

    for name in ("EDGESSL_BUNDLE", "EDGESSL_STATE"):
        monkeypatch.delenv(name, raising=False)
    found = ros(image(scenes(1, seed=0)[0]), state=str(tmp_path / "state"))
    words = [
        "node",
        "ros2",
        str(tiny),
        "--json",
        "--max-age",
        "0",
        "--",
        "--ros-args",
        "-r",
        "image:=/camera/image_raw",
    ]
    done = CliRunner().invoke(app, words, prog_name="edgessl")
    assert done.exit_code == 0, done.output
    assert found.args == ["--ros-args", "-r", "image:=/camera/image_raw"]
    status = json.loads(done.stdout)
    assert status["frames"]["embedded"] == 1
    assert status["level"] == "ports"
