"""What is done of an output that is not finished: it outlives `kill -9`, and the same command goes on behind it.

The journal of `OUTPUT` is the folder `OUTPUT.embedding/`:

    .lock       held by the process that writes
    key.json    what makes the vectors; another command must not go on with these
    rows        one record after the other, as `records.py` has them
    whole.*     the output, while it is put together

A record counts when it is whole by its own checksum; what a kill left of the last one is cut off. The output is put together
from all records at the end, in one go, so it does not depend on where the work was stopped, and then it is renamed into place.
Memory does not grow with the rows.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError, OutputExistsError
from edgessl.files import hold_folder, put_in_place, sync_folder, write_atomic
from edgessl.runtimes.sinks.base import Held, Rows, Space, Tally, columns_of
from edgessl.runtimes.sinks.records import record_of, records_of, write_all
from edgessl.runtimes.sinks.whole import remove, same, sync

FORMAT = 1
SYNC_S = 1.0  # between flushes to the disk itself: a power cut costs at most this much, a kill nothing


class Journal:
    """A sink that becomes a file or folder. Use it in a `with`, or close it: what was written stays until `finish`.

    Args:
        output: What it becomes.
        key: Plain values that say what makes the vectors.
        space: Of the vectors.
        write: Makes the output of the rows.
        overwrite: A journal of another key is dropped, and an output that is there is replaced.
        clock_s: Says when to flush.

    Attributes:
        count, name_width, stamped, space: As `Held` has them; the journal is one.
        tally: Of its rows.
        lost_bytes: Of a record that was not whole; cut off when the journal was opened.

    Raises:
        InputError: Another process writes this output, the journal is another command's, or nothing can be written there.
    """

    def __init__(
        self,
        output: Path,
        key: Mapping[str, Any],
        space: Space,
        write: Callable[[Path, Held], None],
        *,
        overwrite: bool = False,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.space = space
        self.count, self.name_width, self.stamped = 0, 0, False
        self.tally = Tally()
        self.lost_bytes = 0
        self._synced_s = clock_s()
        self._output, self._write, self._overwrite, self._clock_s = output, write, overwrite, clock_s
        self._folder = folder_of(output)
        self._rows: BinaryIO | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = hold_folder(self._folder)
        except BlockingIOError as error:
            raise InputError(f"{output} is being written by another process; wait for it, or choose another") from error
        except OSError as error:
            raise InputError(f"{output} cannot be written: {error}; choose another output") from error
        try:
            self._open({"format": FORMAT, **key})
        except BaseException:
            self.close()
            raise

    def write(
        self,
        names: Sequence[str],
        stamps: NDArray[np.float64] | None,
        vectors: NDArray[np.float32],
        facts: Mapping[str, Any],
    ) -> None:
        """Add a record; it is there whole, or not at all.

        Raises:
            InputError: The disk is full, or gone; every earlier record is kept.
        """
        told = {"names": list(names), "stamped": stamps is not None, "columns": columns_of(facts)}
        told |= {name: facts[name] for name in ("done", "skipped") if name in facts}
        content = record_of(told, stamps, vectors)
        rows = self._opened()
        end = rows.tell()
        try:
            write_all(rows, content)
            if self._clock_s() - self._synced_s >= SYNC_S:
                os.fsync(rows.fileno())
                self._synced_s = self._clock_s()
        except OSError as error:
            rows.truncate(end)
            rows.seek(end)
            raise self._full(error) from error
        self._take(told, vectors)

    def __iter__(self) -> Iterator[Rows]:
        """Every row, in the records that were written."""
        with (self._folder / "rows").open("rb") as file:
            for told, stamps, vectors in records_of(file, self.space.dim):
                if told["names"]:
                    yield Rows(told["names"], stamps, vectors, told["columns"])

    def finish(self) -> None:
        """Make the output of all records, put it in place and remove the journal.

        Raises:
            InputError: The disk is full, or gone; the journal is kept.
            OutputExistsError: There is another output by now, and `overwrite` is false.
        """
        whole = self._folder / f"whole{self._output.suffix}"
        try:
            remove(whole)
            self._write(whole, self)
            sync(whole)
            if self._output.exists() and not self._overwrite and not same(whole, self._output):
                raise OutputExistsError(self._output)
            put_in_place(whole, self._output)
            sync_folder(self._output.parent)
        except OSError as error:
            remove(whole)
            raise self._full(error) from error
        except BaseException:
            remove(whole)
            raise
        self._remove()

    def close(self) -> None:
        """Let another process have it. A journal without a row goes."""
        if self._rows is not None:
            self._rows.close()
            self._rows = None
            if not self.count:
                self._remove()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, key: Mapping[str, Any]) -> None:
        told, rows = self._folder / "key.json", self._folder / "rows"
        before = _read_key(told)
        if before is not None and before != key:
            if not self._overwrite:
                raise InputError(self._other(before, key))
            before = None
        try:
            if before is None or not rows.exists():  # killed while the journal was removed
                rows.write_bytes(b"")
                write_atomic(told, json.dumps(key, indent=1).encode())
            file = rows.open("r+b", buffering=0)
        except OSError as error:
            raise InputError(f"{self._output} cannot be written: {error}; choose another output") from error
        self._rows = file
        for found, _, vectors in records_of(file, self.space.dim):
            self._take(found, vectors)
        end = file.tell()
        self.lost_bytes = file.seek(0, os.SEEK_END) - end
        file.truncate(end)
        file.seek(end)

    def _take(self, told: Mapping[str, Any], vectors: NDArray[np.float32]) -> None:
        self.tally.take(told["names"], vectors, told)
        self.count = self.tally.count
        self.name_width = max(self.name_width, max(map(len, told["names"]), default=0))
        self.stamped |= told["stamped"]

    def _opened(self) -> BinaryIO:
        if self._rows is None:
            raise InputError(f"the journal of {self._output} is closed; open it again")
        return self._rows

    def _full(self, error: OSError) -> InputError:
        return InputError(
            f"{self._output} cannot be written: {error.strerror or error}. {self.count} samples are kept in {self._folder}/: "
            f"make room, for as much again, and type the same command to go on"
        )

    def _other(self, before: Mapping[str, Any], key: Mapping[str, Any]) -> str:
        names = [name for name in {**before, **key} if before.get(name) != key.get(name)]
        differ = "; ".join(f"{name} was {before.get(name)!r} and is {key.get(name)!r}" for name in names)
        return (
            f"{self._folder} holds what another command has done of {self._output}: {differ}. Type that command again to "
            "finish it, choose another output, or add --overwrite to start again"
        )

    def _remove(self) -> None:
        """Our own files only; the key last, because without it nothing is gone on with."""
        if self._rows is not None:
            self._rows.close()
            self._rows = None
        partial = [file.name for file in self._folder.glob(".key.json.*.partial")]  # of a kill while it was written
        for name in ("rows", *partial, "key.json", ".lock"):
            (self._folder / name).unlink(missing_ok=True)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()


def folder_of(output: Path) -> Path:
    """Where the journal of an output is."""
    return output.with_name(f"{output.name}.embedding")


def unfinished(output: Path) -> bool:
    """Whether there is a journal of this output."""
    return (folder_of(output) / "key.json").is_file()


def _read_key(path: Path) -> dict[str, Any] | None:
    """What is written there; a key that cannot be read belongs to no command."""
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}; remove {path.parent} to start again") from error
