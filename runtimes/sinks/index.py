"""An on-device index: the nearest vectors by cosine, without going through all of them. It is usearch's HNSW graph.

`NAME.index/` is a folder:

    index.json       space, dim, metric, how numbers are kept, count, and the digests of the other two
    vectors.usearch  the graph
    names.npy        names of all rows; the graph's keys are places there

Vectors are added in their order by one thread, so that equal vectors give equal files. Quarantined ones are left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

import edgessl
from edgessl.errors import InputError, IntegrityError, MissingExtraError, UnknownNameError
from edgessl.files import sha256_of
from edgessl.runtimes.sinks.base import Held, Space

FORMAT = 1
NUMBERS = ("f32", "f16", "i8")  #: how the graph keeps a number
EXACT = 10_000  #: up to so many vectors every one is looked at, and nothing is missed
_SEARCHED = 256  # candidates that a search keeps; usearch's own 64 misses more
_GRAPH, _NAMES, _FACTS = "vectors.usearch", "names.npy", "index.json"


@dataclass(frozen=True)
class Near:
    """A vector that was found, and its cosine to the one that was asked for."""

    name: str
    cosine: float


def write_index(path: Path, held: Held, numbers: str = "f32") -> None:
    """Write a new folder. The graph itself is in memory, the vectors that it is made of are not.

    Raises:
        MissingExtraError: usearch is not installed.
        InputError: There is no vector to be found.
    """
    if numbers not in NUMBERS:
        raise UnknownNameError("kind of numbers", numbers, NUMBERS)
    graph = _index_class()(ndim=held.space.dim, metric="cos", dtype=numbers)
    path.mkdir()
    dtype = np.dtype(f"<U{max(held.name_width, 1)}")
    row = 0
    with (path / _NAMES).open("xb") as names:
        npy.write_array_header_1_0(names, {"descr": dtype.str, "fortran_order": False, "shape": (held.count,)})
        for rows in held:
            names.write(np.array(rows.names, dtype).tobytes())
            finite = np.flatnonzero(np.isfinite(rows.vectors).all(1))
            graph.add(row + finite, rows.vectors[finite], threads=1)
            row += len(rows.names)
    if not len(graph):
        raise InputError("an index needs at least one vector, and all of these are NaN; look at what is quarantined")
    _save(graph, path / _GRAPH)
    space = held.space
    facts = {
        "format": FORMAT,
        "edgessl": edgessl.__version__,
        "space_id": space.space_id,
        "space_revision": space.revision,
        "dim": space.dim,
        "metric": "cosine",
        "numbers": numbers,
        "count": len(graph),
        "sha256": {name: sha256_of(path / name) for name in (_GRAPH, _NAMES)},
    }
    (path / _FACTS).write_text(json.dumps(facts, indent=1) + "\n")


class Places:
    """An index, opened.

    Attributes:
        space: Of its vectors.
        count: Of its vectors.

    Raises:
        InputError: There is none, or it is of a newer format.
        IntegrityError: A file is not what was written.
        MissingExtraError: usearch is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            facts = json.loads((path / _FACTS).read_text())
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} is no index: {error}; type edgessl index build vectors.npz -o {path.name}"
            ) from error
        try:
            self._check(facts)
            self.space = Space(space_id=facts["space_id"], revision=int(facts["space_revision"]), dim=int(facts["dim"]))
            self.count = int(facts["count"])
            self._names = np.load(path / _NAMES, mmap_mode="r", allow_pickle=False)
            self._graph = _index_class().restore(str(path / _GRAPH), view=True)
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise IntegrityError(f"{path} is damaged: {error!r}; build the index again") from error
        self._graph.expansion_search = _SEARCHED

    def refuse_space(self, space_id: str) -> None:
        """Before vectors are asked for.

        Raises:
            InputError: Vectors of that space are not compared with these.
        """
        if space_id != self.space.space_id:
            raise InputError(
                f"{self.path} holds vectors of the space {self.space.space_id} and this encoder's are of {space_id}; they are "
                "not compared. Embed what is in it again, with this bundle"
            )

    def nearest(self, vectors: NDArray[np.float32], count: int, space_id: str) -> list[list[Near]]:
        """The `count` nearest of each vector, nearest first; fewer where the index has fewer.

        Args:
            vectors: `(n, dim)`; nothing is near to one that is not finite.
            count: At least 1.
            space_id: Of `vectors`.

        Raises:
            InputError: They are of another space or length, or `count` is less than 1.
        """
        self.refuse_space(space_id)
        if vectors.shape[1:] != (self.space.dim,):
            raise InputError(f"{self.path} holds vectors of {self.space.dim} and these are {vectors.shape}")
        if count < 1:
            raise InputError(f"at least 1 nearest can be asked for, not {count}")
        count = min(count, self.count)
        return [self._found(vector, count) if np.isfinite(vector).all() else [] for vector in vectors]

    def _found(self, vector: NDArray[np.float32], count: int) -> list[Near]:
        found = self._graph.search(vector, count, exact=self.count <= EXACT, threads=1)
        return [
            Near(str(self._names[key]), 1 - float(distance))
            for key, distance in zip(found.keys, found.distances, strict=True)
        ]

    def _check(self, facts: dict[str, Any]) -> None:
        if facts["format"] > FORMAT:
            raise InputError(
                f"{self.path} has format {facts['format']}; this edgessl {edgessl.__version__} reads up to {FORMAT}. "
                "Type: pip install -U edgessl"
            )
        for name in (_GRAPH, _NAMES):  # usearch believes what it reads
            if sha256_of(self.path / name) != facts["sha256"][name]:
                raise IntegrityError(f"{self.path / name} is not what was written; build the index again")


def _save(graph: Any, path: Path) -> None:
    try:
        graph.save(str(path))
    except RuntimeError as error:  # the C++ side says no more than this
        raise OSError(f"{path}: {error}") from error


def _index_class() -> Any:
    # onnxruntime crashes the process when it is imported behind usearch (1.31.1 behind 2.26.6), and the other way is well.
    if find_spec("onnxruntime") is not None:
        import_module("edgessl.runtimes.engines.onnxrt")
    try:
        return import_module("usearch.index").Index
    except ModuleNotFoundError as error:
        raise MissingExtraError("usearch", "index") from error
