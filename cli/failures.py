"""From an exception to what the user reads and the exit code; the one place that decides it.

Exit codes: 0 done, 1 the user's input is at fault, 2 wrong usage, 3 a gate refused, 4 integrity, 130 Ctrl-C.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec

import typer

from edgessl.cli.output import talk
from edgessl.errors import EdgeSSLError, Interrupted, MissingExtraError

DEBUG = "EDGESSL_DEBUG"
INTERRUPTED = 130

#: command -> how to go on after Ctrl-C; any other writes nothing until it is done
RESUME = {
    "pretrain": "type the same command with --resume to go on",
    "distill": "type the same command with --resume to go on",
    "embed": "what is done of it is kept; type the same command to go on",
    "build": "plans that are done are kept; type the same command to go on",
    "adapt": "the state is whole; type the same command to go on from its last snapshot",
}

#: package that is imported late -> extra that brings it
EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "timm", "lightly", "lightning", "tensorboard"), "train"),
    **dict.fromkeys(("sklearn", "skimage", "scipy", "matplotlib"), "train"),
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    "openvino": "openvino",
    "transformers": "hf",
    **dict.fromkeys(("model_signing", "OpenSSL", "cryptography"), "sign"),
}

_Arguments = ParamSpec("_Arguments")


def failure(error: BaseException, command: str) -> tuple[str, int]:
    """What to say about `error`, and the exit code."""
    if isinstance(error, Interrupted):
        return str(error), error.exit_code
    if isinstance(error, EdgeSSLError):
        return f"error: {error}", error.exit_code
    if isinstance(error, KeyboardInterrupt):
        how = RESUME.get(command, "nothing was written; type the same command to start again")
        return f"stopped; {how}", INTERRUPTED
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in EXTRAS:
            return f"error: {MissingExtraError(package, EXTRAS[package])}", 1
    if isinstance(error, OSError):
        return f"error: {error}", 1
    return f"error: {type(error).__name__}: {error} (unexpected; {DEBUG}=1 shows where)", 1


def guarded(command: str, function: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """`function`, with its exceptions told in one line; `EDGESSL_DEBUG=1` lets them through with their traceback."""

    @functools.wraps(function)
    def run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise  # typer's own: leaving early, and a reader that went away
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get(DEBUG) == "1":
                raise
            message, code = failure(error, command)
            talk(message)
            raise typer.Exit(code) from error

    return run
