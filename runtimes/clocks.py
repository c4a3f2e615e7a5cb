"""At which power mode, clocks and temperature this machine runs now, and whether it is being held back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgessl.runtimes.sensors import hottest_c, number, text, zones

UNAVAILABLE = "unavailable"

#: bits of a Raspberry Pi's get_throttled -> what each says is so now
_PI_BITS = {
    0: "the supply's voltage is too low",
    1: "the clock is capped",
    2: "throttled",
    3: "at its soft limit of heat",
}
_SLOWS_CPU = ("cpufreq", "Processor")  # in the type of a cooling device


def machine_state(root: Path = Path("/")) -> dict[str, Any]:
    """Power mode, governor, clocks and temperature; "unavailable" where the system does not say."""
    sys = root / "sys"
    policies = sorted(sys.glob("devices/system/cpu/cpufreq/policy*"))
    governors = sorted({text(policy / "scaling_governor") for policy in policies} - {""})
    gpus = sorted(folder for folder in sys.glob("class/devfreq/*") if re.search(r"gpu|gpc", folder.name))
    heat = hottest_c(sys / "class" / "thermal")
    return {
        "power_mode": power_mode(root) or UNAVAILABLE,
        "governor": ", ".join(governors) or UNAVAILABLE,
        "cpu_mhz": _highest(policies, "scaling_cur_freq", 1e3),
        "cpu_allowed_mhz": _highest(policies, "scaling_max_freq", 1e3),
        "cpu_max_mhz": _highest(policies, "cpuinfo_max_freq", 1e3),
        "gpu_mhz": _highest(gpus, "cur_freq", 1e6),
        "gpu_max_mhz": _highest(gpus, "max_freq", 1e6),
        "temperature_c": UNAVAILABLE if heat is None else round(heat, 1),
        "held_back": held_back(root),
    }


def power_mode(root: Path = Path("/")) -> str:
    """A Jetson's mode (`nvpmodel`), or a laptop's profile; empty where there is neither."""
    found = re.search(r"pmode:(\d+)", text(root / "var" / "lib" / "nvpmodel" / "status"))
    if found:
        mode = int(found[1])
        try:
            modes = (root / "etc" / "nvpmodel.conf").read_text(errors="replace")
        except OSError:
            modes = ""
        named = re.search(rf"POWER_MODEL\s+ID={mode}\s+NAME=(\S+)", modes)
        return f"{named[1]} ({mode})" if named else str(mode)
    return text(root / "sys" / "firmware" / "acpi" / "platform_profile")


def held_back(root: Path = Path("/")) -> list[str]:
    """What slows this machine down now, in words; empty where nothing does, or nothing says so."""
    sys = root / "sys"
    found = [
        f"{zone.name} is at {zone.temperature_c:.1f} C, and slows down from {zone.limit_c:.0f} C"
        for zone in zones(sys / "class" / "thermal")
        if zone.limit_c is not None and zone.temperature_c >= zone.limit_c
    ]
    for device in sorted(sys.glob("class/thermal/cooling_device*")):
        kind, state = text(device / "type"), number(device / "cur_state")
        if state and any(word in kind for word in _SLOWS_CPU):
            found.append(f"{kind} cools the processor by slowing it, step {state:.0f}")
            break  # one says it for all cores
    for file in sorted(sys.glob("devices/platform/*/*firmware/get_throttled")):
        try:
            bits = int(text(file), 16)
        except ValueError:
            continue
        found += [what for bit, what in _PI_BITS.items() if bits >> bit & 1]
    return found


def _highest(folders: list[Path], name: str, per_mhz: float) -> float | str:
    values = [value for folder in folders if (value := number(folder / name)) is not None]
    return round(max(values) / per_mhz) if values else UNAVAILABLE
