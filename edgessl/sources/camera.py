"""A camera through OpenCV, on Linux by V4L2.

A camera that was pulled may come back under another number; `camera:/dev/v4l/by-id/NAME` stays the same.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError, MissingExtraError, UnknownNameError
from edgessl.signals import InputSpec
from edgessl.sources.live import MAX_AGE_S, LiveSource
from edgessl.sources.livebase import Tell, quiet

#: What can be asked of a camera, and what OpenCV calls it.
OPTIONS = {"width": "CAP_PROP_FRAME_WIDTH", "height": "CAP_PROP_FRAME_HEIGHT", "fps": "CAP_PROP_FPS"}

_PLAUSIBLE_S = 1.0  # a frame that says it is older was stamped by another clock


def live_camera(data: str, *, spec: InputSpec, max_age_s: float | None = None, tell: Tell | None = None) -> LiveSource:
    """Open a camera and keep it open.

    What was asked for and what the camera really gives is told in an event `camera`, whenever it is opened.

    Args:
        data: `camera:0`, `camera:/dev/video0`, and behind it perhaps `?fps=30&width=640&height=480`.
        spec: Of images; frames are resized to it.
        max_age_s: See `LiveSource`.
        tell: See `LiveSource`.

    Raises:
        InputError: There is no such camera, or no such option.
        MissingExtraError: OpenCV is not installed.
    """
    device, asked = parsed(data)
    name = data.partition("?")[0]

    def opened() -> CameraGrabber:
        grabber = CameraGrabber(device, asked)
        (tell or quiet)({"event": "camera", "source": name, "asked": asked, "given": grabber.given})
        return grabber

    return LiveSource(name, opened, spec=spec, max_age_s=MAX_AGE_S if max_age_s is None else max_age_s, tell=tell)


def parsed(data: str) -> tuple[int | str, dict[str, float]]:
    """`camera:0?fps=30` -> device, and what is asked of it.

    Raises:
        InputError: There is no device, or an option is unknown or no number.
    """
    where, _, rest = data.removeprefix("camera:").partition("?")
    if not where:
        raise InputError(f"{data!r} names no camera; type camera:0 or camera:/dev/video0{_present()}")
    asked = {}
    for key, value in parse_qsl(rest, keep_blank_values=True):
        if key not in OPTIONS:
            raise UnknownNameError("option of a camera", key, OPTIONS)
        number = float(value) if value.replace(".", "", 1).isdecimal() else 0.0
        if number <= 0:
            raise InputError(f"{key}={value} of {data} is no positive number; type {key}=30")
        asked[key] = number
    return int(where) if where.isdecimal() else where, asked


class CameraGrabber:
    """See `Grabber`. One frame waits in the driver where the driver lets itself be asked for that.

    Args:
        device: Number or path.
        asked: Options, see `OPTIONS`; a camera that cannot do them gives what it can.
        clock: Seconds of the clock by which drivers stamp frames.

    Attributes:
        captured_s: When the driver had the last frame; None where it does not say it, or by another clock.
        given: What the camera says it gives: the keys of `OPTIONS`.

    Raises:
        InputError: It cannot be opened; names the cameras that are there.
        MissingExtraError: OpenCV is not installed.
    """

    def __init__(self, device: int | str, asked: dict[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        try:
            import cv2
        except ModuleNotFoundError as error:
            raise MissingExtraError("opencv-python-headless", "camera") from error
        self._cv2: Any = cv2
        self._clock = clock
        self.captured_s: float | None = None
        self._node = Path(f"/dev/video{device}" if isinstance(device, int) else device)
        self._linux = sys.platform == "linux"
        if self._linux and not self._node.exists():  # OpenCV would only print a warning
            raise InputError(f"there is no camera {self._node}{_present()}")
        self._capture = cv2.VideoCapture(device, cv2.CAP_V4L2 if self._linux else cv2.CAP_ANY)
        if not self._capture.isOpened():
            self._capture.release()
            raise InputError(
                f"{self._node} cannot be opened: another program has it, or it is no camera, or you may not read it "
                f"(type: sudo usermod -aG video $USER){_present()}"
            )
        for key, value in asked.items():
            self._capture.set(getattr(cv2, OPTIONS[key]), value)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.given = {key: float(self._capture.get(getattr(cv2, known))) for key, known in OPTIONS.items()}

    def grab(self) -> NDArray[np.uint8] | None:
        """Wait for a frame; None where it was not whole.

        Raises:
            OSError: The camera is gone.
        """
        good, frame = self._capture.read()
        if not good or frame is None:
            if self._linux and not self._node.exists():
                raise OSError(f"{self._node} is gone")
            return None
        stamp, now = self._capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1000, self._clock()
        self.captured_s = stamp if 0 <= now - stamp < _PLAUSIBLE_S else None
        if frame.shape != (int(self.given["height"]), int(self.given["width"]), 3):
            return None
        return np.asarray(self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB))

    def close(self) -> None:
        """Give the camera back."""
        self._capture.release()


def _present() -> str:
    """What else may be typed."""
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    return (
        f"; there is {', '.join('camera:' + path for path in found)}" if found else "; there is no /dev/video* at all"
    )
