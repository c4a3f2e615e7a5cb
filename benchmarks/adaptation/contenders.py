"""Who meets a stream: the bundle as it left the factory, its levels in each engine, and the baselines in PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Protocol

import numpy as np
import torch
from baselines import BatchNormStats, Frames, Head, Neo, NoAdaptation, Vectors, parts
from encoder import VIEWS
from numpy.typing import NDArray
from trained_baselines import CoTTA, TailFineTune, Tent

import edgessl
from edgessl.encoders.base import EncoderModule

#: Name in the tables -> name of the learner's level.
LEVELS = {"level0": "recenter", "level1": "ports", "level2": "tail"}
TORCH = "torch"
THREADS = 1  # of an engine: batches this small gain little from more, and runs may go side by side
COPIES = 4  # CoTTA's augmented copies; the paper's 32 would take hours on two cores


class Observer(Protocol):
    """What a contender is while it meets a stream."""

    def observe(self, frames: Frames) -> Vectors:
        """Unit vectors `(batch, dim)` of frames in the order they came."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a contender is made from.

    Attributes:
        bundle: In int8, for the engines.
        encoder: The same student in PyTorch, fp32.
        source: Clean frames without labels.
        labelled: Clean frames and their labels `(n,)`, which only the linear head of Tent and CoTTA is made from.
        seed: Of everything that a contender draws.
    """

    bundle: Path
    encoder: EncoderModule
    source: Frames
    labelled: tuple[Frames, NDArray[np.int64]]
    seed: int

    @cached_property
    def head(self) -> Head:
        """Linear head on the student's clean embeddings."""
        plain, (frames, labels) = NoAdaptation(self.encoder), self.labelled
        return linear_head(np.concatenate([plain.observe(part) for part in parts(frames)]), labels)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One line of a table.

    Attributes:
        name: Unique among those of a model.
        family: Variants of one method share it.
        model: Whose clean bank it is scored against, and whose unadapted form its gain is measured from: an engine, or
            `torch`.
        made: From a setting, within a `with`.
    """

    name: str
    family: str
    model: str
    made: Callable[[Setting], AbstractContextManager[Observer]]


@contextmanager
def plain(bundle: Path, engine: str) -> Iterator[Observer]:
    """The int8 encoder without a learner."""
    with edgessl.open(bundle, engine=engine, precision="int8", threads=THREADS) as encoder:
        yield SimpleNamespace(observe=encoder.embed)


@contextmanager
def learner(bundle: Path, engine: str, level: str, seed: int) -> Iterator[Observer]:
    """The learner as it ships, nothing configured, on a fresh state; `level` is a key of `LEVELS`."""
    with (
        edgessl.open(bundle, engine=engine, precision="int8", threads=THREADS) as encoder,
        tempfile.TemporaryDirectory() as folder,
        encoder.learner(Path(folder) / "state", level=LEVELS[level], seed=seed) as opened,
    ):
        yield opened


def unadapted(model: str) -> Contender:
    """The row that a model's others are measured from."""
    if model == TORCH:
        return _baseline("none", "none", lambda setting: NoAdaptation(setting.encoder))
    return Contender(name="none", family="none", model=model, made=lambda setting: plain(setting.bundle, model))


def levels(engine: str, names: Sequence[str] = tuple(LEVELS)) -> list[Contender]:
    """Ours, in one engine."""
    return [Contender(name=name, family=name, model=engine, made=partial(_learner, engine, name)) for name in names]


def baselines(which: str) -> list[Contender]:
    """In PyTorch: `none` of them, the `fast`, or `all`, with CoTTA, which alone takes longer than the others together."""
    found = [
        _baseline("batch norm", "batch norm", lambda s: BatchNormStats(s.encoder)),
        _baseline("batch norm, prior 64", "batch norm", lambda s: BatchNormStats(s.encoder, prior=64)),
        _baseline("batch norm, memory 1000", "batch norm", lambda s: BatchNormStats(s.encoder, memory=1000)),
        _baseline("neo", "neo", lambda s: Neo(s.encoder, source=s.source)),
        _baseline("neo, memory 500", "neo", lambda s: Neo(s.encoder, source=s.source, memory=500)),
        _baseline("tent", "tent", lambda s: Tent(s.encoder, s.head)),
        _baseline("tent, lr 1e-4", "tent", lambda s: Tent(s.encoder, s.head, lr=1e-4)),
        *(
            _baseline(f"tail, {loss}, lr {lr:g}", "tail", partial(_fine_tuned, loss, lr))
            for loss in ("vicreg", "align")
            for lr in (1e-2, 1e-3)
        ),
        _baseline("cotta", "cotta", _cotta),
    ]
    return {"none": [], "fast": found[:-1], "all": found}[which]


def linear_head(vectors: Vectors, labels: NDArray[np.int64], *, decay: float = 1e-5, rounds: int = 200) -> Head:
    """Multinomial logistic regression on unit vectors by L-BFGS.

    Args:
        vectors: `(n, dim)`.
        labels: `(n,)`, from 0.
        decay: Of the weights' squares; small, since on unit vectors a confident head has long weights.
        rounds: Of L-BFGS.
    """
    x, y = torch.as_tensor(vectors), torch.as_tensor(labels)
    weight = torch.zeros(int(y.max()) + 1, x.shape[1], requires_grad=True)
    bias = torch.zeros(len(weight), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=rounds, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(x @ weight.T + bias, y) + decay * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach().numpy(), bias.detach().numpy()


def _baseline(name: str, family: str, make: Callable[[Setting], Observer]) -> Contender:
    return Contender(name=name, family=family, model=TORCH, made=lambda setting: nullcontext(make(setting)))


def _learner(engine: str, level: str, setting: Setting) -> AbstractContextManager[Observer]:
    return learner(setting.bundle, engine, level, setting.seed)


def _fine_tuned(loss: str, lr: float, setting: Setting) -> Observer:
    return TailFineTune(setting.encoder, source=setting.source, seed=setting.seed, views=VIEWS, loss=loss, lr=lr)


def _cotta(setting: Setting) -> Observer:
    return CoTTA(setting.encoder, setting.head, source=setting.source, seed=setting.seed, copies=COPIES)
