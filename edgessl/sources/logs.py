"""A CSV or Parquet log with a time column -> a recording."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError, UnknownNameError
from edgessl.sources.clock import Recording
from edgessl.sources.recordings import chosen
from edgessl.sources.tables import Columns, read_columns
from edgessl.sources.windows import Windowing

_UNITS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_UNIT = r"(?:[ _]?[\[(]({0})[\])]|[ _]({0}))".format("|".join(_UNITS))
_TIME = re.compile(rf"(?:time|timestamp|t)(?:{_UNIT})?", re.IGNORECASE)
_ENDING = re.compile(rf".*{_UNIT}", re.IGNORECASE)


def read_log(path: Path, windowing: Windowing) -> Recording:
    """Read a log whose rows stand in the order of their time.

    The time column is the one that `windowing` names, or the only one called time, timestamp or t, with or without a unit
    behind it: `t`, `time_ms`, `Timestamp (ns)`. Numbers are in that unit. Without one they are seconds, as long as their
    median step is under 1; else the unit must be typed. A column of dates and times (ISO 8601, UTC, or Parquet's own) needs
    none. Rows without a time are left out.

    Channels are the columns that `windowing` names, or all numeric ones that are no time, no label, not called `label` and
    not empty. What is missing or infinite in a channel is no value.

    Raises:
        InputError: No such column, a column of text among the channels, text in a column of numbers, time that falls, or a file
            that cannot be read.
        MissingExtraError: A Parquet file, and pyarrow is not installed.
    """
    columns = read_columns(path)
    time_name, unit = _time_column(columns, windowing, path)
    time = _seconds(columns[time_name], unit, f"column {time_name!r} of {path}", time_name)
    label = windowing.label
    if label and label not in columns:
        raise UnknownNameError("column", label, columns)
    names = _channels(columns, {time_name, label}, windowing, path)
    rows = np.isfinite(time)
    time, values = time[rows], np.stack([columns[name][rows] for name in names])
    back = np.flatnonzero(np.diff(time) < 0)
    if len(back):
        raise InputError(
            f"time falls in column {time_name!r} of {path}, behind its row {int(back[0]) + 1} "
            f"({time[back[0] + 1] - time[back[0]]:g} s); sort the rows by time, or split the log there"
        )
    if not len(time):
        raise InputError(
            f"column {time_name!r} of {path} holds no time; type --series time=NAME with the column that does"
        )
    labels = _texts(columns[label])[rows] if label else None
    return Recording(time - time[0], np.where(np.isfinite(values), values, np.nan), tuple(names), labels=labels)


def _time_column(columns: Columns, windowing: Windowing, path: Path) -> tuple[str, str]:
    """Name and unit, which is empty where the name does not say it."""
    if windowing.time:
        name, colon, unit = windowing.time.rpartition(":")
        if not colon or windowing.time in columns:
            name, unit = windowing.time, _unit_of(windowing.time)
        elif unit not in _UNITS:
            raise UnknownNameError("unit of time", unit, _UNITS)
        if name not in columns:
            raise UnknownNameError("column", name, columns)
        return name, unit
    found = [name for name in columns if _TIME.fullmatch(name)]
    if len(found) != 1:
        what = (
            f"several time columns, {', '.join(found)}" if found else "no time column such as time, t or timestamp_ms"
        )
        raise InputError(f"{path} has {what}; type --series time=NAME, or NAME:ms. It holds {', '.join(columns)}")
    return found[0], _unit_of(found[0])


def _unit_of(name: str) -> str:
    found = _ENDING.fullmatch(name)
    return (found[1] or found[2]).lower() if found else ""


def _seconds(column: NDArray[Any], unit: str, where: str, name: str) -> NDArray[np.float64]:
    if column.dtype.kind == "U":
        try:
            column = np.asarray([re.sub(r"(Z|\+00:?00)$", "", text) for text in column.tolist()], "datetime64[ns]")
        except ValueError as error:
            raise InputError(f"{where} holds text that is no time in UTC: {error}; write seconds as numbers") from error
    if column.dtype.kind == "M":
        known = column[~np.isnat(column)]
        since = (column - known[0]) / np.timedelta64(1, "s") if len(known) else np.zeros(len(column))
        return np.where(np.isnat(column), np.nan, since)
    steps = np.diff(column[np.isfinite(column)])
    steps = steps[steps > 0]
    if not unit and len(steps) and np.median(steps) >= 1:
        raise InputError(
            f"{where} has steps of {np.median(steps):g} and no unit in its name; type --series time={name}:ms, or s, us, ns"
        )
    first = column[np.isfinite(column)][:1].sum()
    return np.asarray((column - first) * _UNITS[unit or "s"], np.float64)


def _channels(columns: Columns, taken: set[str], windowing: Windowing, path: Path) -> list[str]:
    if windowing.channels:
        names = [list(columns)[index] for index in chosen(list(columns), windowing)]
        for name in names:
            if columns[name].dtype.kind != "f":
                bad = next((text for text in _texts(columns[name]).tolist() if not _is_number(text)), "a time")
                raise InputError(
                    f"column {name!r} of {path} holds {bad!r}, which is no number; leave it out of channels"
                )
        return names
    names = [
        name
        for name, column in columns.items()
        if name not in taken
        and name.lower() != "label"
        and not _TIME.fullmatch(name)
        and column.dtype.kind == "f"
        and np.isfinite(column).any()
    ]
    for name in set(columns) - taken:
        if bad := _odd_text(columns[name]):
            raise InputError(
                f"column {name!r} of {path} holds numbers and {bad!r}; repair it, or type --series channels=NAME,... with "
                "the columns that are wanted"
            )
    if not names:
        raise InputError(f"{path} has no column of numbers beside the time; it holds {', '.join(columns)}")
    return names


def _odd_text(column: NDArray[Any]) -> str:
    """The first text of a column that holds more numbers than text; empty where it is all text, or all numbers."""
    if column.dtype.kind != "U":
        return ""
    odd = [text for text in column.tolist() if not _is_number(text)]
    return odd[0] if 2 * len(odd) < np.count_nonzero(column) else ""


def _texts(column: NDArray[Any]) -> NDArray[np.str_]:
    if column.dtype.kind != "f":
        return column.astype(str)
    texts = [format(value, ".15g") for value in column.tolist()]  # 3.0 is the class 3
    return np.asarray(["" if text == "nan" else text for text in texts])


def _is_number(text: str) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True
