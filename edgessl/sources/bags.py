"""MCAP files and ROS bags: the frames of one camera, or windows of one IMU. No ROS is needed."""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.signals import SERIES, InputSpec
from edgessl.sources.arrays import ArraySource
from edgessl.sources.base import Skipped
from edgessl.sources.clock import Recording
from edgessl.sources.decoded import DecodedSource
from edgessl.sources.images import UnreadableError
from edgessl.sources.logfile import LogFile, Topic
from edgessl.sources.messages import COMPRESSED, IMAGE, IMU, IMU_CHANNELS, IMU_UNITS, frame_of, imu_of
from edgessl.sources.recordings import chosen, windows_of
from edgessl.sources.windows import Windowing

#: Ending -> (module, class that fits `LogFile`)
FILES = {
    ".mcap": ("edgessl.sources.mcap", "McapFile"),
    ".db3": ("edgessl.sources.db3", "Db3File"),
    ".bag": ("edgessl.sources.ros1", "Ros1File"),
}


def bag_source(
    path: Path,
    topic: str = "",
    *,
    size: tuple[int, int] | None = None,
    spec: InputSpec | None = None,
    windowing: Windowing | None = None,
    strict: bool = False,
    name: str | None = None,
) -> BagSource | ArraySource:
    """The frames of a camera that was recorded, or windows of an IMU.

    An IMU is taken where `windowing` is given or `spec` is of a series, else a camera. Its channels are `IMU_CHANNELS`.

    Args:
        path: A file whose ending is in `FILES`, or the folder of a ROS 2 bag.
        topic: Which one; may be left out where there is one that fits.
        size: Height and width of a frame; the first readable frame's own when None.
        spec: What the samples are for.
        windowing: How an IMU's log is cut.
        strict: Make a message that cannot be read an error.
        name: What the user typed; the path when None.

    Raises:
        InputError: No such topic, several to choose from, or nothing that can be read.
        MissingExtraError: rosbags is not installed.
    """
    log = _Log(path)
    series = windowing is not None or (spec is not None and spec.kind in SERIES)
    log.choose(topic, (IMU,) if series else (IMAGE, COMPRESSED))
    shown = str(path) if name is None else name
    return _imu(log, shown, spec, windowing, strict=strict) if series else BagSource(log, shown, size, strict=strict)


def is_bag(folder: Path) -> bool:
    """Whether a folder is a ROS 2 bag: it has the bag's files, or its metadata."""
    return bool(_files(folder)) or (folder / "metadata.yaml").is_file()


class BagSource(DecodedSource):
    """The frames of one topic as RGB frames of one size, named `BAG#000123`, in the order in which they were logged.

    In memory is where each message stands, never the messages. A message that cannot be read keeps its place and its name.

    Args:
        log: The recording, with its topic chosen.
        name: What the user typed.
        size: Height and width of a frame; the first readable frame's own when None.
        strict: Make a message that cannot be read an error.

    Attributes:
        stamps: `(n,)` seconds: those in the messages' headers, else when they were logged.
    """

    def __init__(self, log: _Log, name: str, size: tuple[int, int] | None, *, strict: bool) -> None:
        super().__init__(name, strict=strict)
        self._log = log
        for damage in log.damage():
            self.skip(damage)
        self.stamps = log.stamps
        self.names = [f"{log.path.name}#{index:06d}" for index in range(len(log.stamps))]
        why = "can be read" if self.names else "can be had: it holds no message"
        nothing = f"no frame of {log.topic.name} in {log.path} {why}; give another topic: bag:{log.path}?topic=NAME"
        self.sized(size if self.names else None, nothing)

    def digest(self) -> str:
        """sha256 over topic, places and stamps; the frames are not read."""
        return self._log.digest()

    def frame(self, index: int, size: tuple[int, int] | None) -> NDArray[np.uint8] | None:
        """The frame at `index`."""
        try:
            return frame_of(self._log.content(index), self._log.topic.kind, self._log.topic.encoding, size)
        except UnreadableError as error:
            self.skip(Skipped(self.names[index], str(error)))
            return None

    def refusal(self, skipped: Skipped) -> str:
        """What to do."""
        return f"{skipped.name} cannot be read: {skipped.reason}. Leave out --strict to skip it"


class _Log:
    """The files of one recording as one, in the order of time."""

    topic: Topic
    stamps: NDArray[np.float64]

    def __init__(self, path: Path) -> None:
        self.path = path
        found = _files(path) if path.is_dir() else [path]
        if not found:
            packed = sorted(file.name for file in path.glob("*.zst*"))
            todo = f"unpack it first: zstd -d {path / packed[0]}" if packed else f"a bag holds {', '.join(FILES)} files"
            raise InputError(f"{path} holds no recording that can be read; {todo}")
        self._files: list[LogFile] = [_opened(file) for file in found]

    def choose(self, name: str, kinds: tuple[str, ...]) -> None:
        """Take the topic of that name, or the only one of these kinds, and find its messages."""
        topics = {topic.name: topic for file in self._files for topic in file.topics}
        fitting = [each for each in topics if topics[each].kind in kinds and topics[each].encoding in ("cdr", "ros1")]
        listed = "; ".join(f"{each} ({topics[each].kind})" for each in sorted(topics)) or "nothing"
        wanted = " or ".join(kinds)
        if name and name not in topics:
            raise InputError(f"no topic {name!r} in {self.path}; it holds {listed}")
        if name and name not in fitting:
            raise InputError(
                f"topic {name} of {self.path} holds {topics[name].kind}, and {wanted} is wanted; it holds {listed}"
            )
        if not fitting:
            lost = "".join(f"; {each.name}: {each.reason}" for each in self.damage()[:1])
            raise InputError(f"{self.path} has no topic of {wanted}; it holds {listed}{lost}")
        if not name and len(fitting) > 1:
            lines = " or ".join(f"bag:{self.path}?topic={each}" for each in sorted(fitting))
            raise InputError(f"{self.path} has {len(fitting)} topics of {wanted}; choose one: {lines}")
        self.topic = topics[name or fitting[0]]
        same = (self.topic.name, self.topic.kind, self.topic.encoding)
        entries = [
            (number, file.entries(self.topic))
            for number, file in enumerate(self._files)
            if same in [(each.name, each.kind, each.encoding) for each in file.topics]
        ]
        logged = np.concatenate([each.logged_ns for _, each in entries])
        stamps = np.concatenate([each.stamps for _, each in entries])
        order = np.argsort(logged, kind="stable")
        self._owners = np.concatenate([np.full(len(each.logged_ns), number) for number, each in entries])[order]
        self._places = np.concatenate([each.places for _, each in entries])[order]
        self.stamps = np.where(stamps > 0, stamps, logged * 1e-9)[order]

    def damage(self) -> list[Skipped]:
        """What of the files cannot be read."""
        return [skipped for file in self._files for skipped in file.damage]

    def content(self, index: int) -> bytes:
        """One message of the topic."""
        return self._files[int(self._owners[index])].content(self._places[index])

    def digest(self) -> str:
        """sha256 over topic, places and stamps."""
        digest = hashlib.sha256(self.topic.name.encode())
        for numbers in (self._owners.astype("<i8"), self._places.astype("<i8"), self.stamps.astype("<f8")):
            digest.update(numbers.tobytes())
        return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    """The parts of a ROS 2 bag in their order. Its metadata are not asked: a bag that was cut off has none."""
    from edgessl.sources.folder import natural_key

    for ending in (".mcap", ".db3"):
        found = sorted((file.name for file in folder.glob(f"*{ending}")), key=natural_key)
        if found:
            return [folder / name for name in found]
    return []


def _opened(file: Path) -> LogFile:
    if file.suffix.lower() not in FILES:
        raise InputError(f"{file} is no recording of messages; one ends in {', '.join(FILES)}")
    if not file.is_file():
        raise InputError(f"{file} does not exist")
    module, name = FILES[file.suffix.lower()]
    return cast(LogFile, getattr(import_module(module), name)(file))


def _imu(log: _Log, name: str, spec: InputSpec | None, windowing: Windowing | None, *, strict: bool) -> ArraySource:
    """Windows of an IMU; a message that cannot be read is a gap in its clock, as if it had not come."""
    rows: list[list[float]] = []
    places: list[int] = []
    skipped = log.damage()
    for index in range(len(log.stamps)):
        try:
            rows.append(imu_of(log.content(index), log.topic.encoding))
            places.append(index)
        except UnreadableError as error:  # noqa: PERF203 (message by message)
            skipped.append(Skipped(f"{log.path.name}#{index:06d}", str(error)))
    if strict and skipped:
        raise InputError(f"{skipped[0].name} cannot be read: {skipped[0].reason}. Leave out --strict to skip it")
    if not rows:
        why = f"; {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise InputError(f"no message of {log.topic.name} in {log.path} can be read{why}")
    values = np.asarray(rows, np.float64)
    stamps = log.stamps[places]
    order = np.argsort(stamps, kind="stable")  # by its own clock: what was logged late was not measured late
    began = float(stamps[order[0]])
    cut = (windowing or Windowing()).for_input(spec)
    taken = chosen(list(IMU_CHANNELS), cut)
    recording = Recording(
        stamps[order] - began,
        np.where(np.isfinite(values), values, np.nan)[order].T[taken],
        tuple(IMU_CHANNELS[row] for row in taken),
        units=IMU_UNITS,
        began_s=began,
    )
    return windows_of(log.path.name, recording, cut, name, skipped)
