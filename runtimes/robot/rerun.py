"""A Rerun recording of a node: frames, drift, a map of the vectors, the version and the level.

A file is written and nothing is started: no viewer, no server, no telemetry. It is bounded, because a robot that records
for months would fill the disk that its state is written to.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rerun

from edgessl.runtimes.robot.answer import Answer
from edgessl.runtimes.robot.seams import Frame, Status

_LOG = logging.getLogger("edgessl.node")
_POINTS = 256  # vectors that the map shows
_QUALITY = 75  # of the pictures, JPEG
LIMIT_BYTES = 1_000_000_000


class Recording:
    """An observer that writes an `.rrd` file.

    Args:
        path: Written to; where it is there already, to the first free one of `NAME-2.rrd`, `NAME-3.rrd`, ..., because a
            node that starts again must neither fail nor lose the last recording.
        dim: Length of a vector.
        every: One frame in so many is recorded as a picture, and the map with it.
        limit_bytes: The recording ends when the file is larger.
        wall: Seconds since 1970.

    Attributes:
        path: Of the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        dim: int,
        every: int = 10,
        limit_bytes: int = LIMIT_BYTES,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.path = _free(path)
        self._every, self._limit, self._wall = every, limit_bytes, wall
        # The same for every run and every robot, so that two maps of one space can be laid over each other.
        self._plane = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, 2)))[0].astype(np.float32)
        self._points: deque[tuple[np.ndarray, int]] = deque(maxlen=_POINTS)
        self._embedded = 0
        self._said = ""
        self._stream: rerun.RecordingStream | None = rerun.RecordingStream("edgessl")
        self._stream.save(self.path)
        _LOG.info("recording", extra={"facts": {"path": str(self.path)}})

    def frame(self, frame: Frame | None, answer: Answer) -> None:
        """Record one embedded frame."""
        if self._stream is None or answer.vector is None or frame is None:
            return
        self._points.append((answer.vector @ self._plane, answer.version))
        self._mark()
        if not math.isnan(answer.drift):
            self._stream.log("drift", rerun.Scalars(answer.drift))
        self._stream.log("version", rerun.Scalars(answer.version))
        self._stream.log("embed_ms", rerun.Scalars(1000 * answer.took_s))
        if self._embedded % self._every == 0:
            self._stream.log("camera", rerun.Image(frame).compress(jpeg_quality=_QUALITY))
            places, versions = zip(*self._points, strict=True)
            self._stream.log("map", rerun.Points2D(np.stack(places), class_ids=[number % 65536 for number in versions]))
        self._embedded += 1

    def status(self, status: Status) -> None:
        """Record what changed of level, learning and health, and end the recording when it is too large."""
        if self._stream is None:
            return
        said = (
            f"level {status['level']}, learning {status['learning']}, shed {status['shed']}, health {status['health']}"
        )
        if said != self._said:
            self._said = said
            self._mark()
            self._stream.log("state", rerun.TextLog(said))
        if self.path.exists() and self.path.stat().st_size > self._limit:
            _LOG.warning("recording_ended", extra={"facts": {"path": str(self.path), "limit_bytes": self._limit}})
            self.close()

    def close(self) -> None:
        """Write what is left; closing twice is allowed."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.flush()
            stream.disconnect()

    def _mark(self) -> None:
        """Say when what follows happened."""
        if self._stream is not None:
            self._stream.set_time("frame", sequence=self._embedded)
            self._stream.set_time("time", timestamp=self._wall())


def _free(path: Path) -> Path:
    number, free = 2, path
    while free.exists():
        number, free = number + 1, path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free
