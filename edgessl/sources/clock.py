"""A recording with the clock it was logged by -> pieces on a uniform clock. numpy only, so that a device does the same."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError

Values = NDArray[np.float64]  # (channels, time)
Times = NDArray[np.float64]  # (time,), seconds

#: A longer time without a value, in median steps of the channel, ends a piece.
GAP_STEPS = 5.0
#: Part of a step that a clock may be off and still counts as uniform.
_JITTER = 0.05
#: Zero crossings of the interpolating sinc on either side, and the shape of its Kaiser window (about 80 dB).
_LOBES, _BETA = 16, 8.0
_BLOCK = 1 << 20  # weights that are held at once


@dataclass(frozen=True)
class Recording:
    """What was logged, as it was logged.

    Attributes:
        time_s: `(time,)` seconds, never falling.
        values: `(channels, time)`, NaN where a channel has no value.
        channels: Names of the channels.
        units: Of the values.
        labels: `(time,)` text, empty where there is none; or None.
        began_s: What the wall clock said at time 0, where that is known.
    """

    time_s: Times
    values: Values
    channels: tuple[str, ...]
    units: str = "as recorded"
    labels: NDArray[np.str_] | None = None
    began_s: float | None = None


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording without gaps.

    Attributes:
        values: `(channels, time)` on a uniform clock, finite.
        labels: `(time,)`, or None.
        start_s: Time of the recording at which it begins.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.str_] | None
    start_s: float = 0.0


def own_rate(recording: Recording) -> float:
    """Time steps per second of its fastest channel, by the median step, to four digits.

    Raises:
        InputError: No channel has two values at different times.
    """
    steps = [_step(_own_times(recording.time_s, channel)) for channel in recording.values]
    known = [step for step in steps if step > 0]
    if not known:
        raise InputError("no channel has two values at different times")
    return float(f"{1 / min(known):.4g}")


def pieces_of(recording: Recording, rate_hz: float, gap_s: float | None = None) -> list[Piece]:
    """Cut a recording at its gaps and bring every piece to `rate_hz`.

    A clock that is uniform to a twentieth of a step is taken as it is; any other, or one with values missing, is first
    interpolated linearly, channel by channel, onto a uniform clock at the recording's own rate. Then `resampled`.

    Args:
        recording: What was logged.
        rate_hz: Time steps per second of the pieces.
        gap_s: See `Windowing`.
    """
    own = own_rate(recording)
    limits = [gap_s or GAP_STEPS * _step(_own_times(recording.time_s, channel)) for channel in recording.values]
    if min(limits) <= 0:  # a channel without values: no time has all of them
        return []
    pieces = []
    for rows in _without_gaps(recording.time_s, max(limits)):
        time = recording.time_s[rows] - recording.time_s[rows.start]
        values = recording.values[:, rows]
        labels = None if recording.labels is None else recording.labels[rows]
        rate, starts = own, np.zeros(1)
        if _is_uniform(time) and np.isfinite(values).all():
            rate, parts = (len(time) - 1) / time[-1], [values]
        else:
            starts, parts = _interpolated(time, values, own, limits)
        for start, part in zip(starts, parts, strict=True):
            even = resampled(part, rate, rate_hz)
            at = start + np.arange(even.shape[1]) / rate_hz
            rows_then = np.searchsorted(time, at + 1e-9, side="right") - 1  # the label that was written last
            began = float(recording.time_s[rows.start] + start)
            pieces.append(Piece(even.astype(np.float32), None if labels is None else labels[rows_then], began))
    return pieces


def resampled(values: Values, own_hz: float, rate_hz: float) -> Values:
    """Bring a uniform clock to another rate; what the lower rate cannot hold is filtered out.

    Interpolation by a sinc under a Kaiser window, cut off at half the lower of the two rates: what
    `scipy.signal.resample_poly` does for fractions, for any ratio. At the ends the weights are those of the samples that are
    there, so a constant stays what it is.

    Args:
        values: `(channels, time)`.
        own_hz: Their time steps per second.
        rate_hz: Those of the result; it begins at the same time.
    """
    count = values.shape[1]
    if count * abs(own_hz / rate_hz - 1) <= _JITTER:  # the two clocks never part by more
        return values
    ratio = own_hz / rate_hz
    cut = min(1.0, 1 / ratio)
    reach = int(np.ceil(_LOBES / cut))
    total = int(np.floor((count - 1) / ratio + 1e-6)) + 1
    result = np.empty((len(values), total))
    near = np.arange(-reach + 1, reach + 1)
    rows = max(1, _BLOCK // (len(near) * len(values)))
    for start in range(0, total, rows):
        at = np.arange(start, min(start + rows, total)) * ratio  # in own steps
        taps = np.floor(at).astype(np.int64)[:, None] + near  # (rows, taps)
        away = at[:, None] - taps
        window = np.i0(_BETA * np.sqrt(np.maximum(0, 1 - (away * cut / _LOBES) ** 2)))
        weights = np.sinc(cut * away) * window * ((taps >= 0) & (taps < count))
        weights /= weights.sum(1, keepdims=True)
        result[:, start : start + len(at)] = np.einsum("crt,rt->cr", values[:, taps.clip(0, count - 1)], weights)
    return result


def _own_times(time: Times, channel: NDArray[np.float64]) -> Times:
    return time[np.isfinite(channel)]


def _step(time: Times) -> float:
    """Median time between values; 0 when there are not two."""
    steps = np.diff(time)
    steps = steps[steps > 0]  # stamps given twice, as loggers do that write in bursts
    return float(np.median(steps)) if len(steps) else 0.0


def _without_gaps(time: Times, gap_s: float) -> list[slice]:
    ends = [0, *(np.flatnonzero(np.diff(time) > gap_s * (1 + 1e-9)) + 1).tolist(), len(time)]
    return [slice(start, end) for start, end in pairwise(ends) if time[end - 1] > time[start]]


def _is_uniform(time: Times) -> bool:
    step = time[-1] / (len(time) - 1)
    return bool(np.abs(time - np.arange(len(time)) * step).max() <= _JITTER * step)


def _interpolated(time: Times, values: Values, rate: float, limits: list[float]) -> tuple[Times, list[Values]]:
    """Where all channels have values: when each such stretch starts, and the stretch `(channels, time)`."""
    clock = np.arange(int(np.floor(time[-1] * rate + 1e-6)) + 1) / rate
    filled = np.zeros((len(values), len(clock)))
    good = np.ones(len(clock), dtype=bool)
    for row, (channel, limit) in enumerate(zip(values, limits, strict=True)):
        own, first = np.unique(_own_times(time, channel), return_index=True)  # of equal stamps the first counts
        if len(own) < 2:
            return np.zeros(0), []
        filled[row] = np.interp(clock, own, channel[np.isfinite(channel)][first])
        after = np.searchsorted(own, clock - 1e-9).clip(1, len(own) - 1)
        inside = (clock >= own[0] - 1e-9) & (clock <= own[-1] + 1e-9)
        close = own[after] - own[after - 1] <= limit * (1 + 1e-9)
        good &= inside & (close | (np.abs(own[after] - clock) <= 1e-9))  # behind a gap the first value counts
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(np.int8)))
    runs = [(start, end) for start, end in edges.reshape(-1, 2) if end - start > 1]
    return np.asarray([clock[start] for start, _ in runs]), [filled[:, start:end] for start, end in runs]
