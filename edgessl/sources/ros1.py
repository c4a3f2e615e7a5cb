"""A ROS 1 bag, through rosbags."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError, MissingExtraError
from edgessl.sources.base import Skipped
from edgessl.sources.images import UnreadableError
from edgessl.sources.logfile import Entries, Topic
from edgessl.sources.messages import HEAD, stamp_of


class Ros1File:
    """See `LogFile`. Messages that follow each other are read in one go.

    Args:
        path: The file.

    Raises:
        InputError: It is no bag, or has no index.
        MissingExtraError: rosbags is not installed.
    """

    _reader: Any
    _running: Iterator[tuple[Any, int, bytes]] | None
    _next: int

    def __init__(self, path: Path) -> None:
        self.damage: list[Skipped] = []
        self._path = path
        self._open()
        self.topics = [
            Topic(name, info.msgtype or "", "ros1", info.msgcount) for name, info in self._reader.topics.items()
        ]
        self._topic = ""
        self._logged: NDArray[np.int64] = np.zeros(0, np.int64)

    def entries(self, topic: Topic) -> Entries:
        """Where the messages of `topic` stand."""
        self._topic = topic.name
        rows: list[tuple[int, float]] = []
        try:
            rows.extend(
                (logged, stamp_of(bytes(content[:HEAD]), "ros1")) for _, logged, content in self._messages(None)
            )
        except Exception as error:  # noqa: BLE001 (see `_open`)
            self.damage.append(
                Skipped(self._path.name, f"the recording is damaged: {error}; what stands before it is read")
            )
        self._logged = np.asarray([logged for logged, _ in rows], np.int64)
        return Entries(
            self._logged, np.asarray([stamp for _, stamp in rows], np.float64), np.arange(len(rows))[:, None]
        )

    def content(self, place: NDArray[np.int64]) -> bytes:
        """One message."""
        number = int(place[0])
        try:
            if self._process != os.getpid():  # a forked process would share the place in the file
                self._open()
            if self._running is None or number != self._next:
                start = int(self._logged[number])
                self._running = self._messages(start)
                self._next = int(np.searchsorted(self._logged, start))
            while True:
                _, _, content = next(self._running)
                self._next += 1
                if self._next > number:
                    return bytes(content)
        except Exception as error:  # (see `_open`)
            self._running = None
            raise UnreadableError(f"it cannot be read: {error}") from error

    def _open(self) -> None:
        try:
            from rosbags.rosbag1 import Reader
        except ModuleNotFoundError as error:
            raise MissingExtraError("rosbags", "bags") from error
        try:
            self._reader = Reader(self._path)
            self._reader.open()
        except Exception as error:  # damaged headers make it raise almost anything
            raise InputError(
                f"{self._path} cannot be read as a ROS 1 bag: {error}. Repair it with: rosbag reindex {self._path}"
            ) from error
        weakref.finalize(self, self._reader.close)
        self._process = os.getpid()
        self._running = None
        self._next = 0

    def _messages(self, start: int | None) -> Iterator[tuple[Any, int, bytes]]:
        """Those of the topic, from this time on."""
        links = [link for link in self._reader.connections if link.topic == self._topic]
        return iter(self._reader.messages(connections=links, start=start))
