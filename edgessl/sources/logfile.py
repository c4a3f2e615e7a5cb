"""What a file of logged messages offers, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import MissingExtraError
from edgessl.sources.base import Skipped
from edgessl.sources.images import UnreadableError

ZSTD = b"\x28\xb5\x2f\xfd"  # what data compressed by Zstandard begin with
LARGEST = 1 << 30  # bytes; what claims to be larger when unpacked is damaged


@dataclass(frozen=True)
class Topic:
    """What was logged under one name.

    Attributes:
        name: As it was published.
        kind: Type of its messages, as ROS 2 writes it: `sensor_msgs/msg/Image`.
        encoding: `cdr`, `ros1`, or another.
        count: Messages in the file.
    """

    name: str
    kind: str
    encoding: str
    count: int


@dataclass(frozen=True)
class Entries:
    """The messages of one topic in one file, in the order of the file.

    Attributes:
        logged_ns: `(n,)` when each was logged.
        stamps: `(n,)` seconds in each one's header; 0 where it has none.
        places: `(n, k)` where each stands; means something to the file only.
    """

    logged_ns: NDArray[np.int64]
    stamps: NDArray[np.float64]
    places: NDArray[np.int64]


class LogFile(Protocol):
    """An open file of messages.

    Attributes:
        topics: What is in it.
        damage: What of it cannot be read.
    """

    topics: list[Topic]
    damage: list[Skipped]

    def entries(self, topic: Topic) -> Entries:
        """Where the messages of `topic` stand."""
        ...

    def content(self, place: NDArray[np.int64]) -> bytes:
        """One message.

        Raises:
            UnreadableError: It cannot be read.
        """
        ...


def ros2_kind(name: str) -> str:
    """`sensor_msgs/Image`, as ROS 1 writes it -> `sensor_msgs/msg/Image`."""
    package, slash, rest = name.partition("/")
    return name if "/" in rest or not slash else f"{package}/msg/{rest}"


def unpacked(content: bytes, compression: str, size: int) -> bytes:
    """What was compressed by `zstd` or `lz4`.

    Args:
        content: The compressed bytes.
        compression: Name of the method.
        size: Bytes that must come out; 0 where it is not told.

    Raises:
        UnreadableError: It is damaged, too large, or of another method.
        MissingExtraError: The package that unpacks it is not installed.
    """
    if size > LARGEST:
        raise UnreadableError(f"it claims {size} bytes, over the limit of {LARGEST}")
    if compression not in ("zstd", "lz4"):
        raise UnreadableError(f"compression {compression!r}; known are zstd, lz4")
    try:
        if compression == "zstd":
            from backports.zstd import ZstdDecompressor

            plain = ZstdDecompressor().decompress(content, max_length=LARGEST)
        else:
            from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped, unused-ignore]

            plain = LZ4FrameDecompressor().decompress(content, max_length=LARGEST)
    except ModuleNotFoundError as error:
        raise MissingExtraError("rosbags", "bags") from error
    except Exception as error:  # each package has its own
        raise UnreadableError(f"its {compression} data are damaged: {error}") from error
    if size and len(plain) != size:
        raise UnreadableError(f"its {compression} data give {len(plain)} bytes, not {size}")
    return bytes(plain)
