"""Faults that are done to a learner in the middle of its life: to its frames, to what is inside it, and to its disk.

Each fault lasts for one stretch of the stream. Some change the frames of the stretch, some hold something inside the
learner while it passes (`within`), some befall the folder while no learner holds it (`disk`).
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from corruptions import Frames
from numpy.typing import NDArray
from streams import class_sorted

import edgessl
from edgessl.runtimes.adapt.budget import Budget, BudgetConfig
from edgessl.runtimes.adapt.config import LearnerConfig
from edgessl.runtimes.adapt.learner import Learner
from edgessl.runtimes.split import Observed

Labels = NDArray[np.int64]
#: Everything is looked at: a fault meets the learner at its most attentive, and does the most harm.
CONFIG = LearnerConfig(observe_every=1)
THREADS = 1
HOUR_S = 3600.0
_POISONED, _SALTED, _BROKEN = 0.2, 0.2, 8  # shares; one frame in so many


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way in which the world, the settings or the disk can be wrong.

    Attributes:
        issue: What it is an instance of; several instances may stand for one fault.
        levels: At which it is tried.
        show: Which frames the stretch shows instead, of its frames and labels; `None`: its own.
        within: Held while the stretch passes.
        stays: `within` is held to the end of the stream.
        disk: Befalls the state's folder before the stretch, while no learner holds it, and returns the snapshot that
            must be loaded next, given the bundle, the level and the newest snapshot.
        batch: Frames that come together in the stretch.
    """

    issue: str
    levels: tuple[str, ...] = ("ports", "tail")
    show: Callable[[Frames, Labels], Frames] | None = None
    within: Callable[[Learner], Any] | None = None
    stays: bool = False
    disk: Callable[[Path, Path, str, int], int] | None = None
    batch: int = 32


def blank(value: int) -> Callable[[Frames, Labels], Frames]:
    """The same empty frame all the time."""
    return lambda frames, labels: np.full_like(frames, value)


def still(frames: Frames, labels: Labels) -> Frames:
    """The first frame all the time: a camera that hangs."""
    return np.repeat(frames[:1], len(frames), 0)


def salted(frames: Frames, labels: Labels) -> Frames:
    """A fifth of the pixels black or white."""
    rng = np.random.default_rng(0)
    where, salt = rng.random(frames.shape[:3]) < _SALTED, rng.integers(0, 2, frames.shape[:3]) * 255
    return np.where(where[..., None], salt[..., None], frames).astype(np.uint8)


def by_class(frames: Frames, labels: Labels) -> Frames:
    """The same frames, one class after the other."""
    return frames[class_sorted(labels, seed=0)]


@contextmanager
def learning_rate(learner: Learner, times: float) -> Iterator[None]:
    """Every training step goes so many times too far."""
    knobs = training_of(learner)._knobs
    before = knobs["lr"]
    knobs["lr"] = before * times
    try:
        yield
    finally:
        knobs["lr"] = before


@contextmanager
def trunk_breaks(learner: Learner) -> Iterator[None]:
    """The engine gives NaN for one frame in eight."""
    trunks = learner._learned._trunks
    run = trunks.run

    def broken(front: Any, frames: NDArray[Any], ports: Any) -> Observed:
        seen = run(front, frames, ports)
        row = np.arange(len(frames)) % _BROKEN == _BROKEN - 1
        latents, means, squares = (
            np.where(row.reshape(-1, *[1] * (each.ndim - 1)), np.float32(np.nan), each)
            for each in (seen.latents, seen.means[0], seen.squares[0])
        )
        return replace(seen, latents=latents, means=(means, *seen.means[1:]), squares=(squares, *seen.squares[1:]))

    with mock.patch.object(trunks, "run", broken):
        yield


@contextmanager
def step_breaks(learner: Learner) -> Iterator[None]:
    """The first training step gives NaN for all weights."""
    engine = training_of(learner)._step
    run, done = engine.run, []

    def broken(feeds: dict[str, Any]) -> dict[str, Any]:
        out = run(feeds)
        if not done:
            done.append(True)
            out = {name: value * np.float32(np.nan) for name, value in out.items()}
        return out

    with mock.patch.object(engine, "run", broken):
        yield


@contextmanager
def poisoned(learner: Learner) -> Iterator[None]:
    """A fifth of the replay memory is noise from now on, latents and references."""
    memory, rng = learner._learned._replay._memory, np.random.default_rng(0)  # type: ignore[union-attr]
    rows = rng.choice(len(memory), round(_POISONED * len(memory)), replace=False)
    memory._latents[rows] = rng.integers(-127, 128, memory._latents[rows].shape, np.int8)
    noise = rng.normal(size=memory.references[rows].shape)
    memory.references[rows] = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    yield


@contextmanager
def clock_jumps(learner: Learner) -> Iterator[None]:
    """All clocks, the budget's too, jump an hour ahead and two hours back, in turns, every hundredth time they are read."""
    real, reads = time.monotonic, [0]

    def jumping() -> float:
        reads[0] += 1
        return real() + (HOUR_S if reads[0] // 100 % 2 else -HOUR_S)

    budget = Budget(BudgetConfig(ms_per_frame=None), clock=jumping)
    replay = learner._learned._replay
    asked = mock.patch.object(replay, "_may_step", budget.take_step) if replay else mock.patch.object(time, "time")
    with mock.patch.object(time, "monotonic", jumping), mock.patch.object(time, "time", jumping), asked:
        yield


def power_cut(bundle: Path, folder: Path, level: str, newest: int) -> int:
    """A process that learns is killed when the snapshot that it writes is half on disk."""
    process = get_context("spawn").Process(target=_killed_writing, args=(bundle, folder, level))
    process.start()
    process.join()
    halves = list(folder.glob(".snapshot-*.partial"))
    if process.exitcode != -signal.SIGKILL or len(halves) != 1 or not halves[0].stat().st_size:
        raise RuntimeError(f"not killed in mid-write: exit code {process.exitcode}, {halves}")
    return newest


def torn(bundle: Path, folder: Path, level: str, newest: int) -> int:
    """Half of the newest snapshot is missing."""
    file = _snapshot(folder, newest)
    os.truncate(file, file.stat().st_size // 2)
    return newest - 1


def flipped(bundle: Path, folder: Path, level: str, newest: int) -> int:
    """One bit of the newest snapshot is another."""
    file = _snapshot(folder, newest)
    content = bytearray(file.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    file.write_bytes(content)
    return newest - 1


FAULTS = {
    "learning rate x100": Fault(
        issue="learning rate x100", levels=("tail",), within=lambda learner: learning_rate(learner, 100), stays=True
    ),
    "learning rate x10": Fault(
        issue="learning rate x10", levels=("tail",), within=lambda learner: learning_rate(learner, 10), stays=True
    ),
    "constant frame": Fault(issue="constant frame", show=still),
    "black": Fault(issue="black, white", show=blank(0)),
    "white": Fault(issue="black, white", show=blank(255)),
    "NaN from the engine": Fault(issue="NaN", within=trunk_breaks),
    "NaN in a training step": Fault(issue="NaN", levels=("tail",), within=step_breaks),
    "batch 1": Fault(issue="batch 1", batch=1),
    "class-sorted": Fault(issue="class-sorted", show=by_class),
    "salt noise": Fault(issue="salt noise", show=salted),
    "20 % poisoned memory": Fault(issue="20 % poisoned memory", levels=("tail",), within=poisoned),
    "clock jump": Fault(issue="clock jump", within=clock_jumps),
    "power cut in mid-write": Fault(issue="power cut in mid-write", disk=power_cut),
    "snapshot torn": Fault(issue="corrupted snapshot", disk=torn),
    "snapshot with a flipped bit": Fault(issue="corrupted snapshot", disk=flipped),
}


def training_of(learner: Learner) -> Any:
    """The tail's training, of a learner at level `tail`."""
    return learner._learned._replay._training  # type: ignore[union-attr]


def fingerprint(learner: Learner) -> str:
    """SHA-256 of everything learned: every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(learner._learned.state().part("learned").tensors.items()):
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _snapshot(folder: Path, number: int) -> Path:
    return folder / f"snapshot-{number:08d}.safetensors"


def _killed_writing(bundle: Path, folder: Path, level: str) -> None:
    def cut(handle: int) -> None:
        os.ftruncate(handle, os.fstat(handle).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    with edgessl.open(bundle, precision="int8", threads=THREADS) as encoder:
        learner = encoder.learner(folder, level=level, config=CONFIG)
        with mock.patch.object(os, "fsync", cut):
            learner.snapshot()
