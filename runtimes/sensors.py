"""What the kernel's small text files say: temperatures, batteries, and any file of one line. The one reader of them.

A file that is not there, or whose driver refuses, says nothing: no reader here raises, and each tells "nothing" from 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

_CREDIBLE_C = (-40.0, 150.0)  # some zones report 0 K or the largest integer when they are asleep
_THROTTLES = ("passive", "hot")  # at a trip point of these kinds the kernel slows the machine down, or warns
_LEAST_TRIP_C = 60.0  # ours: lower ones (the skin of a laptop, a placeholder) say nothing about a board at work


@dataclass(frozen=True, kw_only=True)
class Zone:
    """A thermal zone.

    Attributes:
        name: What it measures, as the kernel calls it.
        temperature_c: Now.
        limit_c: Where the kernel begins to slow the machine down; None where it does not say.
    """

    name: str
    temperature_c: float
    limit_c: float | None


def zones(thermal: Path) -> list[Zone]:
    """The thermal zones that can be read, in the kernel's order.

    Args:
        thermal: `/sys/class/thermal`.
    """
    found = []
    for folder in sorted(thermal.glob("thermal_zone*"), key=lambda path: (len(path.name), path.name)):
        heat = _celsius(folder / "temp")
        if heat is not None:
            found.append(
                Zone(name=text(folder / "type") or folder.name, temperature_c=heat, limit_c=_throttled_at_c(folder))
            )
    return found


def hottest_c(thermal: Path) -> float | None:
    """Degrees Celsius of the hottest zone; `None` when none can be read."""
    return max((zone.temperature_c for zone in zones(thermal)), default=None)


def battery_percent(power: Path) -> tuple[float, bool] | None:
    """Percent of the emptiest battery that is discharging, and `True`; of the emptiest at all, and `False`, if none is.

    `None` when no battery can be read. One inside a peripheral (`scope` is `Device`) is none of the robot's.

    Args:
        power: `/sys/class/power_supply`.
    """
    found = []
    for supply in power.glob("*"):
        percent = number(supply / "capacity")
        if percent is not None and 0 <= percent <= 100 and text(supply / "scope") != "Device":
            found.append((text(supply / "status") != "Discharging", percent))
    if not found:
        return None
    resting, percent = min(found)
    return percent, not resting


def number(file: Path) -> float | None:
    """The number that a file holds; `None` where it holds none that is finite."""
    try:
        value = float(text(file))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def text(file: Path) -> str:
    """What a file of one line says; nothing when it is not there, or its driver refuses."""
    try:
        return file.read_text(encoding="ascii").strip("\0 \t\r\n")
    except (OSError, UnicodeDecodeError):
        return ""


def fields(file: Path) -> dict[str, str]:
    """`KEY: VALUE` lines, as in /proc/meminfo; of a key that comes again, the first."""
    found: dict[str, str] = {}
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def _celsius(file: Path) -> float | None:
    value = number(file)
    low, high = _CREDIBLE_C
    return value / 1000 if value is not None and low <= value / 1000 <= high else None


def _throttled_at_c(zone: Path) -> float | None:
    limits = (_celsius(Path(f"{str(kind)[: -len('_type')]}_temp")) for kind in _throttling(zone))
    return min((limit for limit in limits if limit is not None and limit >= _LEAST_TRIP_C), default=None)


def _throttling(zone: Path) -> list[Path]:
    return [kind for kind in zone.glob("trip_point_*_type") if text(kind) in _THROTTLES]
