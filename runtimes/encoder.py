"""A bundle, opened in an engine: frames in, unit vectors out."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import PRECISIONS, Bundle, open_bundle
from edgessl.errors import EngineError, InputError, UnknownNameError
from edgessl.runtimes.engines import ENGINES, Arrays, open_engine
from edgessl.runtimes.graphs import graph_for, precisions_for
from edgessl.signals import InputSpec

if TYPE_CHECKING:
    from edgessl.runtimes.adapt.beside import Beside
    from edgessl.runtimes.adapt.budget import Budget
    from edgessl.runtimes.adapt.learner import Learner, LearnerConfig

CHUNK = 8  # frames in one run: larger batches take more memory and, out of the cache, more time per frame
_NAMED_ROWS = 8  # rows that an error about bad values names


class Encoder:
    """An open encoder; use it in a `with`, or close it. Closing twice is allowed.

    Args:
        bundle: An opened bundle.
        engine: A key of `ENGINES`.
        precision: `fp32` or `int8`.
        threads: Threads per run; 0 lets the engine choose.
        constants: Of the graph, name -> the value that stands in place of the factory's.

    Attributes:
        bundle: What was opened.
        engine: Name of the engine.
        precision: Precision of the graph that runs.
        threads: As given.
    """

    def __init__(
        self, bundle: Bundle, *, engine: str, precision: str, threads: int = 0, constants: Arrays | None = None
    ) -> None:
        self.bundle = bundle
        self.engine = engine
        self.precision = precision
        self.threads = threads
        graph = graph_for(bundle, "encoder", precision, engine)
        self._graph = open_engine(engine, graph, threads=threads, constants=constants)
        self._closed = False

    @property
    def input(self) -> InputSpec:
        """What one sample is."""
        return self.bundle.input

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.bundle.dim

    @property
    def space_id(self) -> str:
        """Name of the embedding space; vectors of different spaces must not be compared."""
        return self.bundle.space_id

    @property
    def manifest(self) -> dict[str, Any]:
        """The bundle's manifest."""
        return self.bundle.manifest

    def embed(self, frames: NDArray[Any]) -> NDArray[np.float32]:
        """Embed a batch.

        Args:
            frames: `(batch, *sample)` as the sensor gives them.

        Returns:
            Unit vectors `(batch, dim)`; the caller owns the array.

        Raises:
            InputError: Wrong dtype or shape, or values that are NaN or infinite; names the rows.
            EngineError: The encoder is closed, or the engine failed.
        """
        if self._closed:
            raise EngineError("this encoder is closed; open it again with edgessl.open(...)")
        batch = self.input.check(frames)
        refuse_rows(self.input.finite(batch))
        vectors = np.empty((len(batch), self.dim), np.float32)
        for start in range(0, len(batch), CHUNK):
            part = np.ascontiguousarray(batch[start : start + CHUNK])
            found = expected(self._graph.run({"frames": part}), "vectors", (len(part), self.dim), self.bundle)
            vectors[start : start + CHUNK] = found
        return vectors

    def learner(
        self,
        state: str | Path,
        *,
        level: str = "auto",
        seed: int = 0,
        steps_per_frame: float | None = None,
        config: LearnerConfig | None = None,
    ) -> Learner:
        """Embed and learn: a learner over this encoder's bundle, engine and precision.

        Args:
            state: Folder that keeps what was learned; made when it is not there.
            level: `recenter`, `ports`, `tail`, or `auto`.
            seed: Of a new state; a stored one goes on with its own.
            steps_per_frame: Budget of level `tail`: training steps per observed frame, at most.
            config: Everything else that can be set.

        Raises:
            StateError: The state belongs to another bundle, or another process is using it.
        """
        # By name, because `runtimes.adapt` stands above this file.
        learner: Learner = import_module("edgessl.runtimes.adapt.learner").Learner(
            self, Path(state), level=level, seed=seed, steps_per_frame=steps_per_frame, config=config
        )
        return learner

    def adapting(
        self,
        state: str | Path,
        *,
        level: str = "auto",
        seed: int = 0,
        steps_per_frame: float | None = None,
        config: LearnerConfig | None = None,
        budget: Budget | None = None,
    ) -> Beside:
        """Embed now and learn beside it, in another thread: what a robot uses.

        Args:
            state, level, seed, steps_per_frame, config: As in `learner`.
            budget: What learning may cost; the default budget when `None`.

        Raises:
            StateError: The state belongs to another bundle, or another process is using it.
        """
        adapt = "edgessl.runtimes.adapt."
        budget = budget or import_module(f"{adapt}budget").Budget()
        # The budget chooses the frames that the learner gets, so each of them is looked at.
        config = replace(config or import_module(f"{adapt}config").LearnerConfig(), observe_every=1)
        settings: dict[str, Any] = {"level": level, "seed": seed, "steps_per_frame": steps_per_frame, "config": config}
        learner: Learner = import_module(f"{adapt}learner").Learner(
            self, Path(state), **settings, may_step=budget.take_step
        )
        try:
            beside: Beside = import_module(f"{adapt}beside").Beside(
                learner, import_module(f"{adapt}serving").Serving(self), budget=budget
            )
        except BaseException:
            learner.close(save=False)
            raise
        return beside

    def info(self) -> dict[str, Any]:
        """What really runs, and what it is."""
        return {
            "bundle": str(self.bundle.path),
            "space_id": self.space_id,
            "dim": self.dim,
            "precision": self.precision,
            **({} if self._closed else self._graph.info()),
        }

    def close(self) -> None:
        """Give the graph's memory back."""
        self._closed = True
        self._graph.close()

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_encoder(
    path: str | Path, *, engine: str = "auto", precision: str = "auto", verify: bool = True, threads: int = 0
) -> Encoder:
    """Open a bundle; the same as `edgessl.open`.

    Args:
        path: The folder that `edgessl export` wrote.
        engine: A key of `ENGINES`; `auto` takes the first.
        precision: `fp32`, `int8`; `auto` takes the cheapest that the bundle has.
        verify: Compare every file's digest with the manifest.
        threads: Threads per run; 0 lets the engine choose.

    Raises:
        BundleError: Missing, damaged, newer, or hostile.
        InputError: No such engine or precision.
        EngineError: The engine cannot load the graph.
    """
    if precision not in ("auto", *PRECISIONS):
        raise UnknownNameError("precision", precision, ("auto", *PRECISIONS))
    if threads < 0:
        raise InputError(f"threads must be 0 (let the engine choose) or more, not {threads}")
    bundle = open_bundle(Path(path), verify=verify)
    engine = engine_name(engine)
    if precision == "auto":
        precision = next(iter(precisions_for(bundle, "encoder", engine)), "fp32")
    return Encoder(bundle, engine=engine, precision=precision, threads=threads)


def engine_name(name: str) -> str:
    """`name`, or the first of `ENGINES` for `auto`.

    Raises:
        UnknownNameError: There is no engine of that name.
    """
    if name == "auto":
        return next(iter(ENGINES))
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ("auto", *ENGINES))
    return name


def expected(arrays: Arrays, name: str, shape: tuple[int, ...], bundle: Bundle) -> NDArray[Any]:
    """One of the arrays that a graph gave.

    Raises:
        EngineError: It is not there, or has another shape than the manifest promises.
    """
    if name not in arrays or arrays[name].shape != shape:
        gave = f"{name} {arrays[name].shape}" if name in arrays else f"{', '.join(arrays)} and no {name}"
        raise EngineError(f"a graph of {bundle.path} gave {gave}, not {name} {shape}; export the bundle again")
    return arrays[name]


def refuse_rows(finite: NDArray[np.bool_]) -> None:
    """Name the rows that are not finite.

    Raises:
        InputError: There are some.
    """
    bad = np.flatnonzero(~finite)
    if not len(bad):
        return
    named = ", ".join(str(row) for row in bad[:_NAMED_ROWS]) + (" ..." if len(bad) > _NAMED_ROWS else "")
    raise InputError(
        f"{len(bad)} of {len(finite)} samples hold NaN or infinity: rows {named}. "
        "Leave them out: frames[np.isfinite(frames).reshape(len(frames), -1).all(1)]"
    )
