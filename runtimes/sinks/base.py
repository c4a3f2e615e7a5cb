"""What every sink takes, and what every file of vectors is written from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

#: What a sink may be told of each row, beside name, stamp and vector.
COLUMNS = ("version", "age_ms")


@dataclass
class Tally:
    """What a sink has.

    Attributes:
        count: Rows.
        done: How far the source was read, as the facts of the last rows said.
        skipped: Name -> reason, of all that was told.
        quarantined: Names of rows whose vectors are NaN.
    """

    count: int = 0
    done: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    quarantined: list[str] = field(default_factory=list)

    def take(self, names: Sequence[str], vectors: NDArray[np.float32], facts: Mapping[str, Any]) -> None:
        """Count some rows."""
        self.count += len(names)
        self.done = facts.get("done", self.done)
        self.skipped |= dict(facts.get("skipped", []))
        self.quarantined += [names[int(row)] for row in np.flatnonzero(~np.isfinite(vectors).all(1))]

    def counts(self) -> dict[str, Any]:
        """How many, and which were left out, as plain values."""
        return {
            "samples": self.count,
            "skipped": [{"name": name, "reason": reason} for name, reason in self.skipped.items()],
            "quarantined": self.quarantined,
        }


class Sink(Protocol):
    """Takes vectors as they come.

    Attributes:
        tally: Of what it has.
    """

    tally: Tally

    def write(
        self,
        names: Sequence[str],
        stamps: NDArray[np.float64] | None,
        vectors: NDArray[np.float32],
        facts: Mapping[str, Any],
    ) -> None:
        """Take some rows. When this returns, they outlive the process.

        Args:
            names: One per row.
            stamps: `(n,)` seconds since 1970, or since the start of a video or a simulation; NaN where one is not known, None
                where none is.
            vectors: `(n, dim)`; NaN for a quarantined sample.
            facts: Plain values: those of `COLUMNS` hold one per row, `done` and `skipped` say where the source stands.
                A sink keeps what it has a place for.
        """
        ...

    def finish(self) -> None:
        """All is there: make of it what was asked for."""
        ...

    def close(self) -> None:
        """Let go; closing twice is allowed."""
        ...


@dataclass(frozen=True)
class Rows:
    """What was given to one `write`, with those of its facts that are in `COLUMNS`."""

    names: list[str]
    stamps: NDArray[np.float64] | None
    vectors: NDArray[np.float32]
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def versions(self) -> NDArray[np.int64]:
        """Of the encoder, `(n,)`; 0 where nothing adapts."""
        return np.asarray(self.columns.get("version", [0] * len(self.names)), np.int64)

    def times(self) -> NDArray[np.float64]:
        """`stamps`, all NaN where none is known."""
        return np.full(len(self.names), np.nan) if self.stamps is None else self.stamps


@dataclass(frozen=True, kw_only=True)
class Space:
    """Where vectors live; those of two spaces are not compared."""

    space_id: str
    revision: int
    dim: int


class Held(Protocol):
    """Rows that are all there, and can be gone through more than once.

    Attributes:
        space: Of the vectors.
        count: Of rows.
        name_width: Length of the longest name.
        stamped: Whether any row may have a stamp.
    """

    space: Space
    count: int
    name_width: int
    stamped: bool

    def __iter__(self) -> Iterator[Rows]: ...


class InMemory:
    """Rows in memory as `Held`."""

    def __init__(self, space: Space, rows: Rows) -> None:
        self.space = space
        self.count = len(rows.names)
        self.name_width = max(map(len, rows.names), default=0)
        self.stamped = rows.stamps is not None
        self._rows = rows

    def __iter__(self) -> Iterator[Rows]:
        yield self._rows


def columns_of(facts: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Those facts that hold one value per row."""
    return {column: list(facts[column]) for column in COLUMNS if column in facts}
