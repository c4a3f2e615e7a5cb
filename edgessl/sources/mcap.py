"""An MCAP file, whole or cut off, to its specification at mcap.dev.

It is gone through once, record by record, and only where each message stands is kept. Neither the summary at the end nor the
indexes between the chunks are needed, and so what a robot wrote until its power went is read like any other file.
"""

from __future__ import annotations

import io
import struct
import zlib
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.sources.base import Skipped
from edgessl.sources.images import UnreadableError
from edgessl.sources.logfile import LARGEST, Entries, Topic, ros2_kind, unpacked
from edgessl.sources.messages import HEAD, stamp_of

MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 2, 3, 4, 5, 6, 15
_MESSAGE_HEAD = 22  # channel, sequence, two times


@dataclass
class _Channel:
    topic: str
    kind: str
    encoding: str
    logged_ns: array[int] = field(default_factory=lambda: array("q"))
    stamps: array[float] = field(default_factory=lambda: array("d"))
    places: array[int] = field(default_factory=lambda: array("q"))  # chunk or 0, offset, size


class McapFile:
    """See `LogFile`. A message in a compressed chunk costs the unpacking of the chunk; the last one is kept.

    Args:
        path: The file.

    Raises:
        InputError: It is no MCAP file.
        MissingExtraError: It is compressed, and what unpacks it is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damage: list[Skipped] = []
        self._schemas: dict[int, str] = {0: ""}
        self._channels: dict[int, _Channel] = {}
        self._kept: tuple[int, bytes] = (0, b"")  # the chunk that was unpacked last
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise InputError(f"{path} is no MCAP file: it does not begin as one; give the recording itself")
            size = file.seek(0, io.SEEK_END)
            stopped = self._scan(file, len(MAGIC), size)
        if stopped is not None:
            said = (
                f"the recording was cut off, or is damaged, at byte {stopped} of {size}; what stands before it is read"
            )
            self.damage.append(Skipped(path.name, said))
        self.topics = [
            Topic(each.topic, each.kind, each.encoding, len(each.logged_ns)) for each in self._channels.values()
        ]

    def entries(self, topic: Topic) -> Entries:
        """Where the messages of `topic` stand."""
        found = [
            each
            for each in self._channels.values()
            if (each.topic, each.kind, each.encoding) == (topic.name, topic.kind, topic.encoding)
        ]
        return Entries(
            np.concatenate([np.array(each.logged_ns, np.int64) for each in found]),
            np.concatenate([np.array(each.stamps, np.float64) for each in found]),
            np.concatenate([np.array(each.places, np.int64).reshape(-1, 3) for each in found]),
        )

    def content(self, place: NDArray[np.int64]) -> bytes:
        """One message."""
        chunk, offset, size = (int(value) for value in place)
        with self._path.open("rb") as file:
            if chunk:
                if self._kept[0] != chunk:
                    self._kept = (chunk, _unpacked(file, chunk))
                return self._kept[1][offset : offset + size]
            file.seek(offset)
            content = file.read(size)
        if len(content) < size:
            raise UnreadableError("the file ends before it")
        return content

    def _scan(self, file: BinaryIO, start: int, end: int, *, chunk: int = 0, nested: bool = False) -> int | None:
        """Take in the records between `start` and `end`; where it had to stop before the end, or None.

        Args:
            file: The file, or an unpacked chunk.
            start: Of the first record.
            end: Of the last.
            chunk: Where the chunk stands whose unpacked content this is.
            nested: This is in a chunk.
        """
        while start < end:
            file.seek(start)
            head = file.read(9)
            kind, length = (head[0], int.from_bytes(head[1:], "little")) if len(head) == 9 else (0, end)
            body, after = start + 9, start + 9 + length
            if kind in (_FOOTER, _DATA_END) and not nested:  # what follows repeats what was read
                return None
            try:
                if kind == _CHUNK and not nested:
                    lost = self._chunk(file, body, min(after, end))
                    if lost and after <= end:
                        self.damage.append(Skipped(f"{self._path.name} byte {start}", lost))
                if kind == 0 or after > end:
                    return start
                if kind == _MESSAGE:
                    self._message(file, body, length, chunk)
                elif kind in (_SCHEMA, _CHANNEL):
                    self._describe(kind, file.read(length))
            except (struct.error, UnicodeDecodeError, KeyError) as error:
                if after > end:
                    return start
                self.damage.append(Skipped(f"{self._path.name} byte {start}", f"a damaged record: {error!r}"))
            start = after
        return None if nested and start == end else start

    def _chunk(self, file: BinaryIO, start: int, end: int) -> str:
        """Take in a chunk, and say what of it is lost; of one that is not compressed only what is cut off."""
        file.seek(start)
        *_, named = struct.unpack("<QQQII", file.read(32))
        if not named:
            stopped = self._scan(file, start + 40, end, nested=True)
            return "" if stopped is None else f"a chunk is damaged at byte {stopped}"
        try:
            content = _unpacked(file, start)
        except UnreadableError as error:
            return f"a chunk is lost: {error}"
        stopped = self._scan(io.BytesIO(content), 0, len(content), chunk=start, nested=True)
        return "" if stopped is None else f"a chunk is damaged at byte {stopped} of its content"

    def _message(self, file: BinaryIO, body: int, length: int, chunk: int) -> None:
        head = file.read(min(length, _MESSAGE_HEAD + HEAD))
        number, _, logged, _ = struct.unpack_from("<HIQQ", head)
        channel = self._channels[number]
        channel.logged_ns.append(logged)
        channel.stamps.append(stamp_of(head[_MESSAGE_HEAD:], channel.encoding))
        channel.places.extend((chunk, body + _MESSAGE_HEAD, length - _MESSAGE_HEAD))

    def _describe(self, kind: int, body: bytes) -> None:
        if kind == _SCHEMA:
            (number,) = struct.unpack_from("<H", body)
            self._schemas[number] = _text(body, 2)[0]
            return
        number, schema = struct.unpack_from("<HH", body)
        topic, after = _text(body, 4)
        encoding, _ = _text(body, after)
        self._channels.setdefault(number, _Channel(topic, ros2_kind(self._schemas.get(schema, "")), encoding))


def _unpacked(file: BinaryIO, start: int) -> bytes:
    """The records of the compressed chunk whose content stands at `start`."""
    file.seek(start)
    *_, size, crc, named = struct.unpack("<QQQII", file.read(32))
    compression = file.read(named).decode()
    (packed,) = struct.unpack("<Q", file.read(8))
    if packed > LARGEST:
        raise UnreadableError(f"it claims {packed} bytes, over the limit of {LARGEST}")
    content = file.read(packed)
    if len(content) < packed:
        raise UnreadableError(f"cut: {len(content)} of {packed} bytes")
    plain = unpacked(content, compression, size)
    if crc and zlib.crc32(plain) != crc:
        raise UnreadableError("its checksum is wrong")
    return plain


def _text(body: bytes, start: int) -> tuple[str, int]:
    """A text with its length before it, and where it ends."""
    (length,) = struct.unpack_from("<I", body, start)
    return body[start + 4 : start + 4 + length].decode(), start + 4 + length
