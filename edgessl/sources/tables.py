"""CSV and Parquet files as columns: float64 with NaN for what is missing, times, or text."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError, MissingExtraError

Columns = dict[str, NDArray[Any]]  # name -> (rows,), float64, datetime64[ns] or str

_ROWS = 20_000  # of a CSV file at once: text takes many times the room of its numbers
_MISSING = frozenset(("", "na", "n/a", "nan", "null", "none"))


def read_columns(path: Path) -> Columns:
    """All columns of a `.csv` or `.parquet` file.

    A CSV file has a header and is UTF-8; comma, semicolon or tab stand between its cells, whichever the header has most of.
    A column is text when a cell of it is no number; empty cells, NA, NaN and null are missing.

    Raises:
        InputError: It cannot be read, or holds no rows.
        MissingExtraError: A Parquet file, and pyarrow is not installed.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    columns = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    if not columns or not len(next(iter(columns.values()))):
        raise InputError(f"{path} holds no rows; give a log with a header and at least two rows")
    return columns


def _csv(path: Path) -> Columns:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = max(",;\t", key=first.count)
            names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
            _check_header(names, path)
            parts: list[list[NDArray[Any]]] = [[] for _ in names]
            rows = _rows(csv.reader(file, delimiter=delimiter), len(names), path)
            while block := list(islice(rows, _ROWS)):
                for part, cells in zip(parts, zip(*block, strict=True), strict=True):
                    part.append(_parsed(cells))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from error
    return {name: _joined(part) for name, part in zip(names, parts, strict=True) if part}


def _check_header(names: list[str], path: Path) -> None:
    if not names:
        raise InputError(f"{path} is empty; give a log with a header and at least two rows")
    if all(_is_number(name) for name in names):
        raise InputError(
            f"{path} begins with numbers, {', '.join(names[:3])}; write the names of the columns above them"
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path} has two columns {twice!r}; rename one")


def _rows(reader: Any, width: int, path: Path) -> Iterator[list[str]]:
    for row in reader:
        if len(row) == width:
            yield row
        elif row:
            raise InputError(
                f"{path} has {len(row)} cells in line {reader.line_num + 1}, and {width} in its header; repair that line"
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parsed(cells: tuple[str, ...]) -> NDArray[Any]:
    try:
        return np.asarray([float(cell) for cell in cells])
    except ValueError:
        pass
    texts = [cell.strip() for cell in cells]
    try:
        return np.asarray([np.nan if text.lower() in _MISSING else float(text) for text in texts])
    except ValueError:
        return np.asarray(texts)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    if all(part.dtype.kind == "f" for part in parts):
        return np.concatenate(parts)
    return np.concatenate([part if part.dtype.kind == "U" else _as_text(part) for part in parts])


def _as_text(numbers: NDArray[np.float64]) -> NDArray[np.str_]:
    return np.where(np.isnan(numbers), "", numbers.astype(str))


def _parquet(path: Path) -> Columns:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "logs") from error
    try:
        table = parquet.ParquetFile(path).read()
        return {name: _column(table.column(name), arrow) for name in table.column_names}
    except (OSError, ValueError, KeyError, arrow.ArrowException) as error:  # KeyError: two columns of one name
        raise InputError(f"{path} cannot be read as Parquet: {error}") from error


def _column(column: Any, arrow: Any) -> NDArray[Any]:
    types = arrow.types
    if types.is_timestamp(column.type):
        return np.asarray(column.cast(arrow.timestamp("ns")).to_numpy(), "datetime64[ns]")
    if types.is_boolean(column.type) or types.is_integer(column.type) or types.is_decimal(column.type):
        column = column.cast(arrow.float64(), safe=False)
    if types.is_floating(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
    texts = column.to_pylist()
    return np.asarray(["" if text is None else str(text) for text in texts])
