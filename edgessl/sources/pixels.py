"""The bytes of a camera's message -> an RGB frame `uint8 (height, width, 3)`.

Names of encodings are ROS's (`sensor_msgs/image_encodings`), which dora's camera nodes use as well, and formats of files.
Depth, thermal and raw Bayer images are refused: they are no RGB, and an encoder of RGB would give vectors all the same.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.sources.images import UnreadableError, read_image, resized

Bytes = NDArray[np.uint8]
Size = tuple[int, int]  # height, width

#: encoding -> bytes per pixel, and which of them are red, green and blue
_PLAIN = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "8UC3": (3, (2, 1, 0)),  # without a name for the order, it is OpenCV's
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "8UC4": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
    "8UC1": (1, (0, 0, 0)),
}
#: encoding -> where in four bytes, of two pixels, stand Y, Y of the second, U and V
_YUV = {
    "yuv422_yuy2": (0, 2, 1, 3),
    "yuyv": (0, 2, 1, 3),
    "yuv422": (1, 3, 0, 2),
    "uyvy": (1, 3, 0, 2),
}
FILES = ("jpeg", "jpg", "jpe", "png", "bmp", "webp", "tiff")
ENCODINGS = (*_PLAIN, "mono16", *_YUV, *FILES)


def rgb_from(
    data: Any,
    encoding: str,
    *,
    height: int = 0,
    width: int = 0,
    step: int = 0,
    big_endian: bool = False,
    size: Size | None = None,
) -> Bytes:
    """The frame that a message holds.

    Args:
        data: Bytes, or a uint8 array.
        encoding: A name of `ENCODINGS`.
        height, width: In pixels; a file, such as `jpeg`, has its own.
        step: Bytes from one row to the next; 0 where rows stand close.
        big_endian: Of `mono16`.
        size: What the encoder takes; another one is stretched to it, as every source does. `None` leaves it.

    Returns:
        `(height, width, 3)`, RGB; it may share memory with `data`.

    Raises:
        InputError: It is no such frame; says why.
    """
    flat = np.frombuffer(data, np.uint8) if not isinstance(data, np.ndarray) else data.reshape(-1)
    if flat.dtype != np.uint8:
        raise InputError(f"a frame of {encoding} must be uint8, not {flat.dtype}")
    if encoding in FILES:
        try:
            return read_image(BytesIO(flat.tobytes()), size)
        except UnreadableError as error:
            raise InputError(f"a {encoding} frame of {len(flat)} bytes cannot be read: {error}") from error
    if encoding in _PLAIN:
        depth, order = _PLAIN[encoding]
        rows = _rows(flat, encoding, height, width, depth, step).reshape(height, width, depth)
        return resized(rows if order == (0, 1, 2) and depth == 3 else rows[:, :, list(order)], size)
    if encoding == "mono16":
        rows = _rows(flat, encoding, height, width, 2, step).reshape(height, width, 2)
        return resized(rows[:, :, [0 if big_endian else 1] * 3], size)  # the high byte
    if encoding in _YUV:
        return resized(_rgb_from_yuv(_rows(flat, encoding, height, width, 2, step), _YUV[encoding]), size)
    raise InputError(f"no encoding {encoding!r} of RGB frames; have the camera send one of {', '.join(ENCODINGS)}")


def _rows(flat: Bytes, encoding: str, height: int, width: int, depth: int, step: int) -> Bytes:
    """The bytes of the pixels `(height, width * depth)`, without what stands behind each row."""
    used = width * depth
    step = step or used
    if height < 1 or width < 1 or step < used:
        raise InputError(f"a frame of {encoding} cannot be {height} x {width} (height x width) in rows of {step} bytes")
    if len(flat) < step * (height - 1) + used:
        raise InputError(
            f"a frame of {encoding} with {height} rows of {step} bytes has {step * height} bytes, and this one is cut: "
            f"it has {len(flat)}"
        )
    if len(flat) > step * height:
        raise InputError(f"{len(flat)} bytes are more than the {step * height} of {height} rows of {step}, {encoding}")
    whole = flat if len(flat) == step * height else np.pad(flat, (0, step * height - len(flat)))
    return whole.reshape(height, step)[:, :used]


def _rgb_from_yuv(rows: Bytes, places: tuple[int, int, int, int]) -> Bytes:
    """Two pixels in four bytes -> RGB, by ITU-R BT.601 with luma from 16 to 235."""
    height, used = rows.shape
    if used % 4:
        raise InputError(f"a frame in YUV 4:2:2 has an even width, not {used // 2}")
    four = rows.reshape(height, used // 4, 4).astype(np.float32)
    luma = (four[:, :, places[:2]].reshape(height, used // 2) - 16).clip(0) * np.float32(255 / 219)
    u, v = ((four[:, :, place] - 128).repeat(2, 1) * np.float32(255 / 224) for place in places[2:])
    rgb = np.stack([luma + 1.402 * v, luma - 0.344136 * u - 0.714136 * v, luma + 1.772 * u], axis=2)
    return np.asarray(np.rint(rgb).clip(0, 255), np.uint8)
