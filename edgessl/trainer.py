"""The loop that `pretrain` and `distill` share: Lightning's Trainer around a recipe, made to resume to the bit.

Whatever is random in a step is a function of (seed, step): which samples it takes, their views, and the global
generator that dropout draws from. The state is kept at the end of every `save_every` steps, where Lightning has an
epoch's end; a run that goes on from it takes the same steps as one that never stopped.
"""

from __future__ import annotations

import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.utils.data import DataLoader

import edgessl
from edgessl.checkpoint import write_checkpoint
from edgessl.data.frames import FrameBatches, as_it_is
from edgessl.data.schedule import StepSchedule
from edgessl.errors import InputError, Interrupted, UnknownNameError
from edgessl.files import atomic_folder, refuse_existing
from edgessl.loop import Plan, Progress, SafeState, StateKeeper, TrainingModule, quiet
from edgessl.recipes import Recipe
from edgessl.sources import Source
from edgessl.trainstate import begin, newest, step_of, training_folder
from edgessl.vision import vision_module

vision_module("torchvision")  # lightning imports it through torchmetrics
vision_module("lightning.pytorch")

import lightning.pytorch as lightning  # noqa: E402
from lightning.fabric.utilities.exceptions import MisconfigurationException  # noqa: E402
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger  # noqa: E402

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
LOGS = ("csv", "tensorboard")


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
        accelerator, devices, precision: Given to Lightning's Trainer.
        workers: Processes that read samples when they do not fit in memory.
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
    precision: Precision = "32-true"
    workers: int = 1
    resume: bool = False
    overwrite: bool = False
    log: str = "csv"
    log_every: int = 10
    progress: bool = True

    def __post_init__(self) -> None:
        least = dict.fromkeys(("steps", "epochs", "batch", "save_every", "log_every"), 1)
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


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initial weights come from torch's global generator: seed it for the block, and give it back as it was."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def train(recipe: Recipe, source: Source, *, output: Path, run: Run, facts: dict[str, Any]) -> dict[str, Any]:
    """Train `recipe` on `source` and write its encoder as a checkpoint.

    Args:
        recipe: Freshly built, from `run.seed`.
        source: Samples of `recipe.encoder.input`.
        output: The checkpoint folder to make.
        run: How to train.
        facts: What decides the result beside `run`, as plain values: compared on resume, kept in the checkpoint.

    Returns:
        The facts of the checkpoint.

    Raises:
        OutputExistsError: `output` exists and `run.overwrite` is false.
        InputError: Too few samples, settings that differ from the interrupted run's, or a loss that is not finite.
        Interrupted: The user stopped it.
    """
    refuse_existing(output, overwrite=run.overwrite)
    started = time.monotonic()
    frames = FrameBatches(source)
    plan = _plan(run, recipe, len(frames))
    data = {"name": source.name, "digest": source.digest(), "samples": len(frames)}
    folder = training_folder(output)
    trainer = _trainer(run, plan, folder)
    schedule = StepSchedule(
        len(frames),
        batch=plan.batch,
        seed=plan.seed,
        chunk=plan.save_every,
        rank=trainer.global_rank,
        world=trainer.world_size,
    )
    loader = DataLoader(
        frames,
        batch_size=None,  # an item is a batch already
        sampler=schedule,
        collate_fn=as_it_is,
        num_workers=0 if frames.in_memory else run.workers,
        persistent_workers=not frames.in_memory and run.workers > 0,
    )
    # Convolutions take about half the time on a CPU.
    recipe.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch forgot to annotate it
    module = TrainingModule(recipe, plan, log_every=run.log_every)
    module.skipped.update(frames.skipped)
    # From here on there is a folder; settings that cannot be used were refused before.
    settings = {**facts, **asdict(plan), "data": data["digest"]}
    first_process = trainer.is_global_zero
    state = begin(folder, settings, resume=run.resume, overwrite=run.overwrite) if first_process else newest(folder)
    trainer.loggers = [_logger(run, folder, step_of(state))]
    schedule.set_epoch(step_of(state) // plan.save_every)
    try:
        _fit(trainer, module, loader, state, folder)
    except InputError as error:
        kept = newest(folder)
        if kept is not None:
            raise InputError(
                f"{error}. The state of step {step_of(kept)} is in {folder}; add --overwrite to begin again"
            ) from error
        if first_process:  # nothing to resume: the corrected command begins anew
            shutil.rmtree(folder)
        raise
    facts = {
        **facts,
        **asdict(plan),
        "passes": round(plan.steps / schedule.steps_per_pass, 2),
        "data": data | _skipped_facts(module.skipped),
        "loss": module.last_terms,
        "seconds": round(time.monotonic() - started, 1),
        "versions": _versions(),
    }
    if first_process:
        with atomic_folder(output, overwrite=run.overwrite) as temporary:
            write_checkpoint(temporary, recipe.encoder, facts, recipe.ranges())
            shutil.copytree(folder / "log", temporary / "log")
        shutil.rmtree(folder)
    return facts


def _plan(run: Run, recipe: Recipe, count: int) -> Plan:
    defaults = recipe.defaults
    batch = run.batch if run.batch is not None else min(defaults.batch, count)
    steps = run.steps
    if steps is None:
        steps = max(1, count // batch) * (run.epochs or 50)
    return Plan(
        steps=steps,
        batch=batch,
        lr=defaults.lr if run.lr is None else run.lr,
        weight_decay=defaults.weight_decay if run.weight_decay is None else run.weight_decay,
        warmup=steps // 10 if run.warmup is None else min(run.warmup, steps),
        seed=run.seed,
        save_every=min(run.save_every, steps),
        precision=run.precision,
    )


def _trainer(run: Run, plan: Plan, folder: Path) -> lightning.Trainer:
    callbacks: list[Any] = [StateKeeper(folder)]
    if run.progress:
        callbacks.append(Progress(plan.steps, every=run.log_every))
    with quiet():
        try:
            return lightning.Trainer(
                accelerator=run.accelerator,
                devices=run.devices,
                precision=run.precision,
                # With max_steps Lightning resumes inside the epoch that had ended; the module stops at the last step.
                max_epochs=math.ceil(plan.steps / plan.save_every),
                callbacks=callbacks,
                plugins=[SafeState()],
                logger=False,
                log_every_n_steps=1,  # the module logs every `log_every` steps
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                default_root_dir=folder,
            )
        except (ImportError, ValueError, RuntimeError, MisconfigurationException) as error:
            raise InputError(
                f"accelerator {run.accelerator!r} with devices {run.devices!r} cannot be used here: {error}"
            ) from error


def _logger(run: Run, folder: Path, step: int) -> Any:
    # Lightning's CSV logger begins its file anew: each stretch of an interrupted run gets its own.
    kind = CSVLogger if run.log == "csv" else TensorBoardLogger
    return kind(folder, name="log", version=f"from-step-{step:08d}")


def _fit(
    trainer: lightning.Trainer, module: TrainingModule, loader: DataLoader[Any], state: Path | None, folder: Path
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        with quiet(), seeded(0):  # every step seeds it again; this gives the caller's generator back
            trainer.fit(module, train_dataloaders=loader, ckpt_path=None if state is None else str(state))
    except SystemExit as stop:  # what Lightning makes of Ctrl-C and of SIGTERM
        step = step_of(newest(folder))
        raise Interrupted(
            f"stopped at step {module.global_step}; the state of step {step} is in {folder}. "
            "Type the same command with --resume to go on from there"
        ) from stop
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)  # Lightning leaves Ctrl-C switched off


def _skipped_facts(skipped: dict[str, str]) -> dict[str, Any]:
    named = sorted(skipped)[:20]
    return {"skipped": len(skipped), "skipped_names": named, "skipped_reasons": [skipped[name] for name in named]}


def _versions() -> dict[str, str]:
    """Of what decides the numbers."""
    return {
        "edgessl": edgessl.__version__,
        "torch": str(torch.__version__),
        "lightning": version("lightning"),
        "numpy": np.__version__,
    }
