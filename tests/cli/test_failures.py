"""One line to stderr, and the exit code that the kind of failure has."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from edgessl import errors
from edgessl.cli.failures import EXTRAS, failure, guarded

FAILURES = [
    (errors.EdgeSSLError("x"), 1),
    (errors.InputError("x"), 1),
    (errors.UnknownNameError("recipe", "x", ["y"]), 1),
    (errors.OutputExistsError(Path("x")), 1),
    (errors.MissingExtraError("torch", "train"), 1),
    (errors.EngineError("x"), 1),
    (errors.GateError("x"), 3),
    (errors.CollapseError("x"), 3),
    (errors.IntegrityError("x"), 4),
    (errors.BundleError("x"), 4),
    (errors.CheckpointError("x"), 4),
    (errors.StateError("x"), 4),
    (errors.Interrupted("x"), 130),
    (KeyboardInterrupt(), 130),
    (OSError(28, "No space left on device"), 1),
    (ZeroDivisionError("x"), 1),
]


@pytest.mark.parametrize(("error", "code"), FAILURES, ids=lambda value: type(value).__name__)
def test_each_kind_of_failure_has_its_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGESSL_DEBUG", raising=False)

    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as stopped:
        guarded("embed", command)()
    assert stopped.value.exit_code == code
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.strip().splitlines()) == 1
    assert "Traceback" not in told.err


def test_every_error_of_edgessl_is_in_that_list() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert kinds <= {type(error) for error, _ in FAILURES}
    assert len(kinds) > 10


def test_a_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESSL_DEBUG", "1")

    def command() -> None:
        raise errors.InputError("x")

    with pytest.raises(errors.InputError):
        guarded("embed", command)()


@pytest.mark.parametrize("command", ["embed", "adapt", "pretrain"])
def test_ctrl_c_says_how_to_go_on(command: str) -> None:
    message, _ = failure(KeyboardInterrupt(), command)
    assert "type the same command" in message
    assert ("--resume" in message) == (command == "pretrain")


def test_a_training_that_was_stopped_is_no_error() -> None:
    assert failure(errors.Interrupted("stopped at step 3"), "pretrain") == ("stopped at step 3", 130)


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_package_gives_the_pip_line(package: str) -> None:
    message, code = failure(ModuleNotFoundError("no", name=f"{package}.part"), "pretrain")
    assert f"pip install 'edgessl[{EXTRAS[package]}]'" in message
    assert code == 1


def test_another_missing_module_is_unexpected() -> None:
    message, _ = failure(ModuleNotFoundError("no module 'nothing'", name="nothing"), "embed")
    assert "EDGESSL_DEBUG=1" in message
