"""A camera at the seam to OpenCV: what is asked of it, what is read back, and what happens when it is pulled."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgessl.errors import InputError, MissingExtraError, UnknownNameError
from edgessl.signals import image_spec
from edgessl.sources import camera, open_live
from edgessl.sources.camera import CameraGrabber, parsed

cv2 = pytest.importorskip("cv2", reason="pip install 'edgessl[camera]'")

BLUE = (200, 30, 10)  # as OpenCV gives it: blue first


class Capture:
    """What OpenCV gives for a camera of 640x480 that does not do everything that is asked of it."""

    works = True
    opened: list[tuple[Any, ...]]

    def __init__(self, *given: Any) -> None:
        type(self).opened.append(given)
        self.set_to: dict[int, float] = {}
        self.known = {cv2.CAP_PROP_FRAME_WIDTH: 640.0, cv2.CAP_PROP_FRAME_HEIGHT: 480.0, cv2.CAP_PROP_FPS: 30.0}
        self.stamp_ms = 0.0
        self.frame: np.ndarray | None = np.full((480, 640, 3), BLUE, np.uint8)
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802
        return self.works

    def set(self, key: int, value: float) -> bool:
        self.set_to[key] = value
        return key in self.known

    def get(self, key: int) -> float:
        return self.stamp_ms if key == cv2.CAP_PROP_POS_MSEC else self.known[key]

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(0.001)
        return self.frame is not None, self.frame

    def release(self) -> None:
        self.released = True


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device that is there, and OpenCV that opens it."""
    Capture.opened = []
    monkeypatch.setattr(Capture, "works", True)
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(sys, "platform", "linux")
    path = tmp_path / "video0"
    path.touch()
    return path


def test_what_is_typed_is_a_device_and_what_is_asked_of_it() -> None:
    assert parsed("camera:0") == (0, {})
    assert parsed("camera:/dev/video2?fps=29.5&width=640") == ("/dev/video2", {"fps": 29.5, "width": 640.0})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("camera:", "names no camera; type camera:0"),
        ("camera:0?fps=fast", "fps=fast.*no positive number; type fps=30"),
        ("camera:0?fps=0", "no positive number"),
        ("camera:0?fps=", "no positive number"),
        ("camera:0?hight=3", "no option of a camera 'hight'; did you mean 'height'"),
    ],
)
def test_what_cannot_be_asked_says_what_can(data: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parsed(data)
    assert issubclass(UnknownNameError, InputError)


def test_a_short_queue_is_asked_for_and_what_the_camera_gives_is_read_back(node: Path) -> None:
    grabber = CameraGrabber(str(node), {"fps": 60.0, "width": 800.0})
    capture = grabber._capture
    assert Capture.opened == [(str(node), cv2.CAP_V4L2)]
    assert capture.set_to == {cv2.CAP_PROP_FPS: 60.0, cv2.CAP_PROP_FRAME_WIDTH: 800.0, cv2.CAP_PROP_BUFFERSIZE: 1}
    assert grabber.given == {"width": 640.0, "height": 480.0, "fps": 30.0}
    grabber.close()
    assert capture.released


def test_frames_are_rgb(node: Path) -> None:
    found = CameraGrabber(str(node), {}).grab()
    assert found is not None
    assert found.shape == (480, 640, 3)
    assert tuple(found[5, 5]) == BLUE[::-1]


@pytest.mark.parametrize(("before_s", "known"), [(0.02, True), (-3.0, False), (1e5, False)])
def test_a_stamp_of_the_driver_is_believed_where_it_is_of_our_clock(node: Path, before_s: float, known: bool) -> None:
    grabber = CameraGrabber(str(node), {}, clock=lambda: 5000.0)
    grabber._capture.stamp_ms = 1000 * (5000.0 - before_s)
    grabber.grab()
    assert grabber.captured_s == (pytest.approx(5000.0 - before_s) if known else None)


def test_a_frame_of_another_size_than_the_camera_said_is_damaged(node: Path) -> None:
    grabber = CameraGrabber(str(node), {})
    grabber._capture.frame = np.zeros((480, 320, 3), np.uint8)
    assert grabber.grab() is None
    grabber._capture.frame = None
    assert grabber.grab() is None


def test_a_camera_that_is_pulled_is_gone(node: Path) -> None:
    grabber = CameraGrabber(str(node), {})
    grabber._capture.frame = None
    node.unlink()
    with pytest.raises(OSError, match="is gone"):
        grabber.grab()
    with pytest.raises(InputError, match=f"there is no camera {node}"):
        CameraGrabber(str(node), {})


def test_a_camera_that_another_program_has_says_so(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "works", False)
    with pytest.raises(InputError, match="another program has it"):
        CameraGrabber(str(node), {})


def test_the_cameras_that_are_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera.Path, "glob", lambda self, pattern: [Path("/dev/video4")])
    with pytest.raises(InputError, match="there is camera:/dev/video4"):
        parsed("camera:")


def test_a_camera_is_a_stream(node: Path) -> None:
    told: list[dict[str, Any]] = []
    with open_live(f"camera:{node}?fps=60", spec=image_spec(24, 32), max_age_s=5.0, tell=told.append) as live:
        frame = live.read(5.0)
        assert frame is not None
        assert frame.name.startswith(f"camera:{node}#0000")
        assert frame.frame.shape == (24, 32, 3)
        assert tuple(frame.frame[3, 3]) == BLUE[::-1]
    given = {"width": 640.0, "height": 480.0, "fps": 30.0}
    assert told == [{"event": "camera", "source": f"camera:{node}", "asked": {"fps": 60.0}, "given": given}]


def test_without_opencv_the_extra_is_named(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"edgessl\[camera\]"):
        open_live(f"camera:{node}", spec=image_spec(4, 4))
