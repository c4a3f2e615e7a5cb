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
from edgessl.errors import EngineError, InputError, MissingExtraError, UnknownNameError
from edgessl.runtimes.engines import FAKE, Affine, Arrays, EngineSettings, open_engine, settings_of
from edgessl.runtimes.engines.choice import automatic, untaken
from edgessl.runtimes.engines.choice import engine_name as engine_name
from edgessl.runtimes.graphs import graph_for, precisions_for
from edgessl.runtimes.pressure import Pressure
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
        precision: `fp32`, `fp16` or `int8`.
        threads: Threads per run, where that is all there is to set; 0 lets the engine choose.
        settings: What the engine may take of the processor.
        constants: Of the graph, name -> the value that stands in place of the factory's.
        affine: Matrix `(dim, dim)` and shift `(dim,)`: vectors become `unit(vectors @ matrix + shift)`, in the graph.
        chosen: Where `auto` chose: engine -> why it was taken, or not.

    Attributes:
        bundle: What was opened.
        engine, precision: Name of the engine, and of what the graph computes in.
        threads, settings, chosen: As given; the last is empty where the engine was asked for by name.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        engine: str,
        precision: str,
        threads: int = 0,
        settings: EngineSettings | None = None,
        constants: Arrays | None = None,
        affine: Affine | None = None,
        chosen: dict[str, str] | None = None,
    ) -> None:
        self.bundle = bundle
        self.engine = engine
        self.precision = precision
        self.settings = settings_of(threads, settings)
        self.threads, self.chosen = self.settings.threads, chosen or {}
        graph = graph_for(bundle, "encoder", precision, engine)
        # A version that an adapting encoder serves comes once; what the factory made is opened again and again.
        kept = replace(self.settings, cache=not constants and affine is None)
        self._graph = open_engine(engine, graph, settings=kept, constants=constants, affine=affine)
        self._fused, self._closed = dict[str, int](), False

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
        """Name of the embedding space; vectors of different spaces must not be compared. What is fake has its own."""
        return f"fake:{self.bundle.space_id}" if self.engine == FAKE else self.bundle.space_id

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
        if batch.dtype.kind == "f":  # pixels are always finite
            refuse_rows(self.input.finite(batch))
        if 0 < len(batch) <= CHUNK:  # a plan does not run nothing
            return self._run(batch)
        vectors = np.empty((len(batch), self.dim), np.float32)
        for start in range(0, len(batch), CHUNK):
            vectors[start : start + CHUNK] = self._run(batch[start : start + CHUNK])
        return vectors

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        found = self._graph.run({"frames": np.ascontiguousarray(batch)})
        return np.asarray(expected(found, "vectors", (len(batch), self.dim), self.bundle), np.float32)

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
            budget: What learning may cost; when `None` the default budget, which also yields to heat and to want of memory.

        Raises:
            StateError: The state belongs to another bundle, or another process is using it.
        """
        adapt = "edgessl.runtimes.adapt."
        budget = budget or import_module(f"{adapt}budget").Budget(pressure=Pressure())
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

    def info(self, *, fused: bool = False) -> dict[str, Any]:
        """What really runs, and what it is.

        Args:
            fused: Count how many products the engine made of an int8 graph; takes onnxruntime a second opening of the graph.

        Returns:
            `precision` is that of the graph, `floats` what its float operators compute in, `fused` the products by what they
            compute in, and `chosen` why it is this engine, where `auto` was asked for.
        """
        facts: dict[str, Any] = {"bundle": str(self.bundle.path), "space_id": self.space_id, "dim": self.dim}
        if not self._closed:
            engine = self._graph.info()
            facts |= {**engine, "floats": engine["precision"]}
            if fused and not self._fused and self.precision == "int8":
                self._fused = self._graph.fused()
        facts["precision"] = self.precision
        told = {"fused": self._fused if fused else None, "chosen": self.chosen}
        return facts | {name: value for name, value in told.items() if value}

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
    path: str | Path,
    *,
    engine: str = "auto",
    precision: str = "auto",
    verify: bool = True,
    threads: int = 0,
    settings: EngineSettings | None = None,
) -> Encoder:
    """Open a bundle; the same as `edgessl.open`.

    Args:
        path: The folder that `edgessl export` wrote.
        engine: A key of `ENGINES`; `auto` takes the first that runs the bundle here, and `Encoder.chosen` says why.
        precision: `fp32`, `fp16`, `int8`; `auto` takes the cheapest that the bundle has.
        verify: Compare every file's digest with the manifest.
        threads: Threads per run, where that is all there is to set; 0 lets the engine choose.
        settings: What the engine may take of the processor, such as `LOW_POWER`.

    Raises:
        BundleError: Missing, damaged, newer, or hostile.
        InputError: No such engine or precision, or settings that the engine does not take.
        EngineError: The engine cannot load the graph.
    """
    settings = settings_of(threads, settings)
    engine_name(engine)
    if precision not in ("auto", *PRECISIONS):
        raise UnknownNameError("precision", precision, ("auto", *PRECISIONS))
    return encoder_of(open_bundle(Path(path), verify=verify), engine, precision, settings)


def encoder_of(bundle: Bundle, engine: str, precision: str, settings: EngineSettings) -> Encoder:
    """An opened bundle, as in `open_encoder`."""
    if engine != "auto":
        return Encoder(bundle, engine=engine, precision=_cheapest(bundle, engine, precision), settings=settings)
    able = [name for name in automatic() if precision in ("auto", *bundle.precisions("encoder", name))]
    why = {name: f"{bundle.path.name} has no {precision} for it" for name in automatic() if name not in able}
    for name in able or automatic():
        try:
            found = _cheapest(bundle, name, precision)
            why[name] = f"taken in {found}: the first that runs the bundle here"
            chosen = {other: why.get(other) or untaken(other, name) for other in automatic()}
            return Encoder(bundle, engine=name, precision=found, settings=settings, chosen=chosen)
        except (EngineError, MissingExtraError) as error:  # noqa: PERF203 (three engines)
            why[name] = str(error)
    said = "; ".join(f"{name}: {reason}" for name, reason in why.items())
    raise EngineError(f"no engine runs {bundle.path} here. {said}. Type: edgessl doctor")


def _cheapest(bundle: Bundle, engine: str, precision: str) -> str:
    if precision != "auto":
        return precision
    return next(iter(precisions_for(bundle, "encoder", engine)), "fp32")


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
