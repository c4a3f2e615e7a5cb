"""Recordings of sensors, one a file -> windows `float32 (channels, time)` in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

import numpy as np

from edgessl.errors import InputError, MissingExtraError, UnknownNameError
from edgessl.signals import InputSpec, series_spec
from edgessl.sources.arrays import ArraySource
from edgessl.sources.base import Skipped
from edgessl.sources.clock import Piece, Recording, own_rate, pieces_of
from edgessl.sources.windows import MAJORITY, Windowing, majority, starts_of

#: Ending -> (module, function `(path, windowing) -> Recording`)
READERS = {
    ".csv": ("edgessl.sources.logs", "read_log"),
    ".parquet": ("edgessl.sources.logs", "read_log"),
    ".hea": ("edgessl.sources.wfdb", "read_wfdb"),
    ".npz": ("edgessl.sources.npz", "read_recording"),
}

#: Windows are kept in memory; more than this is refused.
LIMIT_BYTES = 2 << 30


def recordings_source(
    path: Path,
    windowing: Windowing | None = None,
    *,
    spec: InputSpec | None = None,
    strict: bool = False,
    name: str | None = None,
    labelled: bool = True,
) -> ArraySource:
    """Windows of one recording, or of every recording below a folder; each file is one group.

    Files of a folder come in natural path order, hidden ones are left out. The first that can be read says the channels,
    and the rate where none is given; one that does not fit it is skipped. Where `windowing` names a column of labels, a
    window without one (see `majority`) is left out, and listed as skipped.

    Args:
        path: A file whose ending is in `READERS`, or a folder of such files.
        windowing: How they are cut.
        spec: What the windows are for; says what `windowing` leaves out.
        strict: Make a file of a folder that cannot be used an error.
        name: What the user typed; the path when None.
        labelled: Whether labels are wanted; else every window is kept and has none.

    Raises:
        InputError: Nothing can be used, or it is more than `LIMIT_BYTES`.
        MissingExtraError: A Parquet file, and pyarrow is not installed.
    """
    shown = str(path) if name is None else name
    cut = _Cut((windowing or Windowing()).for_input(spec), labelled)
    cut.windowing.steps(1e9)  # before anything is read
    if path.is_dir():
        for file in listed(path):
            cut.try_to_add(path, file, strict)
    else:
        cut.add(path.name, _read(path, cut.windowing))
    return cut.source(shown)


def windows_of(
    file: str, recording: Recording, windowing: Windowing, name: str, skipped: Sequence[Skipped] = ()
) -> ArraySource:
    """Windows of a recording that was read already.

    Args:
        file: What its windows are named for.
        recording: With the channels that are wanted.
        windowing: With a window.
        name: What the user typed.
        skipped: What of the recording could not be read.

    Raises:
        InputError: No window can be cut, or they are more than `LIMIT_BYTES`.
    """
    windowing.steps(1e9)  # before any work
    cut = _Cut(windowing, labelled=True, skipped=list(skipped))
    cut.add(file, recording)
    return cut.source(name)


def listed(folder: Path) -> list[str]:
    """Names of the recordings below `folder`, relative, in natural order."""
    from edgessl.sources.folder import natural_key

    found = [
        file.relative_to(folder) for file in folder.rglob("*") if file.suffix.lower() in READERS and file.is_file()
    ]
    names = [file.as_posix() for file in found if not any(part.startswith(".") for part in file.parts)]
    return sorted(names, key=natural_key)


def chosen(names: list[str], windowing: Windowing) -> list[int]:
    """Which of a recording's channels are taken: all, or those of `windowing` in its order."""
    for channel in windowing.channels:
        if channel not in names:
            raise UnknownNameError("channel", channel, names)
    return [names.index(channel) for channel in windowing.channels] or list(range(len(names)))


@dataclass
class _Cut:
    """The windows so far."""

    windowing: Windowing
    labelled: bool
    first: Recording | None = None
    pieces: list[tuple[str, Piece]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, file: str, recording: Recording) -> None:
        """Resample a recording; the first decides about rate and channels."""
        if self.windowing.label and recording.labels is None:
            raise InputError(f"{file} has no labels; only tables have. Leave out --series label={self.windowing.label}")
        if not self.labelled:
            recording = replace(recording, labels=None)
        try:
            own = own_rate(recording)
        except InputError as error:
            raise InputError(f"{file}: {error}; give at least two rows, with their own times") from error
        if self.windowing.rate_hz is None:
            self.windowing = replace(self.windowing, rate_hz=own)
        if not self.windowing.channels:
            self.windowing = replace(self.windowing, channels=recording.channels)
        if self.first is None:
            self.first = recording
        rate = self.windowing.rate_hz or 0.0
        window, hop = self.windowing.steps(rate)
        found = [
            (file, piece)
            for piece in pieces_of(recording, rate, self.windowing.gap_s)
            if len(starts_of(piece.values.shape[1], window, hop))
        ]
        if not found:
            empty = [
                name for name, row in zip(recording.channels, recording.values, strict=True) if np.isnan(row).all()
            ]
            reason = f"no stretch without gaps fills a window of {window} at {rate:g} Hz"
            self.skipped.append(Skipped(file, f"channel {empty[0]!r} has no values" if empty else reason))
        self.pieces += found
        count = sum(len(starts_of(piece.values.shape[1], window, hop)) for _, piece in found)
        self.size_bytes += 4 * count * len(recording.channels) * window
        if self.size_bytes > LIMIT_BYTES:
            raise _TooLargeError(
                f"the windows up to {file} take {self.size_bytes / 2**30:.1f} GiB of memory, over the limit of "
                f"{LIMIT_BYTES / 2**30:.1f}; type --series hop={window}, a lower rate_hz or fewer channels, or give fewer "
                "files"
            )

    def try_to_add(self, folder: Path, file: str, strict: bool) -> None:
        """Add a file of a folder, or skip it."""
        try:
            self.add(file, _read(folder / file, self.windowing))
        except (MissingExtraError, _TooLargeError):
            raise
        except InputError as error:
            if strict:
                raise InputError(f"{folder / file}: {error}. Repair or remove it, or leave out --strict") from error
            self.skipped.append(Skipped(file, str(error)))

    def source(self, name: str) -> ArraySource:
        """All windows as a source."""
        if self.first is None or not self.pieces:
            why = f"; {self.skipped[0].name}: {self.skipped[0].reason}" if self.skipped else ""
            raise InputError(f"no recording in {name} gives a window{why}")
        rate = self.windowing.rate_hz or 0.0
        window, hop = self.windowing.steps(rate)
        counts: dict[str, int] = {}
        windows, names, groups, labels, stamps = [], [], [], list[str](), list[float]()
        for file, piece in self.pieces:
            for start in starts_of(piece.values.shape[1], window, hop):
                number = counts[file] = counts.get(file, -1) + 1
                label = None if piece.labels is None else majority(piece.labels[start : start + window])
                if piece.labels is not None and label is None:
                    reason = f"no label fills {MAJORITY:.0%} of the window"
                    self.skipped.append(Skipped(f"{file}/{number:06d}", reason))
                    continue
                windows.append(piece.values[:, start : start + window])
                names.append(f"{file}/{number:06d}")
                groups.append(file)
                stamps.append((self.first.began_s or 0.0) + piece.start_s + start / rate)
                labels += [] if label is None else [label]
        if not windows:
            raise InputError(
                f"no window of {name} has a label: none fills {MAJORITY:.0%} of one; type a shorter window"
            )
        return ArraySource(
            name,
            np.stack(windows),
            series_spec(self.first.channels, window, rate_hz=rate, units=self.first.units),
            names,
            labels=np.asarray(labels) if labels else None,
            groups=np.asarray(groups),
            skipped=self.skipped,
            stamps=None if self.first.began_s is None else np.asarray(stamps),
        )


class _TooLargeError(InputError):
    """More than memory should hold; no file is to blame."""


def _read(path: Path, windowing: Windowing) -> Recording:
    module, function = READERS[path.suffix.lower()]
    recording: Recording = getattr(import_module(module), function)(path, windowing)
    return recording
