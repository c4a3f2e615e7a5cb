"""A message of ROS 1 or 2, as bytes -> an RGB frame, a row of an IMU, a stamp."""

from __future__ import annotations

import struct
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError, MissingExtraError
from edgessl.sources.images import UnreadableError, read_image
from edgessl.sources.pixels import ENCODINGS, rgb_from

IMAGE, COMPRESSED, IMU = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Imu"

#: What `imu_of` gives, in SI units.
IMU_CHANNELS = (
    "accelerometer_x",
    "accelerometer_y",
    "accelerometer_z",
    "gyroscope_x",
    "gyroscope_y",
    "gyroscope_z",
)
IMU_UNITS = "m/s^2, rad/s"

HEAD = 12  # bytes that hold the stamp of a message's header


def stamp_of(head: bytes, encoding: str) -> float:
    """Seconds in the header of a message, from its first `HEAD` bytes; 0 where nobody set it.

    Args:
        head: From the start of the message.
        encoding: `cdr` or `ros1`; both keep seconds and nanoseconds in the same place.
    """
    if len(head) < HEAD:
        return 0.0
    order = "<" if encoding == "ros1" or head[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", head, 4)
    return float(seconds + nanoseconds * 1e-9)


def frame_of(content: bytes, kind: str, encoding: str, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """The RGB frame `(height, width, 3)` of an `IMAGE` or `COMPRESSED` message.

    Raises:
        UnreadableError: It is damaged, or of an encoding that is not known.
    """
    message = _parsed(content, kind, encoding)
    if kind == COMPRESSED:
        return read_image(BytesIO(bytes(message.data)), size)
    name, known = str(message.encoding), str(message.encoding).lower()
    shape = {"height": int(message.height), "width": int(message.width), "step": int(message.step)}
    try:
        return rgb_from(
            np.frombuffer(message.data, np.uint8),
            known if known in ENCODINGS else name,
            **shape,
            big_endian=bool(message.is_bigendian),
            size=size,
        )
    except InputError as error:
        raise UnreadableError(str(error)) from error


def imu_of(content: bytes, encoding: str) -> list[float]:
    """The values of an `IMU` message, one for each of `IMU_CHANNELS`.

    Raises:
        UnreadableError: It is damaged.
    """
    message = _parsed(content, IMU, encoding)
    moved, turned = message.linear_acceleration, message.angular_velocity
    return [moved.x, moved.y, moved.z, turned.x, turned.y, turned.z]


def _parsed(content: bytes, kind: str, encoding: str) -> Any:
    store = _types(encoding)
    try:
        return (store.deserialize_ros1 if encoding == "ros1" else store.deserialize_cdr)(content, kind)
    except Exception as error:  # generated code, which raises almost anything over damaged bytes
        raise UnreadableError(f"no {kind}: {error or type(error).__name__}") from error


@cache
def _types(encoding: str) -> Any:
    """The standard messages, which are the same in every release."""
    try:
        from rosbags.typesys import Stores, get_typestore
    except ModuleNotFoundError as error:
        raise MissingExtraError("rosbags", "bags") from error
    return get_typestore(Stores.ROS1_NOETIC if encoding == "ros1" else Stores.ROS2_HUMBLE)
