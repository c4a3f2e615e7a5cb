"""Standard input: every frame, in order, whatever it comes as, and what is cut or damaged is counted and said."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgessl.errors import InputError
from edgessl.signals import InputSpec, image_spec, series_spec
from edgessl.sources.images import read_image, resized
from edgessl.sources.stream import StreamSource

SPEC = image_spec(5, 7)
FRAMES = np.random.default_rng(0).integers(0, 256, (9, 5, 7, 3), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(FRAMES[0]).resize((64, 48)))


class Pipe:
    """A stream at the end of a pipe, and what was told."""

    def __init__(self, spec: InputSpec = SPEC) -> None:
        self.end, self.start = os.pipe()
        self.told: list[dict[str, Any]] = []
        self.stream = StreamSource(self.end, spec=spec, tell=self.told.append, wall=lambda: 12.5)

    def put(self, content: bytes) -> None:
        os.write(self.start, content)

    def close(self) -> None:
        if self.start >= 0:
            os.close(self.start)
            self.start = -1

    def all_of(self, content: bytes, step: int = 1 << 16) -> np.ndarray:
        """What comes out when this goes in, piece by piece."""

        def write() -> None:
            for at in range(0, len(content), step):
                self.put(content[at : at + step])
            self.close()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            return np.asarray([each.frame for each in self.stream])
        finally:
            writer.join()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()
    os.close(made.end)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def jpeg(pixels: np.ndarray, **given: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **given)
    return file.getvalue()


@pytest.mark.parametrize("step", [1, 7, 104, 105, 106, 100_000])
def test_raw_frames_come_out_as_they_went_in_whatever_the_pieces(pipe: Pipe, step: int) -> None:
    assert np.array_equal(pipe.all_of(FRAMES.tobytes(), step), FRAMES)
    assert pipe.stream.counts() == {"given": 9, "dropped": 0, "stale": 0, "damaged": 0, "reconnects": 0}
    assert pipe.stream.ended
    assert pipe.told == []


def test_frames_have_names_in_their_order_and_the_time_of_reading(pipe: Pipe) -> None:
    pipe.put(FRAMES[:2].tobytes())
    first, second = pipe.stream.read(5), pipe.stream.read(5)
    assert first is not None
    assert second is not None
    assert (first.name, second.name, second.stamp_s, second.age_s) == ("-#000000", "-#000001", 12.5, 0.0)


@pytest.mark.parametrize("step", [1, 50, 100_000])
def test_npy_arrays_are_samples_or_batches(pipe: Pipe, step: int) -> None:
    content = npy(FRAMES[0]) + npy(FRAMES[1:6]) + npy(np.asfortranarray(FRAMES[6])) + npy(FRAMES[7:9])
    assert np.array_equal(pipe.all_of(content, step), FRAMES)


def test_arrays_of_another_size_are_resized_as_images_are(pipe: Pipe) -> None:
    large = np.random.default_rng(1).integers(0, 256, (11, 13, 3), dtype=np.uint8)
    assert np.array_equal(pipe.all_of(npy(large)), resized(large, (5, 7))[None])


def test_series_come_as_arrays_or_raw() -> None:
    windows = np.random.default_rng(0).standard_normal((4, 3, 6)).astype(np.float32)
    for content in (windows.tobytes(), npy(windows[0]) + npy(windows[1:].astype(np.float64))):
        pipe = Pipe(series_spec(3, 6))
        assert np.array_equal(pipe.all_of(content), windows)
        os.close(pipe.end)


@pytest.mark.parametrize("step", [1, 999, 100_000])
@pytest.mark.parametrize("given", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"quality": 98}])
def test_jpegs_are_what_pillow_makes_of_them(pipe: Pipe, step: int, given: dict[str, Any]) -> None:
    contents = [jpeg(np.roll(SMOOTH, 5 * index, axis=1), **given) for index in range(4)]
    expected = [read_image(io.BytesIO(content), (5, 7)) for content in contents]
    assert np.array_equal(pipe.all_of(b"".join(contents), step), np.asarray(expected))
    assert pipe.told == []


def test_a_thumbnail_in_a_jpeg_is_no_frame(pipe: Pipe) -> None:
    exif = Image.Exif()
    exif[0x010E] = jpeg(SMOOTH).decode("latin-1")  # a whole image inside a segment
    content = jpeg(SMOOTH, exif=exif)
    assert content.count(b"\xff\xd8\xff") > 1 or b"JFIF" in content[20:]
    assert len(pipe.all_of(content + content)) == 2


@pytest.mark.parametrize(("content", "whole"), [(FRAMES.tobytes(), 9), (npy(FRAMES[0]) * 3, 3), (jpeg(SMOOTH) * 3, 3)])
@pytest.mark.parametrize("missing", [1, 60])
def test_a_last_frame_that_is_cut_off_is_counted_and_said(pipe: Pipe, content: bytes, whole: int, missing: int) -> None:
    assert len(pipe.all_of(content[:-missing])) == whole - 1
    assert pipe.stream.counts()["damaged"] == 1
    (told,) = pipe.told
    assert (told["event"], told["after"]) == ("truncated", whole - 1)
    assert "no whole frame" in told["reason"]


def test_less_than_one_frame_is_said_too(pipe: Pipe) -> None:
    assert len(pipe.all_of(b"\0\0")) == 0
    assert pipe.told[0]["reason"] == "the last 2 bytes are no whole frame"


def test_nothing_at_all_is_no_frame_and_no_damage(pipe: Pipe) -> None:
    assert len(pipe.all_of(b"")) == 0
    assert pipe.told == []


def test_a_damaged_jpeg_is_counted_and_the_next_one_is_found(pipe: Pipe) -> None:
    good = jpeg(SMOOTH)
    content = good + good[: len(good) // 2] + good + b"garbage between" + good + bytes(50)
    assert len(pipe.all_of(content, 333)) == 3
    assert [each["event"] for each in pipe.told] == ["damaged", "damaged"]
    assert pipe.stream.counts()["damaged"] == 2


def test_a_jpeg_without_its_end_does_not_take_the_next_one_with_it(pipe: Pipe) -> None:
    one, two = jpeg(SMOOTH), jpeg(SMOOTH[::-1])
    frames = pipe.all_of(one[:-2] + two + one)
    assert np.array_equal(frames[-2:], [read_image(io.BytesIO(each), (5, 7)) for each in (two, one)])
    assert len(frames) + pipe.stream.counts()["damaged"] == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (npy(FRAMES[0]) + b"something else", "after frame 1 of - stands no .npy array"),
        (npy(FRAMES[0].astype(np.float32)), "got float32"),
        (npy(np.asarray([{}], object)), "holds Python objects"),
        (b"\x93NUMPY\x01\x00\x10\x00" + b"nonsense" * 4, "cannot be read"),
        (npy(np.empty((0, 3), np.uint8)).replace(b"(0, 3)", b"(1<<40)"), "cannot be read"),
        (npy(np.empty((100000000, 0), np.uint8)).replace(b"(100000000, 0)", b"(100000000, 9)"), "over the limit"),
    ],
)
def test_arrays_that_are_no_frames_are_refused(pipe: Pipe, content: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        pipe.all_of(content)


def test_a_reader_waits_no_longer_than_it_says(pipe: Pipe) -> None:
    pipe.put(FRAMES[0].tobytes()[:50])
    assert pipe.stream.read(0.01) is None
    assert not pipe.stream.ended
    pipe.put(FRAMES[0].tobytes()[50:])
    frame = pipe.stream.read(5)
    assert frame is not None
    assert np.array_equal(frame.frame, FRAMES[0])


def test_closing_ends_it_and_leaves_the_descriptor_alone(pipe: Pipe) -> None:
    pipe.put(FRAMES.tobytes())
    with pipe.stream as stream:
        assert stream.read(5) is not None
    stream.close()
    assert stream.read(5) is None
    assert stream.ended
    os.fstat(pipe.end)


@pytest.mark.slow
def test_what_cat_gives_is_read_to_its_end(tmp_path: Path) -> None:
    many = np.random.default_rng(0).integers(0, 256, (3000, 5, 7, 3), dtype=np.uint8)
    (tmp_path / "frames.raw").write_bytes(many.tobytes())
    code = (
        "import sys, hashlib, time\n"
        "from edgessl.signals import image_spec\n"
        "from edgessl.sources import open_live\n"
        "digest = hashlib.sha256()\n"
        "with open_live('-', spec=image_spec(5, 7)) as live:\n"
        "    for number, frame in enumerate(live):\n"
        "        if number < 20: time.sleep(0.01)\n"  # slower than cat
        "        digest.update(frame.frame.tobytes())\n"
        "print(live.counts()['given'], digest.hexdigest())\n"
    )
    with subprocess.Popen(["cat", str(tmp_path / "frames.raw")], stdout=subprocess.PIPE) as cat:
        done = subprocess.run(
            [sys.executable, "-c", code], stdin=cat.stdout, capture_output=True, text=True, check=True
        )
    assert done.stdout.split() == ["3000", hashlib.sha256(many.tobytes()).hexdigest()]
