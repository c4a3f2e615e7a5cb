"""A file or folder that is there whole, or not at all."""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.files import put_in_place, sync_folder
from edgessl.runtimes.sinks.base import Held, Rows, Space, Tally, columns_of


class Whole:
    """A sink that keeps its rows in memory until `finish` writes them: for work that cannot be gone on with.

    Args:
        output: What it becomes; one that is there is replaced.
        space: Of the vectors.
        write: Makes the output of the rows.

    Attributes:
        count, name_width, stamped, space: As `Held` has them; it is one.
        tally: Of its rows.
    """

    def __init__(self, output: Path, space: Space, write: Callable[[Path, Held], None]) -> None:
        self.space = space
        self.count, self.name_width, self.stamped = 0, 0, False
        self.tally = Tally()
        self._output, self._write = output, write
        self._rows: list[Rows] = []

    def __iter__(self) -> Iterator[Rows]:
        yield from self._rows

    def write(
        self,
        names: Sequence[str],
        stamps: NDArray[np.float64] | None,
        vectors: NDArray[np.float32],
        facts: Mapping[str, Any],
    ) -> None:
        """Keep some rows."""
        self._rows.append(Rows(list(names), stamps, vectors, columns_of(facts)))
        self.tally.take(names, vectors, facts)
        self.count = self.tally.count
        self.name_width = max(self.name_width, max(map(len, names), default=0))
        self.stamped |= stamps is not None

    def finish(self) -> None:
        """Write them.

        Raises:
            InputError: Nothing can be written there.
        """
        write_whole(self._output, self._write, self)

    def close(self) -> None:
        """Nothing is held."""


def write_whole(output: Path, write: Callable[[Path, Held], None], held: Held) -> None:
    """Write rows that are there already; an output that is there is replaced.

    Raises:
        InputError: Nothing can be written there.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.", suffix=".partial") as folder:
            whole = Path(folder) / f"whole{output.suffix}"
            write(whole, held)
            sync(whole)
            put_in_place(whole, output)
        sync_folder(output.parent)
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error}; choose another output") from error


def sync(path: Path) -> None:
    """Flush a file, or every file of a folder, to the disk."""
    for file in _files(path):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    if path.is_dir():
        sync_folder(path)


def same(one: Path, other: Path) -> bool:
    """Whether two files, or two folders, hold the same bytes."""
    ours, theirs = _files(one), _files(other)
    return [file.relative_to(one) for file in ours] == [file.relative_to(other) for file in theirs] and all(
        filecmp.cmp(a, b, shallow=False) for a, b in zip(ours, theirs, strict=True)
    )


def remove(path: Path) -> None:
    """A file or folder that may not be there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
