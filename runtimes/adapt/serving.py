"""Embed with a version of an adapting encoder, by the cheapest graph that computes it.

factory   nothing moved: the encoder's own graph
folded    ports, each right behind a convolution, and what is in front of the first one: the same graph with other constants
          (`runtimes/fold.py`), as fast
split     ports elsewhere, or a trained tail: trunk and tail, two graphs, the tail in float

What recentring does to the vectors, a product of `(batch, dim)` by `(dim, dim)`, is put into a small graph
(`runtimes/correct.py`), where it takes a few millionths of a second. A large graph takes longer to open, at every change of
that product, than it could save: there numpy does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import EngineError
from edgessl.runtimes.adapt.served import Affine, Served
from edgessl.runtimes.encoder import Encoder, refuse_rows
from edgessl.runtimes.engines import Arrays
from edgessl.runtimes.fold import Fold
from edgessl.runtimes.framefilter import FrameFilter
from edgessl.runtimes.graphs import graph_for, takes_plans, trunk_beside
from edgessl.runtimes.port import Port, any_mixes
from edgessl.runtimes.split import Tail, Trunk
from edgessl.runtimes.stem import PatchMap

Floats = NDArray[np.float32]
_ALONE = 8192  # entries of a matrix that OpenBLAS multiplies by a vector without other threads: fewer than 9216
_SMALL = 4 << 20  # bytes of a graph that opens in hundredths of a second; ours
Embed = Callable[[NDArray[Any]], Floats]  # frames (batch, *sample) -> unit vectors (batch, dim)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A version that is ready to embed. It gives its graphs back when nobody holds it any more.

    Attributes:
        number: Of the version.
        path: `factory`, `folded` or `split`.
        why: It is that one.
        embed: As `Encoder.embed`.
    """

    number: int
    path: str
    why: str
    embed: Embed


class Serving:
    """Serves one version after the other; use it in a `with`, or close it. Closing twice is allowed.

    `prepare` may run in another thread than `embed`, and `swap` in either: a batch is embedded by one version from its first
    frame to its last.

    Args:
        encoder: Gives the bundle, the engine, the precision and the settings. It must stay open, and is not closed here.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._fold: Fold | None = None
        self._halves: tuple[Trunk, Tail] | None = None
        self._lock = Lock()  # of what is opened once, by whichever version needs it first
        self._closed = False
        self._small = not takes_plans(encoder.engine) and _size(encoder) <= _SMALL
        self._prepared = self.prepare(Served())

    def use(self, served: Served) -> None:
        """Serve this version from now on; as slow as opening a graph."""
        self.swap(self.prepare(served))

    def prepare(self, served: Served) -> Prepared:
        """Open what a version needs; the one that serves is not touched.

        Raises:
            EngineError: The engine cannot open a graph, or this is closed.
            BundleError: The ports are not this bundle's.
        """
        self._check_open()
        path, why, embed, corrected = self._embed_of(served)
        if isinstance(served.front, FrameFilter):
            why = f"frames are filtered before; {why}"
            embed = partial(_filtered, self._encoder, served.front, embed)
        if served.affine is not None and not corrected:
            embed = _Corrected(embed, served.affine)
        return Prepared(number=served.number, path=path, why=why, embed=embed)

    def swap(self, prepared: Prepared) -> None:
        """Serve what was prepared from the next batch on."""
        self._prepared = prepared

    def embed(self, frames: NDArray[Any]) -> Floats:
        """Embed a batch with the version that serves.

        Args:
            frames: `(batch, *sample)` as the sensor gives them.

        Returns:
            Unit vectors `(batch, dim)`; the caller owns the array.

        Raises:
            InputError: Wrong dtype or shape, or values that are NaN or infinite; names the rows.
            EngineError: This or the encoder is closed, or the engine failed.
        """
        self._check_open()
        return self._prepared.embed(frames)

    def info(self) -> dict[str, Any]:
        """Number of the version that serves, the path by which, and why."""
        now = self._prepared
        return {"number": now.number, "path": now.path, "why": now.why}

    def close(self) -> None:
        """Give back what was opened here."""
        with self._lock:
            self._closed = True
            for half in self._halves or ():
                half.close()
            self._halves = self._fold = None

    def __enter__(self) -> Serving:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("this serving is closed; make another: Serving(encoder)")

    def _embed_of(self, served: Served) -> tuple[str, str, Embed, bool]:
        """Path, why, the function, and whether the affine correction is in it."""
        encoder, patch = self._encoder, served.front if isinstance(served.front, PatchMap) else None
        ports = served.ports if served.ports is not None and _move(served.ports) else None
        if served.tail is not None:
            tail = Tail(encoder.bundle, engine=encoder.engine, settings=encoder.settings, weights=served.tail)
            return "split", "a trained tail is a graph of its own", self._split(ports, patch, tail), False
        affine = served.affine if self._small else None
        if ports is None and patch is None:
            embed = encoder.embed if affine is None else self._own(affine=affine).embed
            return "factory", "stem, ports and tail are the factory's", embed, affine is not None
        fold = self._fold_once()
        if ports is not None and not fold.possible:
            return "split", "the bundle records no constants that take the ports in", self._split(ports, patch), False
        folded = self._own(constants=fold.constants(ports, patch), affine=affine)
        why = "every port stands right behind a convolution, which takes it in"
        if ports is None:
            why = "the first convolution takes in what is in front of it"
        return "folded", why, folded.embed, affine is not None

    def _own(self, *, constants: Arrays | None = None, affine: Affine | None) -> Encoder:
        """The encoder's graph with other numbers."""
        given, after = self._encoder, None if affine is None else (affine.matrix, affine.shift)
        return Encoder(
            given.bundle,
            engine=given.engine,
            precision=given.precision,
            settings=given.settings,
            constants=constants,
            affine=after,
        )

    def _split(self, ports: tuple[Port, ...] | None, patch: PatchMap | None, tail: Tail | None = None) -> Embed:
        trunk, factory = self._halves_once()
        if patch is not None or any_mixes(ports):
            trunk = self._trunk(patch, ports)
        return partial(_in_halves, self._encoder, trunk, ports or trunk.identity, tail or factory)

    def _fold_once(self) -> Fold:
        with self._lock:
            if self._fold is None:
                encoder = self._encoder
                self._fold = Fold(encoder.bundle, engine=encoder.engine, precision=encoder.precision)
            return self._fold

    def _halves_once(self) -> tuple[Trunk, Tail]:
        """Trunk, which takes any ports, and the factory's tail: all versions share them."""
        with self._lock:
            if self._halves is None:
                bundle, engine, settings = self._encoder.bundle, self._encoder.engine, self._encoder.settings
                self._halves = self._trunk(), Tail(bundle, engine=engine, settings=settings)
            return self._halves

    def _trunk(self, patch: PatchMap | None = None, ports: tuple[Port, ...] | None = None) -> Trunk:
        bundle, engine, settings = self._encoder.bundle, self._encoder.engine, self._encoder.settings
        precision = trunk_beside(bundle, self._encoder.precision, engine)
        return Trunk(bundle, engine=engine, precision=precision, settings=settings, patch=patch, ports=ports)


def _size(encoder: Encoder) -> int:
    """Bytes of the encoder's graph; an IR has its weights in a file beside it."""
    graph = graph_for(encoder.bundle, "encoder", encoder.precision, encoder.engine)
    return sum(path.stat().st_size for path in (graph, graph.with_suffix(".bin")) if path.exists())


def _move(ports: tuple[Port, ...]) -> bool:
    return any((scale != 1).any() or (shift != 0).any() for scale, shift in ports)


def _filtered(encoder: Encoder, front: FrameFilter, embed: Embed, frames: NDArray[Any]) -> Floats:
    return embed(front(encoder.input.check(frames)))


def _in_halves(encoder: Encoder, trunk: Trunk, ports: tuple[Port, ...], tail: Tail, frames: NDArray[Any]) -> Floats:
    batch = encoder.input.check(frames)
    refuse_rows(encoder.input.finite(batch))
    if not len(batch):
        return np.empty((0, encoder.dim), np.float32)
    return tail.run(trunk.run(batch, ports).latents)


class _Corrected:
    """`Affine.apply` of what `embed` gives, in the few calls that one frame at a time has time for.

    Row by row, and in blocks of the matrix that numpy's BLAS (OpenBLAS) multiplies in the calling thread: waking its others
    takes longer than the product, and they get in the way of the engine's.
    """

    def __init__(self, embed: Embed, affine: Affine) -> None:
        matrix = np.ascontiguousarray(affine.matrix.T, np.float32)
        rows = max(1, _ALONE // len(matrix))
        self._blocks = [(slice(at, at + rows), matrix[at : at + rows]) for at in range(0, len(matrix), rows)]
        self._embed, self._shift = embed, affine.shift.astype(np.float32)

    def __call__(self, frames: NDArray[Any]) -> Floats:
        vectors = self._embed(frames)
        moved = np.empty_like(self._shift)
        for vector in vectors:
            for part, block in self._blocks:
                np.dot(block, vector, out=moved[part])
            np.add(moved, self._shift, out=moved)
            length = math.sqrt(np.dot(moved, moved))
            np.multiply(moved, 1 / length if length else 1.0, out=vector)
        return vectors
