"""What a machine draws, from the meters it has: a Jetson's power rails, a processor's energy counters, or its battery.

Read from sysfs, so nothing is installed and no root service is needed. Best first: `ina3221` and `ina238`, the chips on a
Jetson board (voltage times current of each rail); RAPL, the energy counters of x86 processors (the processor alone, not the
board; readable by root only on most systems); the battery, while it discharges (slow and coarse).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from types import TracebackType

from edgessl.runtimes.sensors import number, text

BOARD, COUNTERS, BATTERY = "board rails", "RAPL counters", "battery"

_TOTALS = ("VDD_IN", "POM_5V_IN", "VIN", "psys")  # rails that feed all the others
_NOT_RAILS = ("", "NC", "sum of shunt voltages")
_PATIENCE_S = 5.0  # with a meter whose driver hangs
_WITHIN = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}  # rail -> the one it is fed from, on AGX Orin


class Rails:
    """The power meters of this machine; found once, read often.

    Args:
        sysfs: Where the kernel shows them.
        clock: Seconds, never going back; counters become watts by it.

    Attributes:
        source: Which kind of meter; empty where there is none.
        averaged: Watts are means since the last reading, and not of this instant.
        missing: Why there is none; empty where there is one.
    """

    def __init__(self, sysfs: Path = Path("/sys"), *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sysfs, self._clock = sysfs, clock
        self._counted: dict[str, tuple[float, float]] = {}  # zone -> joules, and when
        self.source, self.averaged, self.missing = "", False, ""
        if self._read_board():
            self.source = BOARD
        elif any(number(zone / "energy_uj") is not None for zone in self._zones()):
            self.source, self.averaged = COUNTERS, True
            self._read_counters()
        elif self._read_battery():
            self.source = BATTERY
        else:
            closed = any(self._zones())
            self.missing = (
                "the processor's energy counters are root's; type: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
                if closed
                else "no power rail, energy counter or discharging battery under /sys"
            )

    def read_w(self) -> dict[str, float]:
        """Watts of every rail by name; empty where nothing can be read now."""
        if self.source == BOARD:
            return self._read_board()
        if self.source == COUNTERS:
            return self._read_counters()
        return self._read_battery() if self.source == BATTERY else {}

    def total_w(self) -> float | None:
        """Watts of the whole machine, as far as its meters see it; `None` where nothing can be read now."""
        rails = self.read_w()
        return total_w(rails) if rails else None

    def _read_board(self) -> dict[str, float]:
        watts: dict[str, float] = {}
        for chip in sorted(self._sysfs.glob("bus/i2c/devices/*/hwmon/hwmon*")):
            for name, value in _channels(chip):
                if value is not None:
                    watts[name if name not in watts else f"{name} ({chip.name})"] = value
        return watts

    def _zones(self) -> list[Path]:
        """One per package, and of the whole platform; what is inside a package is in its count."""
        return sorted(path for path in self._sysfs.glob("class/powercap/*-rapl:*") if path.name.count(":") == 1)

    def _read_counters(self) -> dict[str, float]:
        watts = {}
        now = self._clock()
        for zone in self._zones():
            count, largest = number(zone / "energy_uj"), number(zone / "max_energy_range_uj")
            if count is None:
                continue
            name = text(zone / "name") or zone.name
            joules = count / 1e6
            before, then = self._counted.get(name, (joules, now))
            self._counted[name] = (joules, now)
            if joules < before:  # it began again at 0
                joules += (largest or 0) / 1e6
            if now > then:
                watts[name] = max(joules - before, 0.0) / (now - then)
        return watts

    def _read_battery(self) -> dict[str, float]:
        watts = {}
        for supply in sorted(self._sysfs.glob("class/power_supply/*")):
            if text(supply / "status") != "Discharging" or text(supply / "scope") == "Device":
                continue
            power = number(supply / "power_now")
            volts, amperes = number(supply / "voltage_now"), number(supply / "current_now")
            if power is not None:
                watts[supply.name] = abs(power) / 1e6
            elif volts is not None and amperes is not None:
                watts[supply.name] = abs(volts * amperes) / 1e12
        return watts


def total_w(rails: dict[str, float]) -> float:
    """Watts of the rail that feeds all others, or the sum of those that are not fed by another one."""
    for name in _TOTALS:
        if name in rails:
            return rails[name]
    return sum(watts for name, watts in rails.items() if _WITHIN.get(name) not in rails)


class EnergyMeter:
    """Integrates power while something runs: use it in a `with`, from a thread of its own.

    Args:
        rails: What is read.
        every_s: Seconds between two readings.
        clock: Seconds; the same as that of `rails`.
        wait: Waits so many seconds, and says whether to stop; the thread's own by default.

    Attributes:
        joules: Drawn so far.
        seconds: Measured so far.
        readings: How many were taken.
    """

    def __init__(
        self,
        rails: Rails,
        *,
        every_s: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self.joules, self.seconds, self.readings = 0.0, 0.0, 0
        self._rails, self._every_s, self._clock = rails, every_s, clock
        self._stop = Event()
        self._wait = wait or self._stop.wait
        self._last: tuple[float, float] | None = None  # when, and watts
        self._thread = Thread(target=self._run, name="energy", daemon=True)

    @property
    def mean_w(self) -> float | None:
        """Watts over the whole time; `None` before two readings."""
        return self.joules / self.seconds if self.seconds > 0 else None

    def read(self) -> None:
        """Take one reading and add what was drawn since the last; a reading that fails is left out."""
        now, watts = self._clock(), self._rails.total_w()
        if watts is None:
            if self._rails.averaged and self._last is None:
                self._last = (now, 0.0)  # a counter's first mean begins here
            return
        self.readings += 1
        if self._last is not None and now > self._last[0]:
            took = now - self._last[0]
            # A mean holds for all the time since the last reading; between two instants power is taken as a line.
            self.joules += took * (watts if self._rails.averaged else (watts + self._last[1]) / 2)
            self.seconds += took
        self._last = (now, watts)

    def __enter__(self) -> EnergyMeter:
        if self._rails.source:
            self.read()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_S)
            if not self._thread.is_alive():
                self.read()

    def _run(self) -> None:
        while not self._wait(self._every_s):
            self.read()


def _channels(chip: Path) -> Iterator[tuple[str, float | None]]:
    kind = text(chip / "name")
    if kind == "ina3221":
        for label in sorted(chip.glob("in*_label")):
            name, channel = text(label), label.name[len("in") : -len("_label")]
            millivolts, milliamperes = number(chip / f"in{channel}_input"), number(chip / f"curr{channel}_input")
            if name not in _NOT_RAILS:
                yield name, None if millivolts is None or milliamperes is None else millivolts * milliamperes / 1e6
    elif kind == "ina238":  # on the Thor developer kit, in front of everything
        microwatts = number(chip / "power1_input")
        yield "VIN", None if microwatts is None else microwatts / 1e6
