"""Stand-ins for the parts around a service, and a process to try a node in."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgessl.errors import EngineError
from edgessl.signals import image_spec


class Clock:
    """Time that moves when it is told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class HandEncoder:
    """Gives `(count, 1, 0)` and fails when it is told to."""

    input, dim, space_id = image_spec(4, 6), 3, "hand-3"

    def __init__(self) -> None:
        self.calls = 0
        self.fails = self.closed = False
        self.value = 1.0

    def embed(self, frames: np.ndarray) -> np.ndarray:
        if self.fails:
            raise EngineError("the engine is gone")
        self.calls += 1
        return np.full((len(frames), 3), self.value, np.float32)

    def info(self) -> dict[str, Any]:
        return {"engine": "hand", "precision": "fp32", "threads": 1}

    def close(self) -> None:
        self.closed = True


class HandPupil:
    """An adapting encoder that somebody else moves."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.version = 5
        self.fails = False
        self.closed = 0
        self.learner = {"frames": 64, "score": 3.0, "threshold": 0.5}
        self.state = "learning"

    def embed_with_version(self, frames: np.ndarray) -> tuple[np.ndarray, int]:
        if self.fails:
            raise EngineError("a graph is gone")
        return np.full((len(frames), 3), 2.0, np.float32), self.version

    def info(self) -> dict[str, Any]:
        return {"state": self.state, "learner": self.learner, "learned": 7}

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A node takes edgessl's logger for itself, which other tests of this process listen to."""
    logger = logging.getLogger("edgessl")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hand_encoder() -> HandEncoder:
    return HandEncoder()


@pytest.fixture
def pupil() -> HandPupil:
    return HandPupil()


@pytest.fixture
def picture() -> np.ndarray:
    return np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.fixture
def tiny_frames(scenes, tmp_path) -> Path:
    """Nine frames that the tiny bundle takes."""
    file = tmp_path / "frames.npz"
    np.savez(file, x=scenes(9, seed=4))
    return file


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """Of a node's process: the programs of this interpreter, a home of its own, no parameter of the tester's."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("EDGESSL_", "NOTIFY_", "WATCHDOG"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return kept | {"PATH": path, "HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def started(environment) -> Callable[..., subprocess.Popen[str]]:
    """Start `edgessl` with these words; what still runs at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def start(*words: object, stdin: Any = subprocess.DEVNULL, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edgessl.cli.main", *(str(word) for word in words)]
        pipe = subprocess.PIPE
        running.append(
            subprocess.Popen(command, env=environment | more, stdin=stdin, stdout=pipe, stderr=pipe, text=True)
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def heard() -> Callable[[subprocess.Popen[str], str], str]:
    """Read a process's log up to the line that says a word; fails when the log ends before."""

    def hear(process: subprocess.Popen[str], word: str) -> str:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if word in line:
                return line
        raise AssertionError(f"{word!r} was never said: {''.join(said)}")

    return hear
