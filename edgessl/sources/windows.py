"""How recordings are cut into windows, and which of a window's labels counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError, UnknownNameError
from edgessl.signals import InputSpec

#: What one label must fill of a window, else the window has none.
MAJORITY = 0.6

_SECONDS = re.compile(r"(\d+\.?\d*|\.\d+)\s*s")


@dataclass(frozen=True, kw_only=True)
class Windowing:
    """What is made of a recording; what is left out comes from the encoder's input or the recording itself.

    Attributes:
        window: Length of a window: time steps (`128`) or seconds (`"2.56s"`).
        hop: From the start of one window to the next, in the same forms; half a window when None.
        rate_hz: Time steps per second that recordings are resampled to; the first recording's own when None.
        channels: Columns, in this order; all numeric ones when empty. Text is taken apart at commas.
        time: Column of a table that holds the time, `NAME` or `NAME:UNIT` with s, ms, us or ns; found by its name when
            empty.
        label: Column of a table that holds labels; none are read when empty.
        gap_s: A longer time without a value ends a recording, and another begins; five median steps of the channel when
            None.
    """

    window: int | str | None = None
    hop: int | str | None = None
    rate_hz: float | None = None
    channels: str | tuple[str, ...] = ()
    time: str = ""
    label: str = ""
    gap_s: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.channels, str):
            names = tuple(name.strip() for name in self.channels.split(",") if name.strip())
            object.__setattr__(self, "channels", names)
        if len(set(self.channels)) != len(self.channels):
            raise InputError(f"channels={','.join(self.channels)} names one twice; leave one out")
        for name in ("window", "hop"):
            if getattr(self, name) is not None:
                steps_of(getattr(self, name), 1e9, name)
        for name in ("rate_hz", "gap_s"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and 0 < value < 1e9):
                raise InputError(f"{name}={value} must be a positive number; type {name}=50")

    @classmethod
    def from_settings(cls, values: Mapping[str, Any]) -> Windowing:
        """Settings as they are typed: `{"window": "2.56s", "rate_hz": 50}`.

        Raises:
            InputError: There is no such setting, or it has no such value.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise UnknownNameError("setting of --series", name, known)
        texts = {name: str(values[name]) for name in ("channels", "time", "label") if name in values}
        return cls(**{**values, **texts})

    def for_input(self, spec: InputSpec | None) -> Windowing:
        """With what an encoder takes in the places that are empty."""
        if spec is None:
            return self
        return replace(
            self,
            window=spec.shape[1] if self.window is None else self.window,
            rate_hz=spec.rate_hz if self.rate_hz is None else self.rate_hz,
            channels=self.channels or spec.channels,
        )

    def steps(self, rate_hz: float) -> tuple[int, int]:
        """Window and hop in time steps at this rate.

        Raises:
            InputError: There is no window.
        """
        if self.window is None:
            raise InputError("a recording is cut into windows; type --series window=2.56s, or window=128 in time steps")
        window = steps_of(self.window, rate_hz, "window")
        return window, max(1, window // 2) if self.hop is None else steps_of(self.hop, rate_hz, "hop")


def steps_of(length: int | str, rate_hz: float, name: str) -> int:
    """`128` -> 128, `"2.56s"` -> seconds times `rate_hz`, rounded.

    Raises:
        InputError: It is neither, or less than one step.
    """
    if isinstance(length, int) and not isinstance(length, bool) and length > 0:
        return length
    seconds = _SECONDS.fullmatch(length) if isinstance(length, str) else None
    if seconds is None:
        raise InputError(f"{name}={length} is no length; type {name}=128 (time steps) or {name}=2.56s (seconds)")
    steps = round(float(seconds[1]) * rate_hz)
    if steps < 1:
        raise InputError(f"{name}={length} is less than one time step at {rate_hz:g} Hz; type a longer one")
    return steps


def starts_of(length: int, window: int, hop: int) -> range:
    """Where the windows of `length` time steps begin; a rest that fills no window is left out."""
    return range(0, length - window + 1, hop)


def majority(labels: NDArray[np.str_]) -> str | None:
    """The label that fills at least `MAJORITY` of a window `(time,)`; empty text is no label."""
    values, counts = np.unique(labels, return_counts=True)
    most = int(counts.argmax())
    return str(values[most]) if values[most] and counts[most] >= MAJORITY * len(labels) else None
