"""Is an encoder in training still telling samples apart? Three figures in the log, and a stop where it is not.

The rule, checked about fifty times in a run, on up to 256 samples of the batch without augmentation. A check is bad when

- the spread is under `LEAST_SPREAD`, and under `LEAST_SHARE` of what it was before the first step, or
- the effective rank is under `LEAST_RANK`, and its part above 1 under `LEAST_SHARE` of the start's: all vectors lie on one
  line;

and after the warm-up, `PATIENCE` bad checks in a row are a collapse. An untrained encoder may well have little spread, and a
healthy one may lose some at first: hence the comparison with the start, the warm-up and the patience.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgessl.blocks.gather import gathered
from edgessl.encoders.base import unit_rows
from edgessl.errors import CollapseError
from edgessl.metrics import rankme, uniformity
from edgessl.vision import vision_module

vision_module("torchvision")  # lightning imports it through torchmetrics
vision_module("lightning.pytorch")

from lightning.pytorch import Callback, LightningModule, Trainer  # noqa: E402

if TYPE_CHECKING:
    from edgessl.data.frames import FrameBatch
    from edgessl.loop import Plan

SAMPLES = 256  #: per check, over all processes
CHECKS = 50  #: per run, at most about so many
LEAST_SPREAD, LEAST_SHARE, LEAST_RANK, PATIENCE = 0.02, 0.25, 1.05, 3


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How far the vectors of a set of samples lie apart.

    Attributes:
        spread: Mean over dimensions of the standard deviation of the unit vectors, times the root of the dimensions: 1
            when they fill the sphere, 0 when all are the same.
        rank: Effective rank of the unit vectors; see `metrics.rankme`.
        uniformity: See `metrics.uniformity`: 0 when all are the same, down to about -4.
    """

    spread: float
    rank: float
    uniformity: float

    @property
    def finite(self) -> bool:
        """Whether they are numbers."""
        return all(map(math.isfinite, (self.spread, self.rank, self.uniformity)))


def figures(features: Tensor) -> Figures:
    """The figures of features `(n, dim)`, n at least 2, of any length and dtype; NaN where a feature is not finite."""
    vectors = unit_rows(features.double().cpu())
    if not bool(vectors.isfinite().all()):  # numpy finds no singular values then
        return Figures(spread=math.nan, rank=math.nan, uniformity=math.nan)
    return Figures(
        spread=vectors.std(0, correction=0).mean().item() * math.sqrt(vectors.shape[1]),
        rank=rankme(vectors.numpy()),
        uniformity=uniformity(vectors.numpy()),
    )


class CollapseGuard(Callback):
    """Logs `Figures` as `spread`, `rank` and `uniformity`, and stops a training that has collapsed.

    Looking changes nothing: no weight, no running statistic, no random state. What it remembers is part of the state of
    the run.

    Args:
        plan: Of the run.
        log_every: Steps between two rows of the log; checks fall on some of these rows.
        stop: Whether to stop; else it only logs.

    Attributes:
        last: Figures of the last check.
    """

    def __init__(self, plan: Plan, *, log_every: int, stop: bool) -> None:
        rows = math.ceil(plan.steps / CHECKS / log_every)
        self._every, self._plan, self._stop = rows * log_every, plan, stop
        self._first: Figures | None = None
        self._bad = 0
        self.last: Figures | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: FrameBatch, batch_idx: int
    ) -> None:
        """Look, before the step.

        Raises:
            CollapseError: The encoder has collapsed.
        """
        step = trainer.global_step
        if step % self._every and step + 1 != self._plan.steps:
            return
        encoder: Any = pl_module.recipe.encoder  # type: ignore[union-attr]  # a TrainingModule's
        part = max(2, SAMPLES // trainer.world_size)
        with torch.no_grad(), evaluating(encoder):
            seen = figures(gathered(encoder.features(encoder.prepare(batch[0][:part])).float()))
        log(trainer, asdict(seen), step)
        if seen.finite:  # what is not is the loss's to report
            self.judge(step, seen)

    def judge(self, step: int, seen: Figures) -> None:
        """Count a check, at a step.

        Raises:
            CollapseError: It is the last of too many bad ones.
        """
        first = self._first = self._first or seen
        self.last = seen
        narrow = seen.spread < min(LEAST_SPREAD, LEAST_SHARE * first.spread)
        flat = seen.rank - 1 < min(LEAST_RANK - 1, LEAST_SHARE * (first.rank - 1))
        self._bad = self._bad + 1 if step >= self._plan.warmup and step > 0 and (narrow or flat) else 0
        if self._stop and self._bad >= PATIENCE:
            raise CollapseError(
                f"at step {step} the encoder has collapsed: spread {seen.spread:.2g} (at the start {first.spread:.2g}; under "
                f"{LEAST_SPREAD} is too little), effective rank {seen.rank:.2f} (at the start {first.rank:.2f}; under "
                f"{LEAST_RANK} is too little), {PATIENCE} checks in a row. Samples can hardly be told apart. Type a lower --lr "
                f"than {self._plan.lr:g}, a larger --batch than {self._plan.batch}, or another --set of the recipe"
            )

    def state_dict(self) -> dict[str, Any]:
        """What it remembers."""
        return {
            "first": None if self._first is None else asdict(self._first),
            "last": None if self.last is None else asdict(self.last),
            "bad": self._bad,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The opposite."""
        self._first, self.last = (
            None if state_dict[key] is None else Figures(**state_dict[key]) for key in ("first", "last")
        )
        self._bad = state_dict["bad"]


def log(trainer: Trainer, values: dict[str, float], step: int) -> None:
    """Write a row of the log; Lightning's own way repeats the last values in every row."""
    if trainer.logger is not None:
        trainer.logger.log_metrics(values, step)
        trainer.logger.save()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Every part of `module` in evaluation mode for the block, and then in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
