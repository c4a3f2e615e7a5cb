"""Rows in a file that grows: one record after the other, each whole by its own checksum.

A record is a frame of 20 bytes (a mark, the bytes of JSON, the bytes of arrays, the CRC-32 of both), a line of JSON, the stamps
as float64 where it says `stamped`, and the vectors as float32.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_FRAME = struct.Struct("<4sIQI")
_MARK = b"rows"

Record = tuple[dict[str, Any], NDArray[np.float64] | None, NDArray[np.float32]]


def record_of(told: Mapping[str, Any], stamps: NDArray[np.float64] | None, vectors: NDArray[np.float32]) -> bytes:
    """One record; `told` holds at least `names` and `stamped`."""
    head = json.dumps(told).encode() + b"\n"
    times = b"" if stamps is None else np.asarray(stamps, "<f8").tobytes()
    body = times + np.ascontiguousarray(vectors, "<f4").tobytes()
    return _FRAME.pack(_MARK, len(head), len(body), zlib.crc32(body, zlib.crc32(head))) + head + body


def records_of(file: BinaryIO, dim: int) -> Iterator[Record]:
    """Every record up to the first that is not whole; the file then stands behind the last one that is."""
    size = os.fstat(file.fileno()).st_size
    while True:
        start = file.tell()
        frame = file.read(_FRAME.size)
        if len(frame) < _FRAME.size:
            break
        mark, head_bytes, body_bytes, crc = _FRAME.unpack(frame)
        if mark != _MARK or start + _FRAME.size + head_bytes + body_bytes > size:
            break
        head, body = _read_all(file, head_bytes), _read_all(file, body_bytes)
        if zlib.crc32(body, zlib.crc32(head)) != crc:
            break
        told = json.loads(head)
        count = len(told["names"])
        stamps = np.frombuffer(body, "<f8", count) if told["stamped"] else None
        offset = 8 * count if told["stamped"] else 0  # aligned, as the graph of an index wants it
        yield told, stamps, np.frombuffer(body, "<f4", count * dim, offset).reshape(count, dim)
    file.seek(start)


def write_all(file: BinaryIO, content: bytes) -> None:
    """All of it, where one call may write less."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _read_all(file: BinaryIO, count: int) -> bytes:
    parts = []
    while count:
        part = file.read(count)
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
