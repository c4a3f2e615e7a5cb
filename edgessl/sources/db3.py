"""The SQLite file of a ROS 2 bag."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.sources.base import Skipped
from edgessl.sources.images import UnreadableError
from edgessl.sources.logfile import ZSTD, Entries, Topic, ros2_kind, unpacked
from edgessl.sources.messages import HEAD, stamp_of


class Db3File:
    """See `LogFile`. Opened to be read only; messages that are compressed one by one are unpacked.

    Args:
        path: The file.

    Raises:
        InputError: It is no bag, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damage: list[Skipped] = []
        # What waits in a journal beside the file is read too; without one nothing is ever written there.
        mode = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
        self._address = f"{path.absolute().as_uri()}?{mode}"
        try:
            rows = self._asked(
                "SELECT name, type, serialization_format, (SELECT count(*) FROM messages WHERE topic_id = topics.id) FROM topics"
            )
            self.topics = [Topic(name, ros2_kind(kind), encoding, count) for name, kind, encoding, count in rows]
        except sqlite3.Error as error:
            raise InputError(
                f"{path} cannot be read as a ROS 2 bag: {error}. Repair it with: sqlite3 {path} .recover | sqlite3 repaired.db3"
            ) from error

    def entries(self, topic: Topic) -> Entries:
        """Where the messages of `topic` stand."""
        found = self._asked(
            "SELECT id, timestamp, substr(data, 1, ?) FROM messages WHERE topic_id IN "
            "(SELECT id FROM topics WHERE name = ? AND serialization_format = ?) ORDER BY timestamp, id",
            (HEAD, topic.name, topic.encoding),
        )
        rows: list[tuple[int, int, float]] = []
        try:
            rows.extend((place, logged, self._stamp(place, head, topic.encoding)) for place, logged, head in found)
        except sqlite3.Error as error:
            self.damage.append(
                Skipped(self._path.name, f"the recording is damaged: {error}; what stands before it is read")
            )
        return Entries(
            np.asarray([logged for _, logged, _ in rows], np.int64),
            np.asarray([stamp for _, _, stamp in rows], np.float64),
            np.asarray([place for place, _, _ in rows], np.int64).reshape(-1, 1),
        )

    def content(self, place: NDArray[np.int64]) -> bytes:
        """One message."""
        try:
            row = next(self._asked("SELECT data FROM messages WHERE id = ?", (int(place[0]),)), None)
        except sqlite3.Error as error:
            raise UnreadableError(str(error)) from error
        if row is None or not isinstance(row[0], bytes):
            raise UnreadableError("the file holds no such message any more")
        return unpacked(row[0], "zstd", 0) if row[0].startswith(ZSTD) else row[0]

    def _asked(self, question: str, given: tuple[object, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows; each time by a connection of its own, for one must not be carried into a forked process."""
        with closing(sqlite3.connect(self._address, uri=True)) as base:
            yield from base.execute(question, given)

    def _stamp(self, place: int, head: bytes, encoding: str) -> float:
        if head.startswith(ZSTD):
            try:
                head = self.content(np.asarray([place]))[:HEAD]
            except UnreadableError:
                return 0.0  # said when it is read
        return stamp_of(head, encoding)
