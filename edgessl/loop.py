"""What Lightning's Trainer is given: the module that takes a step, the states it keeps, and a progress bar."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor

from edgessl.blocks.gather import averaged
from edgessl.collapse import log
from edgessl.data.frames import FrameBatch
from edgessl.errors import InputError
from edgessl.recipes import Recipe
from edgessl.trainstate import read_state, state_path, write_state
from edgessl.vision import vision_module

vision_module("torchvision")  # lightning imports it through torchmetrics
vision_module("lightning.pytorch")

from lightning.fabric.plugins.io import CheckpointIO  # noqa: E402
from lightning.pytorch import Callback, LightningModule, Trainer  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What decides the result of a training beside the recipe and the data.

    Attributes:
        steps: Optimizer steps.
        batch: Samples per step, over all devices.
        lr: Peak learning rate of AdamW.
        weight_decay: Of weights with two axes or more.
        warmup: Steps of the linear warm-up.
        seed: Decides everything random.
        save_every: Steps between two states on disk.
        precision: Lightning's name of it.
    """

    steps: int
    batch: int
    lr: float
    weight_decay: float
    warmup: int
    seed: int
    save_every: int
    precision: str

    def lr_factor(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to zero."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))))


class TrainingModule(LightningModule):
    """One step of a recipe.

    Attributes:
        skipped: Samples that could not be read, with the reason.
        last_terms: Loss terms of the last logged step.
    """

    def __init__(self, recipe: Recipe, plan: Plan, *, log_every: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.skipped: dict[str, str] = {}
        self.last_terms: dict[str, float] = {}
        self._plan, self._log_every = plan, log_every

    def configure_optimizers(self) -> Any:
        """AdamW with a warm-up and a cosine; biases and norms do not decay."""
        factors = self.recipe.lr_factors()
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, weight in self.recipe.named_parameters():
            if weight.requires_grad:
                decay = self._plan.weight_decay if weight.ndim > 1 else 0.0
                groups.setdefault((factors.get(name.split(".")[0], 1.0), decay), []).append(weight)
        listed = [
            {"params": weights, "lr": self._plan.lr * factor, "weight_decay": decay}
            for (factor, decay), weights in groups.items()
        ]
        optimizer = torch.optim.AdamW(listed, lr=self._plan.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._plan.lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: FrameBatch, batch_idx: int) -> Tensor:
        """The loss of the batch of step `global_step`; of this process's part, where there are several."""
        frames, skipped, places = batch
        self.skipped.update(skipped)
        step = self.global_step
        seed = _seed(self._plan.seed, step, self.global_rank)
        torch.manual_seed(seed)  # dropout and drop path draw from the global generator
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            images = self.recipe.encoder.prepare(frames)
            views = self.recipe.views_at(places, images, torch.Generator(images.device).manual_seed(seed))
        terms: dict[str, Tensor] = self.recipe(views)
        loss = torch.stack(list(terms.values())).sum()
        # Of the whole batch: so every process stops where one has to, and none waits for it for ever.
        whole = averaged(torch.stack([loss, *terms.values()]).detach())
        if not bool(torch.isfinite(whole[0])):
            self._refuse(step, dict(zip(terms, whole[1:], strict=True)))
        if step % self._log_every == 0 or step + 1 == self._plan.steps:
            self.last_terms = dict(zip(("loss", *terms), whole.tolist(), strict=True))
            log(self.trainer, self.last_terms | {"lr": self._plan.lr * self._plan.lr_factor(step)}, step)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: FrameBatch, batch_idx: int) -> None:
        """Let the recipe move its teacher; stop after the last step."""
        self.recipe.after_step(self.global_step - 1, self._plan.steps)
        if self.global_step >= self._plan.steps:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was skipped and logged so far: it belongs to the facts of the whole run."""
        checkpoint["skipped"], checkpoint["last_terms"] = dict(self.skipped), dict(self.last_terms)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The opposite."""
        self.skipped.update(checkpoint["skipped"])
        self.last_terms = dict(checkpoint["last_terms"])

    def _refuse(self, step: int, terms: dict[str, Tensor]) -> None:
        bad = [f"{name!r} is {term.item()}" for name, term in terms.items() if not bool(torch.isfinite(term))]
        raise InputError(
            f"at step {step} the loss is not finite: {', '.join(bad) or 'the sum of finite terms overflows'}. "
            f"Nothing was written; type a lower --lr than {self._plan.lr:g}"
            + (f", or --precision 32-true instead of {self._plan.precision}" if "16" in self._plan.precision else "")
        )


class SafeState(CheckpointIO):
    """Lightning's checkpoints as safetensors and JSON."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a state."""
        write_state(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a state."""
        return read_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """States remove the ones before them."""


class StateKeeper(Callback):
    """Keeps the state at the end of each chunk of steps, which is Lightning's epoch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it."""
        trainer.save_checkpoint(state_path(self._folder, trainer.global_step))


class Progress(Callback):
    """One bar over all steps, on stderr."""

    def __init__(self, steps: int, *, every: int) -> None:
        self._steps, self._every = steps, every
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show it."""
        if trainer.is_global_zero:
            self._task = self._bar.add_task("training", total=self._steps, completed=trainer.global_step, loss="...")
            self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Move it."""
        last = trainer.global_step >= self._steps
        if trainer.is_global_zero and (last or trainer.global_step % self._every == 0):
            loss = getattr(pl_module, "last_terms", {}).get("loss", math.nan)
            self._bar.update(self._task, completed=trainer.global_step, loss=f"{loss:.3f}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave it on the screen."""
        self._bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave it on the screen."""
        self._bar.stop()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's notes on hardware, tips and workers; errors still come."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
