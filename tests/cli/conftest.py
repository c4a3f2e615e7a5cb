"""The program, run in this process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from edgessl.cli.main import app
from edgessl.sources.livebase import LiveFrame


@dataclass(frozen=True)
class Done:
    """What a command gave back."""

    code: int
    out: str
    talk: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Edgessl = Callable[..., Done]


@pytest.fixture
def edgessl(monkeypatch: pytest.MonkeyPatch) -> Edgessl:
    """Call with the words of a command line."""
    monkeypatch.delenv("EDGESSL_DEBUG", raising=False)

    def run(*words: object) -> Done:
        done = CliRunner().invoke(app, [str(word) for word in words], prog_name="edgessl")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


class Camera:
    """Gives frames until it is asked for more than it has; then a signal comes."""

    def __init__(self, spec: Any, count: int, then: int) -> None:
        self.name, self.spec = "camera:0", spec
        self._left, self._then, self.ended = count, then, False

    def read(self, timeout_s: float) -> LiveFrame | None:
        if not self._left:
            os.kill(os.getpid(), self._then)
            return None
        self._left -= 1
        return LiveFrame(f"camera:0#{self._left:06d}", 1.7e9, 0.01, np.full(self.spec.shape, self._left, np.uint8))

    def counts(self) -> dict[str, int]:
        return {"given": 3, "dropped": 4, "stale": 1, "damaged": 0, "reconnects": 2}

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *error: object) -> None:
        self.ended = True


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(data: str, *, spec: Any, tell: Any) -> Camera:
        tell({"event": "disconnected", "source": data, "retry_s": 0.5})
        return Camera(spec, 3, signal.SIGTERM)

    monkeypatch.setattr("edgessl.sources.open_live", opened)
