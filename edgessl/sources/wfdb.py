"""A WFDB record, as PhysioNet keeps them: a header `.hea` beside signal files in format 16 or 212.

Written to the specification of header(5) and signal(5). One segment, one sample a frame, no skew; annotations are not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.sources.clock import Recording
from edgessl.sources.recordings import chosen
from edgessl.sources.windows import Windowing

_MISSING = {16: -32768, 212: -2048}  # the lowest number stands for no value
_FORMAT = re.compile(r"(\d+)(?:\+(\d+))?")
_GAIN = re.compile(r"([-+.\deE]+)(?:\((-?\d+)\))?(?:/(\S+))?")
_DEFAULT_GAIN, _DEFAULT_RATE = 200.0, 250.0  # of the specification


@dataclass(frozen=True)
class _Signal:
    """One line of the header."""

    file: str
    format: int
    start_bytes: int
    gain: float
    baseline: int
    units: str
    name: str
    checksum: int | None


def read_wfdb(path: Path, windowing: Windowing) -> Recording:
    """Read a record in its physical units; its channels are called as the header describes them.

    Raises:
        InputError: The header or a signal file is missing, damaged, or in a form that is not read.
    """
    try:
        lines = [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip() and line[0] != "#"]
        rate, count, signals = _header(lines)
        parts = []
        for file, group in groupby(signals, key=lambda signal: signal.file):
            parts.append(_physical(path.parent / file, list(group), count))
    except (OSError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{path} cannot be read as a WFDB record: {error}") from error
    if len({part.shape[1] for part in parts}) != 1:
        raise InputError(f"{path} cannot be read as a WFDB record: its signal files differ in length")
    values = np.concatenate(parts)
    names = [signal.name for signal in signals]
    if len(set(names)) != len(names):
        names = [f"{name} {index}" for index, name in enumerate(names)]
    rows = chosen(names, windowing)
    units = list(dict.fromkeys(signals[row].units for row in rows))
    time_s = np.arange(values.shape[1]) / rate
    return Recording(time_s, values[rows], tuple(names[row] for row in rows), units=", ".join(units))


def _header(lines: list[str]) -> tuple[float, int, list[_Signal]]:
    """Rate, samples per signal (0 where it is not said), and the signals."""
    if not lines:
        raise ValueError("the header is empty")
    words = lines[0].split()
    if len(words) < 2 or "/" in words[0]:
        raise ValueError(f"{lines[0]!r} is no record of one segment; give the header of a segment")
    signals = int(words[1])
    if not 0 < signals <= len(lines) - 1:
        raise ValueError(f"the header says {signals} signals and describes {len(lines) - 1}")
    rate = float(words[2].partition("/")[0]) if len(words) > 2 else _DEFAULT_RATE
    if not 0 < rate < 1e9:
        raise ValueError(f"the header says {rate:g} Hz")
    return rate, int(words[3]) if len(words) > 3 else 0, [_signal(line) for line in lines[1 : signals + 1]]


def _signal(line: str) -> _Signal:
    words = line.split(maxsplit=8)
    if Path(words[0]).name != words[0] or words[0] in ("..", "-", "~"):
        raise ValueError(f"the signal file {words[0]!r} is none beside the header")
    form = _FORMAT.fullmatch(words[1])
    if form is None or int(form[1]) not in _MISSING:
        raise ValueError(f"format {words[1]!r} is not read; formats 16 and 212 are, one sample a frame, without skew")
    gain = _GAIN.fullmatch(words[2]) if len(words) > 2 else None
    if len(words) > 2 and gain is None:
        raise ValueError(f"{words[2]!r} is no gain")
    zero = int(words[4]) if len(words) > 4 else 0
    return _Signal(
        file=words[0],
        format=int(form[1]),
        start_bytes=int(form[2] or 0),
        gain=(float(gain[1]) if gain else 0.0) or _DEFAULT_GAIN,
        baseline=int(gain[2]) if gain and gain[2] else zero,
        units=(gain[3] if gain else None) or "mV",
        name=words[8].strip() if len(words) > 8 else "signal",
        checksum=int(words[6]) if len(words) > 6 else None,
    )


def _physical(path: Path, signals: list[_Signal], count: int) -> NDArray[np.float64]:
    """`(signals, time)` of one file; the signals take turns in it."""
    first = signals[0]
    if any(signal.format != first.format for signal in signals):
        raise ValueError(f"{path.name} is said to have several formats")
    content = np.fromfile(path, np.uint8, offset=first.start_bytes)
    there = (len(content) // 2 if first.format == 16 else len(content) * 2 // 3) // len(signals)
    if not there or not 0 <= count <= there:
        raise ValueError(f"{path.name} holds {there} samples a signal and the header says {count}; it is cut off")
    total = (count or there) * len(signals)
    flat = content[: 2 * total].view("<i2").astype(np.int64) if first.format == 16 else _twelve_bits(content, total)
    digital = flat.reshape(-1, len(signals)).T
    values = np.empty(digital.shape)
    for row, (signal, numbers) in enumerate(zip(signals, digital, strict=True)):
        if count and signal.checksum is not None and (int(numbers.sum()) - signal.checksum) % 65536:
            raise ValueError(f"the checksum of {signal.name!r} in {path.name} is wrong; it is damaged")
        values[row] = np.where(numbers == _MISSING[first.format], np.nan, (numbers - signal.baseline) / signal.gain)
    return values


def _twelve_bits(content: NDArray[np.uint8], total: int) -> NDArray[np.int64]:
    """Two numbers in three bytes: low byte, both high halves (the second's above), low byte."""
    padded = np.zeros((total + 1) // 2 * 3, np.int64)
    used = content[: len(padded)]
    padded[: len(used)] = used
    low, both, high = padded.reshape(-1, 3).T
    pairs = np.stack([low | (both & 15) << 8, high | (both >> 4) << 8], 1).ravel()[:total]
    return np.where(pairs > 2047, pairs - 4096, pairs)
