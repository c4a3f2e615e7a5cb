"""The log of an IMU in a bag -> windows in SI units, on a uniform clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgessl.errors import InputError
from edgessl.signals import series_spec
from edgessl.sources import Windowing, open_source
from edgessl.sources.messages import IMU, IMU_CHANNELS

pytest.importorskip("rosbags", reason="pip install 'edgessl[bags]'")
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_HUMBLE)
BEGAN_S, RATE = 1_700_000_000, 100
NINE = np.zeros(9)


def _values(index: int) -> np.ndarray:
    return np.asarray([index, -index, 9.81, 0.5 * index, 1, -2], np.float64)


def _message(index: int, late_s: float = 0.0) -> bytes:
    kinds = TYPES.types
    vector = kinds["geometry_msgs/msg/Vector3"]
    stamp = divmod(BEGAN_S * 10**9 + index * 10**9 // RATE + int(late_s * 1e9), 10**9)
    values = _values(index)
    message = kinds[IMU](
        header=kinds["std_msgs/msg/Header"](
            stamp=kinds["builtin_interfaces/msg/Time"](sec=stamp[0], nanosec=stamp[1]), frame_id="imu"
        ),
        orientation=kinds["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=NINE,
        angular_velocity=vector(*values[3:].tolist()),
        angular_velocity_covariance=NINE,
        linear_acceleration=vector(*values[:3].tolist()),
        linear_acceleration_covariance=NINE,
    )
    return bytes(TYPES.serialize_cdr(message, IMU))


def _bag(path: Path, contents: list[bytes], topics: tuple[str, ...] = ("/imu/data",)) -> str:
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic in topics:
            link = writer.add_connection(topic, IMU, typestore=TYPES)
            for index, content in enumerate(contents):
                writer.write(link, (BEGAN_S + 5) * 10**9 + index * 10**9 // RATE, content)
    return str(path)


def test_windows_hold_accelerometer_and_gyroscope_in_si_units(tmp_path: Path) -> None:
    bag = _bag(tmp_path / "walk", [_message(index) for index in range(100)])
    source = open_source(bag, windowing=Windowing(window="0.2s", hop=10))
    assert source.spec == series_spec(IMU_CHANNELS, 20, rate_hz=RATE, units="m/s^2, rad/s")
    assert source.names[3] == "walk/000003"
    frames = source.read([3])[1]
    expected = np.stack([_values(30 + step) for step in range(20)], axis=1)
    assert np.allclose(frames[0], expected, atol=1e-4)
    assert len(source) == 9
    assert np.allclose(source.stamps, BEGAN_S + np.arange(9) * 0.1, rtol=0, atol=1e-5)  # type: ignore[attr-defined]


def test_an_encoder_says_channels_and_rate(tmp_path: Path) -> None:
    bag = _bag(tmp_path / "walk", [_message(index) for index in range(200)])
    spec = series_spec(("gyroscope_y", "accelerometer_z"), 10, rate_hz=50)
    frames = open_source(bag, spec=spec).read([4])[1]
    assert np.allclose(frames[0], [[1.0], [9.81]], atol=1e-4)
    with pytest.raises(InputError, match=r"no channel 'gyroscope_w'"):
        open_source(bag, windowing=Windowing(window=5, channels="gyroscope_w"))


def test_damaged_messages_are_a_gap_and_are_named(tmp_path: Path) -> None:
    contents = [_message(index) for index in range(100)]
    for index in range(40, 60):
        contents[index] = contents[index][:30]
    source = open_source(_bag(tmp_path / "walk", contents), windowing=Windowing(window=20, hop=20))
    assert len(source) == 4  # two in front of the gap, two behind it
    assert [skipped.name for skipped in source.skipped] == [f"walk#{index:06d}" for index in range(40, 60)]
    assert np.allclose(source.read([2])[1][0, 0, 0], 60, atol=1e-3)
    assert np.allclose(source.stamps, BEGAN_S + np.asarray([0, 0.2, 0.6, 0.8]), rtol=0, atol=1e-5)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"walk#000040 cannot be read"):
        open_source(str(tmp_path / "walk"), windowing=Windowing(window=20), strict=True)


def test_several_imus_are_an_error_with_the_lines_to_type(tmp_path: Path) -> None:
    bag = _bag(tmp_path / "walk", [_message(index) for index in range(50)], ("/left", "/right"))
    with pytest.raises(InputError, match=rf"2 topics.*bag:{bag}\?topic=/left or bag:{bag}\?topic=/right"):
        open_source(bag, windowing=Windowing(window=20))
    assert len(open_source(f"bag:{bag}?topic=/left", windowing=Windowing(window=20, hop=10))) == 4


def test_without_a_window_the_line_is_said(tmp_path: Path) -> None:
    bag = _bag(tmp_path / "walk", [_message(index) for index in range(50)])
    with pytest.raises(InputError, match="type --series window="):
        open_source(bag, windowing=Windowing(rate_hz=50))
