"""Video files: known frames come back in any order, under the same names, and what is missing is said."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from edgessl.errors import InputError, MissingExtraError
from edgessl.signals import image_spec
from edgessl.sources import open_source
from edgessl.sources.images import resized

cv2 = pytest.importorskip("cv2", reason="pip install 'edgessl[camera]'")

COUNT, HEIGHT, WIDTH = 23, 48, 64


def _frames() -> np.ndarray:
    """Each has a grey of its own, and a red block that moves: what is BGR and what is RGB shows."""
    frames = np.empty((COUNT, HEIGHT, WIDTH, 3), np.uint8)
    for index in range(COUNT):
        frames[index] = 10 * index
        frames[index, 8:24, 2 * index : 2 * index + 16] = (250, 20, 30)
    return frames


def _video(path: Path, code: str = "MJPG") -> str:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 25, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for frame in _frames():
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return str(path)


@pytest.mark.parametrize(("ending", "code"), [("avi", "MJPG"), ("mkv", "MJPG"), ("mp4", "mp4v"), ("mov", "mp4v")])
def test_frames_come_back_in_order_with_their_stamps(tmp_path: Path, ending: str, code: str) -> None:
    source = open_source(_video(tmp_path / f"drive.{ending}", code))
    assert source.spec == image_spec(HEIGHT, WIDTH)
    assert source.names[0] == f"drive.{ending}#000000"
    assert source.names[-1] == f"drive.{ending}#{COUNT - 1:06d}"
    frames = np.concatenate([batch.frames for batch in source.batches(5)])
    assert len(frames) == COUNT
    assert np.abs(frames.astype(int) - _frames()).mean() < 6  # lossy; a neighbour's frame is 10 off, BGR far more
    block = frames[3, 12:20, 10:18].reshape(-1, 3).mean(0)
    assert block[0] > 200 > 80 > block[2]
    assert np.allclose(source.stamps, np.arange(COUNT) / 25)  # type: ignore[attr-defined]
    assert source.skipped == []


def test_a_lossless_video_is_the_same_to_the_bit(tmp_path: Path) -> None:
    source = open_source(_video(tmp_path / "a.avi", "FFV1"))
    assert np.array_equal(source.read(range(COUNT))[1], _frames())


def test_frames_are_read_in_any_order(tmp_path: Path) -> None:
    data = _video(tmp_path / "a.avi", "FFV1")
    source = open_source(data)
    for indices in ([20, 3, 3, 7], [0], [22, 21], [5, 6, 7], [2]):
        found, frames = source.read(indices)
        assert found.tolist() == indices
        assert np.array_equal(frames, _frames()[indices])


def test_a_second_reading_after_a_restart_gives_the_same_frames_under_the_same_names(tmp_path: Path) -> None:
    data = _video(tmp_path / "a.mp4", "mp4v")
    first, second = open_source(data), open_source(data)
    whole = first.read(range(COUNT))[1]
    assert np.array_equal(second.read(range(15, COUNT))[1], whole[15:])
    assert (first.names, first.digest()) == (second.names, second.digest())


def test_frames_that_follow_each_other_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(_video(tmp_path / "a.avi"), size=(HEIGHT, WIDTH))
    opened: list[str] = []
    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda *given: opened.append(given[0]) or real(*given))
    assert len(list(source.batches(4))) == 6
    assert len(opened) == 1


def test_frames_are_resized_as_images_are(tmp_path: Path) -> None:
    source = open_source(_video(tmp_path / "a.avi", "FFV1"), spec=image_spec(24, 40))
    assert np.array_equal(source.read([4])[1][0], resized(_frames()[4], (24, 40)))


def _packets(content: bytes) -> list[int]:
    data = content.index(b"movi")
    return [found.start() for found in re.finditer(b"00dc", content) if found.start() > data][:COUNT]


def test_a_video_that_was_cut_off_gives_what_is_there_and_says_so(tmp_path: Path) -> None:
    content = Path(_video(tmp_path / "a.avi", "FFV1")).read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(content[: _packets(content)[15] + 5])
    source = open_source(str(cut))
    frames = np.concatenate([batch.frames for batch in source.batches(4)])
    assert len(frames) >= 14
    assert np.array_equal(frames[:14], _frames()[:14])
    assert any("was cut" in skipped.reason and f"of {COUNT} frames" in skipped.reason for skipped in source.skipped)
    with pytest.raises(InputError, match=r"was cut.*leave out --strict"):
        open_source(str(cut), strict=True)


def test_a_frame_that_cannot_be_decoded_is_skipped_and_the_others_keep_their_names(tmp_path: Path) -> None:
    path = Path(_video(tmp_path / "a.avi"))
    whole = open_source(str(path)).read(range(COUNT))[1]
    content = bytearray(path.read_bytes())
    at = _packets(bytes(content))[9] + 8
    size = int.from_bytes(content[at - 4 : at], "little")
    content[at : at + size] = bytes(size)  # no image at all
    path.write_bytes(content)
    source = open_source(str(path))
    indices, frames = source.read(range(COUNT))
    others = [index for index in range(COUNT) if index != 9]
    assert indices.tolist() == others
    assert np.array_equal(frames, whole[others])
    assert [skipped.name for skipped in source.skipped] == ["a.avi#000009"]
    assert open_source(str(path)).read([9, 10])[0].tolist() == [10]
    with pytest.raises(InputError, match=r"a\.avi#000009.*cannot be decoded"):
        open_source(str(path), strict=True).read([9])


def test_what_is_no_video_says_so(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"0")
    with pytest.raises(InputError, match="cannot be opened as a video"):
        open_source(str(tmp_path / "film.mp4"))


def test_without_opencv_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.avi").write_bytes(b"RIFF")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"edgessl\[camera\]"):
        open_source(str(tmp_path / "a.avi"))
