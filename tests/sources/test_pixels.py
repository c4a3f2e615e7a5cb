"""The bytes of a camera's message become the RGB frame that the camera saw."""

from __future__ import annotations

from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

from edgessl.errors import InputError
from edgessl.sources.images import resized
from edgessl.sources.pixels import ENCODINGS, rgb_from

HEIGHT, WIDTH = 4, 6


@pytest.fixture
def seen() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def rgb(data: object, encoding: str, **more: object) -> np.ndarray:
    return rgb_from(data, encoding, **{"height": HEIGHT, "width": WIDTH} | more)


@pytest.mark.parametrize(
    ("encoding", "code"),
    [
        ("bgr8", cv2.COLOR_RGB2BGR),
        ("8UC3", cv2.COLOR_RGB2BGR),
        ("rgba8", cv2.COLOR_RGB2RGBA),
        ("bgra8", cv2.COLOR_RGB2BGRA),
        ("8UC4", cv2.COLOR_RGB2BGRA),
    ],
)
def test_the_order_of_the_colours_is_opencvs(seen: np.ndarray, encoding: str, code: int) -> None:
    np.testing.assert_array_equal(rgb(cv2.cvtColor(seen, code).tobytes(), encoding), seen)


def test_rgb_is_taken_as_it_is(seen: np.ndarray) -> None:
    np.testing.assert_array_equal(rgb(seen.ravel(), "rgb8"), seen)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_is_the_same_in_three_channels(seen: np.ndarray, encoding: str) -> None:
    np.testing.assert_array_equal(rgb(seen[:, :, 0].tobytes(), encoding), seen[:, :, :1].repeat(3, 2))


@pytest.mark.parametrize("big", [False, True])
def test_of_sixteen_bits_the_high_byte_counts(seen: np.ndarray, big: bool) -> None:
    deep = seen[:, :, 0].astype(">u2" if big else "<u2") * 256 + 77
    frame = rgb(deep.astype(">u2" if big else "<u2").tobytes(), "mono16", big_endian=big)
    np.testing.assert_array_equal(frame, seen[:, :, :1].repeat(3, 2))


@pytest.mark.parametrize(
    ("encoding", "code"),
    [
        ("yuv422_yuy2", cv2.COLOR_YUV2RGB_YUY2),
        ("yuyv", cv2.COLOR_YUV2RGB_YUY2),
        ("yuv422", cv2.COLOR_YUV2RGB_UYVY),
        ("uyvy", cv2.COLOR_YUV2RGB_UYVY),
    ],
)
def test_yuv_is_what_opencv_makes_of_it(encoding: str, code: int) -> None:
    raw = np.random.default_rng(2).integers(16, 236, (HEIGHT, WIDTH, 2), dtype=np.uint8)
    difference = rgb(raw.tobytes(), encoding).astype(int) - cv2.cvtColor(raw, code)
    assert np.abs(difference).max() <= 2  # OpenCV computes with whole numbers


@pytest.mark.parametrize("encoding", ["png", "bmp"])
def test_a_file_without_loss_is_read(seen: np.ndarray, encoding: str) -> None:
    buffer = BytesIO()
    Image.fromarray(seen).save(buffer, encoding)
    np.testing.assert_array_equal(rgb_from(buffer.getvalue(), encoding), seen)


def test_a_jpeg_has_its_own_size() -> None:
    buffer = BytesIO()
    Image.new("RGB", (10, 12), (200, 30, 60)).save(buffer, "jpeg", quality=95)
    assert rgb_from(np.frombuffer(buffer.getvalue(), np.uint8), "jpeg").shape == (12, 10, 3)


def test_what_stands_behind_a_row_is_left_out(seen: np.ndarray) -> None:
    padded = np.concatenate([seen.reshape(HEIGHT, -1), np.full((HEIGHT, 5), 9, np.uint8)], axis=1)
    np.testing.assert_array_equal(rgb(padded.tobytes(), "rgb8", step=WIDTH * 3 + 5), seen)
    np.testing.assert_array_equal(rgb(padded.tobytes()[:-5], "rgb8", step=WIDTH * 3 + 5), seen)  # the last row has none


def test_another_size_is_stretched_as_a_source_does(seen: np.ndarray) -> None:
    np.testing.assert_array_equal(rgb(seen.tobytes(), "rgb8", size=(3, 5)), resized(seen, (3, 5)))


@pytest.mark.parametrize(
    ("data", "encoding", "more", "told"),
    [
        (b"\0" * 71, "rgb8", {}, "71"),
        (b"\0" * 73, "rgb8", {}, "73"),
        (b"\0" * 72, "rgb8", {"step": 17}, "17"),
        (b"", "rgb8", {"height": 0}, "0 x 6"),
        (b"\0" * 72, "16UC1", {}, "16UC1"),
        (b"\0" * 72, "bayer_rggb8", {}, "bayer_rggb8"),
        (b"\0" * 40, "yuyv", {"width": 5}, "5"),
        (b"\xff\xd8 cut", "jpeg", {}, "jpeg"),
        (b"", "jpeg", {}, "empty"),
        (np.zeros(72, np.float32), "rgb8", {}, "float32"),
    ],
)
def test_what_is_no_frame_is_refused_with_its_reason(data: object, encoding: str, more: dict, told: str) -> None:
    with pytest.raises(InputError) as caught:
        rgb(data, encoding, **more)
    assert told in str(caught.value)


def test_every_encoding_is_known_by_its_name(seen: np.ndarray) -> None:
    for encoding in ENCODINGS:
        with pytest.raises(InputError) as caught:
            rgb_from(b"\0", encoding, height=2, width=2)
        assert "no encoding" not in str(caught.value)
