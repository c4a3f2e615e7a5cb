"""What learning may cost a robot: milliseconds per frame, training steps per minute, heat and battery.

The clock and the sensors have a say in it, so two runs under a budget do not learn from the same frames. What has to be
repeated to the bit is `Learner.observe` without one.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from edgessl.errors import InputError
from edgessl.runtimes.pressure import Pressure, Shed
from edgessl.runtimes.sensors import battery_percent, hottest_c

UNAVAILABLE = "unavailable"
HOT, LOW, PRESSED = "too hot", "battery low", "under pressure"

_HELD = "held"  # from outside
_MINUTE_S = 60.0
_FORGET = 0.8  # share of the estimated cost of a frame that stays when a new one was measured; ours


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """Limits; every default is ours, and `None` is no limit.

    Attributes:
        ms_per_frame: Learning time, by the wall clock, per frame that was embedded. At 30 frames a second the default
            takes 6 % of the time. Costs that come late are paid back before anything else is learned.
        burst_ms: Learning time that can be saved up.
        steps_per_minute: Training steps of level `tail` in any 60 seconds. The default is about the learner's own, one
            step in 16 frames, at 30 frames a second.
        max_temperature_c: Of the hottest thermal zone; learning pauses above. A Raspberry Pi slows down at 80.
        cooler_by_c: Learning resumes at so much below the limit.
        min_battery_percent: Of the battery that is discharging, the emptiest if there are several; pauses below.
        charged_by_percent: Learning resumes at so much above the limit, or when no battery is discharging.
        poll_s: Seconds between two looks at the sensors.
    """

    ms_per_frame: float | None = 2.0
    burst_ms: float = 500.0
    steps_per_minute: int | None = 120
    max_temperature_c: float | None = 75.0
    cooler_by_c: float = 5.0
    min_battery_percent: float | None = 20.0
    charged_by_percent: float = 5.0
    poll_s: float = 5.0

    def __post_init__(self) -> None:
        for name in ("ms_per_frame", "steps_per_minute", "cooler_by_c", "charged_by_percent"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"{name} must be 0 or more, not {value}")
        for name in ("burst_ms", "poll_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("max_temperature_c", "min_battery_percent"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"{name} must be a number, or None for no limit, not {value}")


class Budget:
    """Decides which frames may be learned from, and when a training step may run; may be asked from any thread.

    Args:
        config: Limits.
        thermal: Folder of `thermal_zone*/temp`, in thousandths of a degree.
        power: Folder of `*/capacity`, in percent, and `*/status`.
        pressure: Of the whole board, memory included: learning pauses while it sheds anything; None looks at heat and
            battery alone.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        config: BudgetConfig | None = None,
        *,
        thermal: Path = Path("/sys/class/thermal"),
        power: Path = Path("/sys/class/power_supply"),
        pressure: Pressure | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config or BudgetConfig()
        self.spent_ms = 0.0
        self._thermal, self._power, self._pressure, self._clock = thermal, power, pressure, clock
        self._lock = Lock()
        self._balance_ms = 0.0
        self._cost_ms: float | None = None  # of one frame, estimated
        self._outstanding = 0  # frames granted and not accounted for yet
        self._steps: deque[float] = deque()  # when they ran, within the last minute
        self._polled: float | None = None
        self._temperature_c: float | None = None
        self._battery: tuple[float, bool] | None = None
        self._pauses: dict[str, str] = {}  # reason -> with its number

    @property
    def paused(self) -> str:
        """Why nothing may be learned now, with the number; empty when something may."""
        with self._lock:
            return ", ".join(self._pauses.values())

    def hold(self, reason: str) -> None:
        """Let nothing be learned, for a reason that somebody else sees; an empty one lets go."""
        with self._lock:
            self._pauses.pop(_HELD, None)
            if reason:
                self._pauses[_HELD] = reason

    def grant(self, frames: int) -> int:
        """How many of so many embedded frames may be learned from; every one must come back by `settle` or `refund`."""
        limit = self.config.ms_per_frame
        with self._lock:
            if limit is not None:
                self._balance_ms = min(self._balance_ms + frames * limit, self.config.burst_ms)
            granted = 0 if self._pauses else min(frames, self._affordable(frames))
            self._outstanding += granted
            return granted

    def refund(self, frames: int) -> None:
        """So many granted frames were not learned from."""
        with self._lock:
            self._outstanding -= frames

    def settle(self, frames: int, ms: float) -> None:
        """Learning from so many granted frames took so long; 0 frames for what else learning costs."""
        with self._lock:
            self._outstanding -= frames
            self.spent_ms += ms
            if self.config.ms_per_frame is not None:
                self._balance_ms -= ms
            if frames:
                known = self._cost_ms if self._cost_ms is not None else ms / frames
                self._cost_ms = _FORGET * known + (1 - _FORGET) * ms / frames

    def take_step(self) -> bool:
        """Whether a training step may run now; counts it if so."""
        limit = self.config.steps_per_minute
        now = self._clock()
        with self._lock:
            if self._pauses:
                return False
            while self._steps and now - self._steps[0] >= _MINUTE_S:
                self._steps.popleft()
            if limit is not None and len(self._steps) >= limit:
                return False
            self._steps.append(now)
            return True

    def poll(self) -> list[dict[str, Any]]:
        """Look at the sensors when it is time to; returns events, `paused` and `resumed` with their numbers.

        Not for the thread that embeds: a driver may take its time. A sensor that cannot be read changes no decision.
        """
        now = self._clock()
        if self._polled is not None and now - self._polled < self.config.poll_s:
            return []
        self._polled = now
        temperature_c, battery = hottest_c(self._thermal), battery_percent(self._power)
        shed = self._pressure.look() if self._pressure else Shed.NONE
        with self._lock:
            self._temperature_c, self._battery = temperature_c, battery
            return [*self._judge_heat(), *self._judge_battery(), *self._judge_pressure(shed)]

    def info(self) -> dict[str, Any]:
        """What was spent, and what the sensors said last."""
        with self._lock:
            heat, battery = self._temperature_c, self._battery
            return {
                "spent_ms": self.spent_ms,
                "balance_ms": self._balance_ms,
                "steps_in_last_minute": sum(self._clock() - step < _MINUTE_S for step in self._steps),
                "temperature_c": UNAVAILABLE if heat is None else heat,
                "battery_percent": UNAVAILABLE if battery is None else battery[0],
                "discharging": UNAVAILABLE if battery is None else battery[1],
                "paused": ", ".join(self._pauses.values()),
            }

    def _affordable(self, frames: int) -> int:
        """Frames that the balance pays for; the last one may overdraw it, so that a costly one gets its turn."""
        if self.config.ms_per_frame is None:
            return frames
        if self._cost_ms is None:  # one, to see what it costs
            return int(not self._outstanding and self._balance_ms > 0)
        free = self._balance_ms - self._outstanding * self._cost_ms
        return min(frames, math.ceil(free / max(self._cost_ms, 1e-6))) if free > 0 else 0

    def _judge_heat(self) -> list[dict[str, Any]]:
        heat, limit = self._temperature_c, self.config.max_temperature_c
        if heat is None or limit is None:
            return []
        resume = limit - self.config.cooler_by_c
        numbers = {"temperature_c": heat, "limit_c": limit, "resume_c": resume}
        return self._judge(HOT, f"{HOT} {heat:.1f} C", numbers, stop=heat > limit, go=heat <= resume)

    def _judge_battery(self) -> list[dict[str, Any]]:
        limit = self.config.min_battery_percent
        if self._battery is None or limit is None:
            return []
        percent, discharging = self._battery
        resume = limit + self.config.charged_by_percent
        numbers = {
            "battery_percent": percent,
            "discharging": discharging,
            "limit_percent": limit,
            "resume_percent": resume,
        }
        stop, go = discharging and percent < limit, not discharging or percent >= resume
        return self._judge(LOW, f"{LOW} {percent:.0f} %", numbers, stop=stop, go=go)

    def _judge_pressure(self, shed: Shed) -> list[dict[str, Any]]:
        if self._pressure is None:
            return []
        numbers = {"shed": shed.name.lower(), "why": self._pressure.why}
        return self._judge(PRESSED, f"{PRESSED}: {self._pressure.why}", numbers, stop=shed > Shed.NONE, go=not shed)

    def _judge(self, reason: str, told: str, numbers: dict[str, Any], *, stop: bool, go: bool) -> list[dict[str, Any]]:
        before = reason in self._pauses
        if stop or (before and not go):
            self._pauses[reason] = told
        elif before:
            del self._pauses[reason]
        after = reason in self._pauses
        return [] if after == before else [{"kind": "paused" if after else "resumed", "reason": reason, **numbers}]
