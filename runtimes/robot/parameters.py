"""What a node can be told: one table for the command line, the environment and ROS.

A value is looked for on the command line, then in the environment (`EDGESSL_MAX_AGE`; dora's `env:` is that), then in the
parameters of the ROS node, which have the names of the fields. What stands in none of them has its default. Nothing heavy
is imported here: the help of the command line reads the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgessl.errors import InputError, UnknownNameError

LOOPBACK = "127.0.0.1"
LOGS = ("debug", "info", "warning", "error")
PRECISIONS = ("auto", "fp32", "fp16", "int8")
#: what may be typed -> what a learner calls it
LEVELS = {"0": "recenter", "1": "ports", "2": "tail"} | {
    name: name for name in ("auto", "none", "recenter", "ports", "tail")
}
_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Everything that a node can be told; see `TABLE`.

    Attributes:
        bundle: The folder `NAME.edgessl`.
        engine: A key of the engines, or `auto`.
        precision: `fp32`, `fp16`, `int8` or `auto`.
        threads: Per run; 0 lets the engine choose.
        low_power: Few threads that sleep between frames.
        state: Folder that keeps what is learned; `None` for no learning.
        level: How far learning may go, a value of `LEVELS`.
        rate: Frames per second that are embedded, at most; 0 for no limit.
        max_age: Seconds; an older frame is dropped. 0 for no limit.
        metrics: Address and port of the Prometheus metrics; `None` for no metrics.
        rerun: The Rerun recording; `None` for none.
        rerun_every: One frame in so many is recorded as a picture.
        log: The least level that is logged.
    """

    bundle: Path
    engine: str = "auto"
    precision: str = "auto"
    threads: int = 0
    low_power: bool = False
    state: Path | None = None
    level: str = "auto"
    rate: float = 0.0
    max_age: float = 0.5
    metrics: tuple[str, int] | None = None
    rerun: Path | None = None
    rerun_every: int = 10
    log: str = "info"

    @property
    def learns(self) -> bool:
        """Whether anything is to be learned."""
        return self.state is not None and self.level != "none"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the table.

    Attributes:
        name: Of the field, and of the ROS parameter.
        read: From text, or a value of ROS, to the value; raises `InputError`.
        about: For people; ends with the default.
    """

    name: str
    read: Callable[[str, Any], Any]
    about: str

    @property
    def variable(self) -> str:
        """Name in the environment."""
        return f"EDGESSL_{self.name.upper()}"


def parameters_from(*layers: Mapping[str, Any]) -> Parameters:
    """Parameters from layers of values by name, the first one that has a value counts; `None` and "" are no values.

    Raises:
        InputError: A value cannot be read, or there is no bundle.
    """
    values = {}
    for entry in TABLE:
        given = next((layer[entry.name] for layer in layers if layer.get(entry.name) not in (None, "")), None)
        if given is not None:
            values[entry.name] = entry.read(entry.name, given)
    if "bundle" not in values:
        raise InputError("no bundle was given; type it behind the command, or set EDGESSL_BUNDLE=robot.edgessl")
    return Parameters(**values)


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The layer that stands in the environment."""
    return {entry.name: environment[entry.variable] for entry in TABLE if entry.variable in environment}


def _path(name: str, given: Any) -> Path:
    return Path(str(given))


def _choice(*choices: str) -> Callable[[str, Any], str]:
    def read(name: str, given: Any) -> str:
        if str(given) not in choices:
            raise UnknownNameError(name, str(given), choices)
        return str(given)

    return read


def _name(name: str, given: Any) -> str:
    return str(given)  # of an engine: the table of engines knows them, and says so


def _level(name: str, given: Any) -> str:
    if str(given) not in LEVELS:
        raise UnknownNameError(name, str(given), LEVELS)
    return LEVELS[str(given)]


def _whole(least: int) -> Callable[[str, Any], int]:
    def read(name: str, given: Any) -> int:
        try:
            value = int(str(given))
        except ValueError:
            value = least - 1
        if value < least:
            raise InputError(f"{name} must be a whole number from {least}, not {given!r}")
        return value

    return read


def _seconds(name: str, given: Any) -> float:
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"{name} must be a number, 0 or more, not {given!r}")
    return value


def _switch(name: str, given: Any) -> bool:
    text = str(given).lower()
    if text not in (*_YES, *_NO):
        raise InputError(f"{name} must be 1 or 0, not {given!r}")
    return text in _YES


def _address(name: str, given: Any) -> tuple[str, int]:
    """`9400` is on loopback; any other address is typed in full, `0.0.0.0:9400` or `[::1]:9400`."""
    host, colon, port = str(given).rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536) or bool(colon) != bool(host):
        raise InputError(f"{name} must be a port on loopback, 9400, or an address, 0.0.0.0:9400, not {given!r}")
    return host.strip("[]") or LOOPBACK, int(port)


#: every parameter of every node, in the order of use
TABLE = (
    Entry(name="bundle", read=_path, about="Folder NAME.edgessl written by `edgessl export`."),
    Entry(name="engine", read=_name, about="What runs the graphs. Default: auto."),
    Entry(name="precision", read=_choice(*PRECISIONS), about="auto, fp32, fp16 or int8. Default: auto."),
    Entry(name="threads", read=_whole(0), about="Threads per run. Default: 0, the engine chooses."),
    Entry(name="low_power", read=_switch, about="Few threads that sleep between frames."),
    Entry(name="state", read=_path, about="Folder that keeps what is learned. Default: nothing is learned."),
    Entry(name="level", read=_level, about="How far learning may go: none, auto, 0, 1 or 2. Default: auto."),
    Entry(name="rate", read=_seconds, about="Frames per second that are embedded, at most. Default: 0, all."),
    Entry(name="max_age", read=_seconds, about="Seconds; older frames are dropped. 0: never. Default: 0.5."),
    Entry(
        name="metrics",
        read=_address,
        about="Port on 127.0.0.1, or ADDRESS:PORT, of Prometheus metrics. Default: none.",
    ),
    Entry(name="rerun", read=_path, about="Rerun recording to write, such as out.rrd. Default: none."),
    Entry(name="rerun_every", read=_whole(1), about="One frame in so many is recorded as a picture. Default: 10."),
    Entry(name="log", read=_choice(*LOGS), about="The least that is logged: debug, info, warning or error."),
)
