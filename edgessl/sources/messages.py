"""A message of ROS 1 or 2, as bytes -> an RGB frame, a row of an IMU, a stamp."""

from __future__ import annotations

import struct
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import MissingExtraError
from edgessl.sources.images import UnreadableError, read_image, resized

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

#: encoding -> bytes per pixel, and which of them are red, green, blue
_ENCODINGS = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "8UC3": (3, (2, 1, 0)),  # what OpenCV calls it
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
    "8UC1": (1, (0, 0, 0)),
    "mono16": (2, ()),
    "yuv422": (2, ()),
    "uyvy": (2, ()),
    "yuv422_yuy2": (2, ()),
    "yuyv": (2, ()),
}


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
    return resized(_pixels(message), size)


def imu_of(content: bytes, encoding: str) -> list[float]:
    """The values of an `IMU` message, one for each of `IMU_CHANNELS`.

    Raises:
        UnreadableError: It is damaged.
    """
    message = _parsed(content, IMU, encoding)
    moved, turned = message.linear_acceleration, message.angular_velocity
    return [moved.x, moved.y, moved.z, turned.x, turned.y, turned.z]


def _pixels(message: Any) -> NDArray[np.uint8]:
    name, height, width, step = str(message.encoding), int(message.height), int(message.width), int(message.step)
    known = name if name in _ENCODINGS else name.lower()
    if known not in _ENCODINGS:
        raise UnreadableError(f"encoding {name!r}; known are {', '.join(_ENCODINGS)}")
    deep, colours = _ENCODINGS[known]
    if min(height, width) < 1 or step < width * deep:
        raise UnreadableError(f"{width}x{height} {name} in rows of {step} bytes")
    data = np.frombuffer(message.data, np.uint8)
    needed = (height - 1) * step + width * deep  # some drivers leave the padding of the last row out
    if len(data) < needed:
        raise UnreadableError(f"cut: {len(data)} of {needed} bytes")
    rows = np.lib.stride_tricks.as_strided(data, (height, width * deep), (step, 1), writeable=False)
    pixels = rows.reshape(height, width, deep)
    if known == "mono16":
        return np.repeat(pixels[..., :1] if message.is_bigendian else pixels[..., 1:], 3, axis=2)
    if not colours:
        if width % 2:
            raise UnreadableError(f"{name} with an odd width, {width}")
        return _rgb_of_yuv(pixels if known in ("yuv422_yuy2", "yuyv") else pixels[..., ::-1])
    return np.ascontiguousarray(pixels[..., colours])


def _rgb_of_yuv(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two pixels share their colour; each is `(luma, one of two colours)`. ITU-R BT.601, luma in 16..235."""
    luma = 1.164383 * (pixels[..., 0].astype(np.float32) - 16).clip(0)
    blue = pixels[:, 0::2, 1].astype(np.float32).repeat(2, axis=1) - 128
    red = pixels[:, 1::2, 1].astype(np.float32).repeat(2, axis=1) - 128
    planes = (luma + 1.596027 * red, luma - 0.391762 * blue - 0.812968 * red, luma + 2.017232 * blue)
    return np.asarray((np.stack(planes, axis=-1) + 0.5).clip(0, 255).astype(np.uint8))


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
