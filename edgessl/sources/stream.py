"""Standard input as a stream of frames: in order, and every one of them.

A pipe holds back whoever writes into it, so nothing has to be dropped and nothing gets old in here: `cat frames.raw | edgessl
embed robot.edgessl -` embeds all that `cat` gives. (Frames of a camera get old in a pipe; name the camera itself, `camera:0`.)

What comes is told by its first bytes:

- `.npy` arrays, one after the other, each a sample `(*shape)` or a batch `(n, *shape)`;
- JPEG images, one after the other, resized to the encoder's input;
- else raw samples of the encoder's input, dtype and shape, without anything between them.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.signals import InputSpec
from edgessl.sources.images import UnreadableError, read_image, resized
from edgessl.sources.livebase import LiveFrame, Tell, quiet

_NPY, _JPEG = b"\x93NUMPY", b"\xff\xd8\xff"
_READ_BYTES = 1 << 20
_LARGEST = 1 << 28  # bytes of one frame or array; more is no frame
_READ_S = 1.0  # how often an iteration looks whether it was closed
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in a JPEG's data: not stuffed, no fill, no restart

#: bytes so far -> the samples they begin with and how many bytes these take; None where more bytes are needed
Split = Callable[[bytearray], "tuple[list[NDArray[Any]], int] | None"]


class StreamSource:
    """Frames out of a file descriptor; use it in a `with`, or close it. Closing twice is allowed.

    A damaged frame is counted and told, and the next one looked for. So is a rest at the end that is no whole frame.

    Args:
        descriptor: Where to read; 0 is standard input. It is not closed.
        spec: What one frame is.
        name: What the user typed.
        tell: Called with events: `damaged`, `truncated`.
        wall: Seconds since 1970.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        spec: InputSpec,
        name: str = "-",
        tell: Tell | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name, self.spec = name, spec
        self._descriptor, self._tell, self._wall = descriptor, tell or quiet, wall
        self._bytes = bytearray()
        self._waiting: list[NDArray[Any]] = []
        self._split: Split | None = None
        self._number = 0
        self._counts = dict.fromkeys(("given", "dropped", "stale", "damaged", "reconnects"), 0)
        self._over = self._closed = False

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more."""
        return self._closed or (self._over and not self._waiting and not self._bytes)

    def read(self, timeout_s: float) -> LiveFrame | None:
        """The next frame; None when none came within `timeout_s`, or it is at its end.

        Raises:
            InputError: An array of another shape or dtype, or what cannot be told apart into frames.
        """
        until = time.monotonic() + timeout_s
        while not self._waiting and not self.ended:
            self._take()
            if self._waiting or self._over:
                break
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            got = os.read(self._descriptor, _READ_BYTES)
            self._bytes += got
            self._over = not got
        if not self._waiting:
            self._say_rest()
            return None
        frame = self._waiting.pop(0)
        self._counts["given"] += 1
        self._number += 1
        return LiveFrame(f"{self.name}#{self._number - 1:06d}", self._wall(), 0.0, frame)

    def __iter__(self) -> Iterator[LiveFrame]:
        while not self.ended:
            frame = self.read(_READ_S)
            if frame is not None:
                yield frame

    def counts(self) -> dict[str, int]:
        """Frames `given` and `damaged`; `dropped`, `stale` and `reconnects` are 0, as of every stream of this kind."""
        return dict(self._counts)

    def close(self) -> None:
        """Read no more; the descriptor stays open, for it belongs to the process."""
        self._closed = True
        self._waiting.clear()
        self._bytes.clear()

    def __enter__(self) -> StreamSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> None:
        """Make frames of the bytes that are there, as soon as there are any."""
        if self._split is None:
            if len(self._bytes) < len(_NPY) and not self._over:
                return
            self._split = self._splitter()
        while not self._waiting and self._bytes:
            try:
                found = self._split(self._bytes)
            except _DamagedError as error:
                self._damaged("damaged", str(error))
                del self._bytes[: error.size]
                continue
            if found is None:
                break
            frames, size = found
            self._waiting += frames
            del self._bytes[:size]

    def _say_rest(self) -> None:
        """What is left at the end is no whole frame; zeros behind an image are padding."""
        if self._over and self._bytes and (self._split != self._images or any(self._bytes)):
            self._damaged("truncated", f"the last {len(self._bytes)} bytes are no whole frame")
        if self._over:
            self._bytes.clear()

    def _damaged(self, event: str, reason: str) -> None:
        self._counts["damaged"] += 1
        self._tell({"event": event, "source": self.name, "after": self._number, "reason": reason})

    def _splitter(self) -> Split:
        if self._bytes.startswith(_NPY):
            return self._arrays
        if self._bytes.startswith(_JPEG):
            if self.spec.kind != "image":
                raise InputError(f"{self.name} gives JPEG images and this encoder takes {self.spec.kind}")
            return self._images
        return self._raw

    def _raw(self, content: bytearray) -> tuple[list[NDArray[Any]], int] | None:
        kind = np.dtype(self.spec.dtype).newbyteorder("<")
        size = kind.itemsize * int(np.prod(self.spec.shape))
        if len(content) < size:
            return None
        sample = np.frombuffer(bytes(content[:size]), kind).reshape(self.spec.shape)
        return [sample.astype(self.spec.dtype)], size

    def _arrays(self, content: bytearray) -> tuple[list[NDArray[Any]], int] | None:
        """An array and what stands in front of it: magic, version, length, a header of text."""
        if not content.startswith(_NPY[: len(content)]):
            raise InputError(
                f"after frame {self._number} of {self.name} stands no .npy array; write them with numpy.save"
            )
        if len(content) < 12:
            return None
        wide = 2 if content[6] == 1 else 4
        head = 8 + wide + int.from_bytes(content[8 : 8 + wide], "little")
        if len(content) < head:
            return None
        shape, kind = self._header(bytes(content[:head]))
        size = head + kind.itemsize * int(np.prod(shape, dtype=np.int64))
        if size > _LARGEST:
            raise InputError(
                f"an array of {self.name} has {size} bytes, over the limit of {_LARGEST}; write smaller ones"
            )
        if len(content) < size:
            return None
        array = np.load(BytesIO(bytes(content[:size])), allow_pickle=False)
        batch = array[None] if array.shape == self.spec.shape else array
        if self.spec.kind == "image" and batch.dtype == np.uint8 and batch.ndim in (3, 4) and batch.shape[-1] == 3:
            frames = batch[None] if batch.ndim == 3 else batch
            height, width = self.spec.shape[:2]
            return [np.array(resized(frame, (height, width))) for frame in frames], size
        if self.spec.kind != "image" and np.issubdtype(batch.dtype, np.floating):
            batch = batch.astype(self.spec.dtype)
        return list(self.spec.check(batch)), size

    def _header(self, head: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
        try:
            file = BytesIO(head)
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, kind = read(file)
        except ValueError as error:
            raise InputError(f"an array of {self.name} cannot be read: {error}; write it with numpy.save") from error
        if kind.hasobject:
            raise InputError(f"an array of {self.name} holds Python objects; write numbers")
        return shape, kind

    def _images(self, content: bytearray) -> tuple[list[NDArray[Any]], int] | None:
        start = content.find(_JPEG)
        if start:  # padding, or the rest of a damaged one
            size = start if start > 0 else max(0, len(content) - 2)
            if any(content[:size]):
                raise _DamagedError(size, f"{size} bytes between two images")
            return ([], size) if size else None
        end = _jpeg_end(content)
        if end is None:
            if len(content) > _LARGEST:
                raise _DamagedError(len(content), f"no end of an image within {_LARGEST} bytes")
            return None
        try:
            return [read_image(BytesIO(bytes(content[:end])), (self.spec.shape[0], self.spec.shape[1]))], end
        except UnreadableError as error:
            # The next image may stand inside what this one claims to be.
            inside = content.find(_JPEG, 1, end)
            raise _DamagedError(inside if inside > 0 else end, str(error)) from error


class _DamagedError(Exception):
    """So many bytes are no frame."""

    def __init__(self, size: int, reason: str) -> None:
        super().__init__(reason)
        self.size = size


def _jpeg_end(content: bytearray) -> int | None:
    """Where the JPEG ends that `content` begins with; None where it does not end in it."""
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:  # damaged: take the next marker that looks like one
            found = _MARKER.search(content, at)
            if found is None:
                return None
            at = found.start()
        kind = content[at + 1]
        if kind == 0xD9:
            return at + 2
        if kind == 0xD8:  # another one begins: this one has no end
            return at
        if kind == 0xFF:
            at += 1
            continue
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if kind == 0xDA:
            found = _MARKER.search(content, min(at, len(content)))
            if found is None:
                return None
            at = found.start()
    return at + 2 if content[at : at + 2] == b"\xff\xd9" else None
