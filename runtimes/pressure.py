"""How much a board must shed when it is hot or short of memory: adaptation first, frame rate second, embedding never.

Temperature is held against the trip points at which the kernel would slow the board down, where a zone has some. Memory is
the share that is still free, of the machine and of the container around it, and how long processes stall for want of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from threading import Lock
from typing import Any

from edgessl.errors import InputError
from edgessl.runtimes.sensors import fields, number, text, zones


class Shed(IntEnum):
    """What to leave out; each level leaves out what the ones below it do, too."""

    NONE = 0
    ADAPTATION = 1
    RATE = 2


@dataclass(frozen=True, kw_only=True)
class PressureConfig:
    """When to shed; every value is ours. A pair is for adaptation and for the frame rate.

    Attributes:
        limit_c: Of a thermal zone that names no trip point. A Raspberry Pi slows down from 80 on.
        below_limit_c: Sheds when a zone is nearer than so much to its limit.
        cooler_by_c: Sheds no more at so much below that.
        memory_free: Sheds when a smaller share of the memory is available.
        freer_by: Sheds no more at so much above that.
        stalled: Sheds when processes waited for memory for a larger share of the last ten seconds: some of them, for
            adaptation; all of them, for the frame rate.
        settle_s: Adaptation is shed for so long before the frame rate is, too: it may be enough.
        dwell_s: A level is kept for so long at least before it goes down a step.
        poll_s: Between two looks at the sensors.
    """

    limit_c: float = 82.0
    below_limit_c: tuple[float, float] = (7.0, 2.0)
    cooler_by_c: float = 5.0
    memory_free: tuple[float, float] = (0.10, 0.05)
    freer_by: float = 0.03
    stalled: tuple[float, float] = (0.10, 0.05)
    settle_s: float = 10.0
    dwell_s: float = 30.0
    poll_s: float = 2.0

    def __post_init__(self) -> None:
        for name in ("cooler_by_c", "freer_by", "settle_s", "dwell_s", "poll_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be 0 or more, not {getattr(self, name)}")
        for name in ("below_limit_c", "memory_free"):
            first, second = getattr(self, name)
            if not first >= second >= 0:
                raise InputError(f"{name} must fall from adaptation to frame rate, not {first}, {second}")


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """One sensor: how far it is above the threshold of each level, and of leaving it; above 0 is too much."""

    told: str
    enter: tuple[float, float]
    leave: tuple[float, float]


class Pressure:
    """Looks at the board; may be asked from any thread, and every one that asks gets the same answer.

    A driver may take its time, so ask from a thread that may wait; while one thread looks, others get the last answer.
    A sensor that falls silent keeps its last verdict; one that was never heard has none.

    Args:
        sysfs: The root under which `sys` and `proc` are.
        clock: Seconds, never going back.
        config: When to shed.
    """

    def __init__(
        self,
        sysfs: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
        config: PressureConfig | None = None,
    ) -> None:
        self.config = config or PressureConfig()
        self._root, self._clock = sysfs, clock
        self._looking = Lock()
        self._level, self._why = Shed.NONE, ""
        self._changed = self._polled = -float("inf")
        self._verdicts: dict[str, tuple[Shed, str]] = {}

    @property
    def why(self) -> str:
        """What presses, with its numbers; empty when nothing does."""
        return self._why

    def look(self) -> Shed:
        """What to shed now."""
        if self._looking.acquire(blocking=False):
            try:
                now = self._clock()
                if now - self._polled >= self.config.poll_s:
                    self._polled = now
                    self._judge(now)
            finally:
                self._looking.release()
        return self._level

    def info(self) -> dict[str, Any]:
        """The level and its reason, for a report."""
        return {"shed": self._level.name.lower(), "why": self._why}

    def _judge(self, now: float) -> None:
        for name, look in (("heat", self._heat), ("memory", self._memory), ("stalls", self._stalls)):
            reading = look()
            if reading is not None:
                before = self._verdicts.get(name, (Shed.NONE, ""))[0]
                self._verdicts[name] = (_verdict(reading, before), reading.told)
        wanted = max((level for level, _ in self._verdicts.values()), default=Shed.NONE)
        kept = now - self._changed
        if wanted > self._level and (self._level == Shed.NONE or kept >= self.config.settle_s):
            self._move(Shed(self._level + 1), now)
        elif wanted < self._level and kept >= self.config.dwell_s:
            self._move(Shed(self._level - 1), now)
        self._why = ", ".join(told for level, told in self._verdicts.values() if level) if self._level else ""

    def _move(self, level: Shed, now: float) -> None:
        self._level, self._changed = level, now

    def _heat(self) -> _Reading | None:
        """The zone that is nearest to its limit."""
        found = [
            (zone.temperature_c - (zone.limit_c if zone.limit_c is not None else self.config.limit_c), zone)
            for zone in zones(self._root / "sys" / "class" / "thermal")
        ]
        if not found:
            return None
        above, zone = max(found, key=lambda pair: pair[0])
        first, second = (above + margin for margin in self.config.below_limit_c)
        told = f"{zone.name} {zone.temperature_c:.1f} C of {zone.temperature_c - above:.0f} C"
        rest = self.config.cooler_by_c
        return _Reading(told=told, enter=(first, second), leave=(first + rest, second + rest))

    def _memory(self) -> _Reading | None:
        free = memory_free(self._root)
        if free is None:
            return None
        first, second = (least - free for least in self.config.memory_free)
        rest = self.config.freer_by
        told = f"{free:.0%} of the memory free"
        return _Reading(told=told, enter=(first, second), leave=(first + rest, second + rest))

    def _stalls(self) -> _Reading | None:
        shares = _stalled(self._root / "proc" / "pressure" / "memory")
        if shares is None:
            return None
        first, second = (share - most for share, most in zip(shares, self.config.stalled, strict=True))
        half = [most / 2 for most in self.config.stalled]
        told = f"waiting for memory {shares[0]:.0%} of the time"
        return _Reading(told=told, enter=(first, second), leave=(first + half[0], second + half[1]))


def memory_free(root: Path) -> float | None:
    """Share of the memory that is available, of the machine or of the container around it, whichever is less."""
    shares = [share for share in (_machine_free(root), _container_free(root)) if share is not None]
    return min(shares, default=None)


def _verdict(reading: _Reading, before: Shed) -> Shed:
    level = Shed.NONE
    for step, enter, leave in zip((Shed.ADAPTATION, Shed.RATE), reading.enter, reading.leave, strict=True):
        if (leave if before >= step else enter) > 0:
            level = step
    return level


def _machine_free(root: Path) -> float | None:
    said = fields(root / "proc" / "meminfo")
    try:
        total, free = (float(said[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
    except (KeyError, IndexError, ValueError):
        return None
    return free / total if total > 0 else None


def _container_free(root: Path) -> float | None:
    """Of a limit set by cgroup v2; pages of files that can be dropped count as free, as in MemAvailable."""
    group = root / "sys" / "fs" / "cgroup"
    limit, used = number(group / "memory.max"), number(group / "memory.current")
    if not limit or used is None:
        return None
    dropped = 0.0
    for line in text(group / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == "inactive_file" and value.isdigit():
            dropped = float(value)
    return min(max((limit - used + dropped) / limit, 0.0), 1.0)


def _stalled(file: Path) -> tuple[float, float] | None:
    """Shares of the last ten seconds in which some processes, and all, waited for memory."""
    found = {}
    for line in text(file).splitlines():
        kind, _, rest = line.partition(" ")
        for word in rest.split():
            key, _, value = word.partition("=")
            if key == "avg10":
                try:
                    found[kind] = float(value) / 100
                except ValueError:
                    return None
    return (found["some"], found.get("full", 0.0)) if "some" in found else None
