"""The program, run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from edgessl.cli.main import app


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
