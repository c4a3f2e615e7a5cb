"""How a training runs: steps, hardware, what is kept and what is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from edgessl.errors import InputError, UnknownNameError

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
LOGS = ("csv", "tensorboard")
#: Those of Lightning that keep a whole copy of the recipe in every process.
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a training runs; what it learns is the recipe's.

    Attributes:
        steps: Optimizer steps; or give `epochs`.
        epochs: Passes over the data; 50 when neither is given.
        batch: Samples per step, over all devices; the recipe's, or all samples if there are fewer, when None.
        lr: Peak learning rate of AdamW, after a warm-up and before a cosine to zero; the recipe's when None.
        weight_decay: Of the weights with two axes or more; the recipe's when None.
        warmup: Steps of the linear warm-up; a tenth of all steps when None.
        seed: Decides everything random.
        save_every: Steps between two states on disk.
        accelerator, devices, num_nodes, strategy, precision: Given to Lightning's Trainer. On several devices `auto` is
            `ddp_find_unused_parameters_true`, since a recipe need not use all of an encoder; `ddp` is a little faster where
            it does.
        workers: Processes that read samples when they do not fit in memory, per device; when None as many
            as leave a core to the training, 8 at most.
        guard: Stop a training that has collapsed; see `edgessl.collapse`. The figures are logged either way.
        resume: Go on with an interrupted run of the same settings; where there is none, begin.
        overwrite: Replace the output, and an interrupted run.
        log: `csv` or `tensorboard`.
        log_every: Steps between two rows of the log.
        progress: Show a progress bar on stderr.
    """

    steps: int | None = None
    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    warmup: int | None = None
    seed: int = 0
    save_every: int = 100
    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Precision = "32-true"
    workers: int | None = None
    guard: bool = True
    resume: bool = False
    overwrite: bool = False
    log: str = "csv"
    log_every: int = 10
    progress: bool = True

    def __post_init__(self) -> None:
        least = dict.fromkeys(("steps", "epochs", "batch", "save_every", "log_every", "num_nodes"), 1)
        for name, low in (least | dict.fromkeys(("workers", "warmup", "weight_decay"), 0)).items():
            value = getattr(self, name)
            if value is not None and not low <= value < math.inf:
                raise InputError(f"{name} must be at least {low}, not {value}")
        if self.steps is not None and self.epochs is not None:
            raise InputError(f"give steps ({self.steps}) or epochs ({self.epochs}), not both")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise InputError(f"lr must be a positive number, not {self.lr}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must lie in 0 to {2**32 - 1}, not {self.seed}")
        if self.precision not in get_args(Precision):
            raise UnknownNameError("precision", self.precision, get_args(Precision))
        if self.log not in LOGS:
            raise UnknownNameError("log", self.log, LOGS)
        if self.strategy not in STRATEGIES:
            raise UnknownNameError("strategy", self.strategy, STRATEGIES)
