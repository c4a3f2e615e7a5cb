"""A video file: its frames in order, decoded one after the other."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError, MissingExtraError
from edgessl.sources.base import Skipped
from edgessl.sources.decoded import DecodedSource
from edgessl.sources.images import resized

_SAME_S = 1e-6  # two stamps nearer than this are one
_TRIES = 100  # damaged packets in a row that are gone past
_LOST = 0.01  # a header's count of frames is an estimate in some containers


class VideoSource(DecodedSource):
    """The frames of a video file as RGB frames of one size, named `FILE#000123`.

    The packets are counted once, without decoding them, which gives names and stamps. Frames are then decoded in order: to
    go back, the file is opened again and run through, for seeking is not exact in every codec. One `read` therefore goes
    through its indices in the order of the file. A frame that the decoder leaves out is known by the stamp of the next
    one, so every other keeps its name.

    Args:
        path: The file.
        size: Height and width of a frame; the video's own when None.
        strict: Make a frame that cannot be decoded an error.
        name: What the user typed; the path when None.

    Attributes:
        stamps: `(n,)` seconds since the start of the file: a video does not say when it was taken.

    Raises:
        InputError: It cannot be opened, or holds no frame.
        MissingExtraError: OpenCV is not installed.
    """

    def __init__(
        self, path: Path, size: tuple[int, int] | None = None, *, strict: bool = False, name: str | None = None
    ) -> None:
        super().__init__(str(path) if name is None else name, strict=strict)
        self._path = path
        self.stamps, told = _packets(path)
        if not len(self.stamps):
            raise InputError(f"{path} holds no video frame that can be read; write it again, or give another file")
        self.names = [f"{path.name}#{index:06d}" for index in range(len(self.stamps))]
        self._ordered = bool((np.diff(self.stamps) > _SAME_S).all())
        if told - len(self.stamps) > max(1, _LOST * told):
            self.skip(Skipped(path.name, f"the file was cut: {len(self.stamps)} of {told} frames are in it"))
        self._capture: Any = None
        self._process = os.getpid()
        self._at = -1  # place of the frame that was decoded last
        self._end = len(self.stamps)  # no frame from here on can be decoded
        self.sized(size, f"none of the {len(self)} frames of {path} can be decoded; write it again")

    def digest(self) -> str:
        """sha256 over the name, the size and the stamps; the pixels are not read."""
        told = f"{self._path.name}\0{self._path.stat().st_size}\0".encode()
        return hashlib.sha256(told + self.stamps.astype("<f8").tobytes()).hexdigest()

    def frame(self, index: int, size: tuple[int, int] | None) -> NDArray[np.uint8] | None:
        """The frame at `index`; quick where it follows the one before."""
        import cv2

        if self.names[index] in self._skipped:
            return None
        if self._capture is None or index < self._at or self._process != os.getpid():
            # A decoder has threads, which a forked process would wait for in vain.
            self._capture, self._at, self._process = _opened(self._path), -1, os.getpid()
        while self._at < index < self._end:
            self._advance()
        good, frame = self._capture.retrieve() if self._at == index else (False, None)
        if not good or frame is None:
            self.skip(Skipped(self.names[index], "it cannot be decoded"))
            return None
        return resized(np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)), size)

    def _advance(self) -> None:
        """Decode one frame, and find out which it is."""
        import cv2

        # A damaged packet fails once and the next is decoded; at the end it fails for ever.
        if not any(self._capture.grab() for _ in range(_TRIES)):
            self._end = self._at + 1
            return
        self._at += 1
        if self._ordered:
            stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            self._at = max(self._at, int(np.searchsorted(self.stamps, stamp - _SAME_S)))

    def refusal(self, skipped: Skipped) -> str:
        """What to do."""
        return (
            f"{self._path}: {skipped.name}: {skipped.reason}. Write the video again, or leave out --strict to skip it"
        )


def _opened(path: Path) -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise MissingExtraError("opencv-python-headless", "camera") from error
    # A name with % is a pattern of image files to OpenCV, and a file of its own to us.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise InputError(f"{path} cannot be opened as a video; give a file that ffprobe can read")
    return capture


def _packets(path: Path) -> tuple[NDArray[np.float64], int]:
    """Stamps of the frames `(n,)` in seconds, in the order in which they are shown, and how many the header tells."""
    capture = _opened(path)
    import cv2

    told = int(max(0, capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    # Packets as they stand in the file, not decoded; where that cannot be had, frames are decoded to be counted.
    capture.set(cv2.CAP_PROP_FORMAT, -1)
    stamps = []
    while capture.grab():
        stamps.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    capture.release()
    return np.sort(np.asarray(stamps, np.float64)), told
