"""Vectors in a Parquet file: `name`, `stamp`, `seconds`, `version` and `vector`.

`seconds` is what the source says of a sample, null where it says nothing. `stamp` is the same as a time (UTC, nanoseconds), and
null where the seconds count from something else than 1970: a video has only its own start, a simulated robot its own clock.

The file's metadata say `space_id`, `space_revision` and `dim`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgessl.errors import InputError, MissingExtraError
from edgessl.runtimes.sinks.base import Held, Rows, Space

_ROWS = 1024  # in a row group, which is in memory; not what the parts hold, so that equal vectors give equal files
_TIMES_FROM_S = 365 * 86400.0  # no video lasts a year, and no recording is from 1970


def write_parquet(path: Path, held: Held) -> None:
    """Write a new file; only some rows are in memory at a time.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    space = held.space
    told = {"space_id": space.space_id, "space_revision": str(space.revision), "dim": str(space.dim)}
    schema = arrow.schema(
        [
            ("name", arrow.string()),
            ("stamp", arrow.timestamp("ns", tz="UTC")),
            ("seconds", arrow.float64()),
            ("version", arrow.int64()),
            ("vector", arrow.list_(arrow.float32(), space.dim)),
        ],
        metadata=told,
    )
    waiting: list[Any] = []
    # Through a file of Python's, so that a full disk is an OSError of that path.
    with path.open("xb") as file, parquet.ParquetWriter(file, schema, use_dictionary=False) as writer:
        for rows in held:
            waiting.append(_batch(rows, schema, arrow))
            while sum(len(batch) for batch in waiting) >= _ROWS:
                table = arrow.Table.from_batches(waiting)
                writer.write_table(table.slice(0, _ROWS), row_group_size=_ROWS)
                waiting = table.slice(_ROWS).to_batches()
        if waiting:
            writer.write_table(arrow.Table.from_batches(waiting), row_group_size=_ROWS)


class ParquetVectors:
    """A file that `write_parquet` wrote, as `Held`.

    Raises:
        InputError: It cannot be read, or is none.
        MissingExtraError: pyarrow is not installed.
    """

    stamped = False  # stamps are not read: an index has no place for them

    def __init__(self, path: Path) -> None:
        self._path = path
        self._arrow, self._parquet = _pyarrow()
        try:
            with self._parquet.ParquetFile(path) as file:
                told = {key.decode(): value.decode() for key, value in (file.schema_arrow.metadata or {}).items()}
                self.count = file.metadata.num_rows
                self.space = Space(
                    space_id=told["space_id"], revision=int(told["space_revision"]), dim=int(told["dim"])
                )
        except (OSError, ValueError, KeyError, self._arrow.ArrowException) as error:
            raise self._damaged(error) from error
        self.name_width = max((len(name) for rows in self for name in rows.names), default=0)

    def __iter__(self) -> Iterator[Rows]:
        try:
            with self._parquet.ParquetFile(self._path) as file:
                for batch in file.iter_batches(_ROWS, columns=["name", "vector"]):
                    vectors = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
                    shape = (len(batch), self.space.dim)
                    yield Rows(batch.column("name").to_pylist(), None, vectors.astype(np.float32).reshape(shape))
        except (OSError, ValueError, KeyError, self._arrow.ArrowException) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: object) -> InputError:
        return InputError(
            f"{self._path} cannot be read as vectors: {error}; give a file that edgessl embed -o vectors.parquet wrote"
        )


def _batch(rows: Rows, schema: Any, arrow: Any) -> Any:
    times = rows.times()
    seconds = arrow.array(times, mask=~np.isfinite(times))
    known = np.isfinite(times) & (times >= _TIMES_FROM_S)
    times = np.where(known, times, 0)
    whole = np.floor(times)  # apart: a float64 of nanoseconds since 1970 is 256 of them coarse
    nanoseconds = whole.astype(np.int64) * 10**9 + np.rint((times - whole) * 1e9).astype(np.int64)
    vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.vectors.ravel()), rows.vectors.shape[1])
    arrays = [
        arrow.array(rows.names, arrow.string()),
        arrow.array(nanoseconds, mask=~known).cast(schema.field("stamp").type),
        seconds,
        arrow.array(rows.versions()),
        vectors,
    ]
    return arrow.RecordBatch.from_arrays(arrays, schema=schema)


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "logs") from error
