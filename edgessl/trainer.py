"""The loop that `pretrain` and `distill` share: Lightning's Trainer around a recipe, made to resume to the bit.

Whatever is random in a step is a function of (seed, step), on one device: which samples it takes, their views, and the global
generator that dropout draws from. The state is kept at the end of every `save_every` steps, where Lightning has an
epoch's end; a run that goes on from it takes the same steps as one that never stopped.

On several devices each process takes its part of every batch and draws its own views and dropout, from (seed, step, rank):
the same views give the same losses on one device and on two, the same seed does not.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

import edgessl
from edgessl.blocks.gather import norms_across, united
from edgessl.checkpoint import write_checkpoint
from edgessl.collapse import CollapseGuard
from edgessl.data.frames import FrameBatches, as_it_is
from edgessl.data.schedule import StepSchedule
from edgessl.errors import CollapseError, InputError, Interrupted
from edgessl.files import atomic_folder, refuse_existing
from edgessl.loop import Plan, Progress, SafeState, StateKeeper, TrainingModule, quiet
from edgessl.recipes import Recipe
from edgessl.run import Precision, Run
from edgessl.sources import Source
from edgessl.trainstate import begin, newest, step_of, training_folder
from edgessl.vision import vision_module

vision_module("torchvision")  # lightning imports it through torchmetrics
vision_module("lightning.pytorch")

import lightning.pytorch as lightning  # noqa: E402
from lightning.fabric.plugins.environments.lightning import LightningEnvironment  # noqa: E402
from lightning.fabric.utilities.exceptions import MisconfigurationException  # noqa: E402
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger  # noqa: E402

__all__ = ["Precision", "Run", "seeded", "train"]


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
        CollapseError: The encoder maps every sample to about the same vector.
        Interrupted: The user stopped it.
    """
    refuse_existing(output, overwrite=run.overwrite)
    started = time.monotonic()
    frames = FrameBatches(source)
    plan = _plan(run, recipe, len(frames))
    data = {"name": source.name, "digest": source.digest(), "samples": len(frames)}
    folder = training_folder(output)
    guard = CollapseGuard(plan, log_every=run.log_every, stop=run.guard)
    trainer = _trainer(run, plan, folder, guard)
    schedule = StepSchedule(
        len(frames),
        batch=plan.batch,
        seed=plan.seed,
        chunk=plan.save_every,
        rank=trainer.global_rank,
        world=trainer.world_size,
    )
    workers = 0 if frames.in_memory else run.workers if run.workers is not None else _usual_workers()
    loader = DataLoader(
        frames,
        batch_size=None,  # an item is a batch already
        sampler=schedule,
        collate_fn=as_it_is,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=trainer.strategy.root_device.type == "cuda",  # then the copy to the device runs beside the step
    )
    if trainer.world_size > 1:
        norms_across(recipe, trainer.strategy.root_device.type)
    # Convolutions take about half the time on a CPU.
    recipe.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch forgot to annotate it
    module = TrainingModule(recipe, plan, log_every=run.log_every)
    module.skipped.update(frames.skipped)
    # From here on there is a folder; settings that cannot be used were refused before.
    settings = {**facts, **asdict(plan), "data": data["digest"]}
    first_process = trainer.is_global_zero
    if first_process:
        begin(folder, settings, resume=run.resume, overwrite=run.overwrite)
    _meet(trainer)
    state = newest(folder)
    trainer.loggers = [_logger(run, folder, step_of(state))]
    schedule.set_epoch(step_of(state) // plan.save_every)
    try:
        _fit(trainer, module, loader, state, folder)
    except CollapseError as error:
        kept = newest(folder)
        what = "The log is" if kept is None else f"The state of step {step_of(kept)} and the log are"
        raise CollapseError(
            f"{error}. {what} in {folder}; to begin again, type --overwrite with other settings, or to go on regardless "
            "the same command with --resume --no-guard"
        ) from error
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
        "data": data | _skipped_facts(united(module.skipped)),
        "loss": module.last_terms,
        "figures": asdict(guard.last) if guard.last else {},
        "seconds": round(time.monotonic() - started, 1),
        "versions": _versions(),
    }
    if first_process:
        with atomic_folder(output, overwrite=run.overwrite) as temporary:
            write_checkpoint(temporary, recipe.encoder, facts, recipe.ranges())
            shutil.copytree(folder / "log", temporary / "log")
        shutil.rmtree(folder)
    return facts


def _usual_workers() -> int:
    return max(1, min(8, len(os.sched_getaffinity(0)) - 1)) if hasattr(os, "sched_getaffinity") else 1


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


def _trainer(run: Run, plan: Plan, folder: Path, guard: CollapseGuard) -> lightning.Trainer:
    callbacks: list[Any] = [guard, StateKeeper(folder)]
    if run.progress:
        callbacks.append(Progress(plan.steps, every=run.log_every))
    build = partial(
        lightning.Trainer,
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.num_nodes,
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
    with quiet():
        try:
            trainer = build(strategy=run.strategy)
            if run.strategy == "auto" and trainer.world_size > 1:
                trainer = build(strategy="ddp_find_unused_parameters_true")
        except (ImportError, ValueError, RuntimeError, MisconfigurationException) as error:
            raise InputError(
                f"accelerator {run.accelerator!r} with devices {run.devices!r} cannot be used here: {error}"
            ) from error
    if run.num_nodes > 1 and _starts_processes(trainer):
        raise InputError(
            f"{run.num_nodes} machines cannot start each other's processes; start the same command on each with "
            f"torchrun --nnodes {run.num_nodes} --nproc-per-node DEVICES -m edgessl.cli.main ..., or with SLURM's srun"
        )
    return trainer


def _meet(trainer: lightning.Trainer) -> None:
    """Wait until the first process has opened the folder, where torchrun or SLURM started all at once.

    Processes that Lightning starts are started later, by the first one.
    """
    if trainer.world_size > 1 and not _starts_processes(trainer):
        with quiet():
            trainer.strategy.setup_environment()  # again in `fit`, where it finds its work done
        trainer.strategy.barrier()


def _starts_processes(trainer: lightning.Trainer) -> bool:
    """Whether Lightning starts the processes, and not torchrun or SLURM."""
    return isinstance(getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment)


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
