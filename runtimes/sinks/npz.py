"""Vectors in an `.npz` file, written and read a part at a time.

`vectors` `(n, dim)` float32, `names` `(n,)`, `version` `(n,)` int64: of the encoder, as it adapted; `stamp` `(n,)` float64 in
seconds as the source counts them, where any is known; `space_id` `()` and `space_revision` `()` int64: of the bundle. The names
are an array of unicode strings, so that `np.load` reads them without `allow_pickle`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.runtimes.sinks.base import Held, Rows, Space

_ROWS = 4096  # rows read at a time


def write_npz(path: Path, held: Held) -> None:
    """Write a new file. Only one part of the rows is in memory at a time."""
    count, width = held.count, max(held.name_width, 1)
    columns: dict[str, tuple[np.dtype[Any], tuple[int, ...], Callable[[Rows], NDArray[Any]]]] = {
        "vectors": (np.dtype("<f4"), (count, held.space.dim), lambda rows: rows.vectors),
        "names": (np.dtype(f"<U{width}"), (count,), lambda rows: np.array(rows.names, f"<U{width}")),
        "version": (np.dtype("<i8"), (count,), lambda rows: rows.versions()),
    }
    if held.stamped:
        columns["stamp"] = (np.dtype("<f8"), (count,), lambda rows: rows.times())
    with zipfile.ZipFile(path, "x") as file:
        for name, (dtype, shape, column) in columns.items():
            # A name of its own, so that the entry has no time of day: equal vectors give equal files.
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                npy.write_array_header_1_0(member, header)
                for rows in held:
                    member.write(column(rows).astype(dtype, order="C", copy=False).tobytes())
        for name, value in (
            ("space_id", np.str_(held.space.space_id)),
            ("space_revision", np.int64(held.space.revision)),
        ):
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, np.asanyarray(value), allow_pickle=False)


class NpzVectors:
    """An `.npz` file that `write_npz` wrote, as `Held`.

    Raises:
        InputError: It cannot be read, or is none.
    """

    stamped = False  # stamps are not read: an index has no place for them

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as file:
                (self.count, dim), dtype = _header(file, "vectors")
                (names,), text = _header(file, "names")
                space_id, revision = _scalar(file, "space_id"), _scalar(file, "space_revision")
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise self._damaged(error) from error
        if dtype != np.dtype("<f4") or text.kind != "U" or names != self.count:
            raise self._damaged(f"vectors are {dtype} of {self.count} rows, names {text} of {names}")
        self.name_width = text.itemsize // 4
        self.space = Space(space_id=str(space_id), revision=int(revision), dim=dim)

    def __iter__(self) -> Iterator[Rows]:
        try:
            with (
                zipfile.ZipFile(self._path) as file,
                file.open("vectors.npy") as vectors,
                file.open("names.npy") as names,
            ):
                _skip_header(vectors)
                _skip_header(names)
                for start in range(0, self.count, _ROWS):
                    rows = min(_ROWS, self.count - start)
                    texts = _read(names, rows, np.dtype(f"<U{self.name_width}"))
                    values = _read(vectors, rows * self.space.dim, np.dtype("<f4"))
                    yield Rows(texts.tolist(), None, values.reshape(rows, self.space.dim))
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: object) -> InputError:
        return InputError(
            f"{self._path} cannot be read as vectors: {error}; give a file that edgessl embed -o vectors.npz wrote"
        )


def _skip_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array that is no pickle; the file then stands before its values."""
    version = npy.read_magic(member)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(member)
    if fortran or dtype.hasobject:
        raise ValueError(f"an array is stored as {dtype}, {'columns' if fortran else 'rows'} first")
    return shape, dtype


def _header(file: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with file.open(f"{name}.npy") as member:
        return _skip_header(member)


def _scalar(file: zipfile.ZipFile, name: str) -> Any:
    with file.open(f"{name}.npy") as member:
        return npy.read_array(member, allow_pickle=False)


def _read(member: IO[bytes], count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    content = member.read(count * dtype.itemsize)
    if len(content) != count * dtype.itemsize:
        raise EOFError("it is cut off")
    return np.frombuffer(content, dtype)
