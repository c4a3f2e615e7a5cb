"""Vectors as JSON lines: in a file, or on standard output as they come.

One object a line: `name`, `stamp` (seconds as the source counts them, null where it is not known), `age_ms` and `version` where
they were told, and `vector`, the shortest numbers that give the same float32 (null for a quarantined sample).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.sinks.base import Held, Rows, Tally, columns_of


def write_jsonl(path: Path, held: Held) -> None:
    """Write a new file; only one part of the rows is in memory at a time."""
    with path.open("xb") as file:
        for rows in held:
            file.write(lines_of(rows))


class JsonLines:
    """A sink on an open stream, which it leaves open; each write is flushed.

    Attributes:
        tally: Of what was written.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.tally = Tally()
        self._stream = stream

    def write(
        self,
        names: Sequence[str],
        stamps: NDArray[np.float64] | None,
        vectors: NDArray[np.float32],
        facts: Mapping[str, Any],
    ) -> None:
        """One line a row."""
        self._stream.write(lines_of(Rows(list(names), stamps, vectors, columns_of(facts))))
        self._stream.flush()
        self.tally.take(names, vectors, facts)

    def finish(self) -> None:
        """It is finished as it is."""

    def close(self) -> None:
        """Nothing is left to be written."""


def lines_of(rows: Rows) -> bytes:
    """One JSON object a line."""
    return "".join(_line(rows, row) for row in range(len(rows.names))).encode()


def _line(rows: Rows, row: int) -> str:
    stamp = float(rows.times()[row])
    told = {"name": rows.names[row], "stamp": stamp if np.isfinite(stamp) else None}
    told |= {column: values[row] for column, values in rows.columns.items()}
    vector = rows.vectors[row]
    # numpy's text of a float32 is the shortest that gives it back; json would write that of the equal float64.
    numbers = f"[{', '.join(vector.astype(str))}]" if np.isfinite(vector).all() else "null"
    return f'{json.dumps(told)[:-1]}, "vector": {numbers}}}\n'
