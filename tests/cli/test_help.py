"""Every command explains itself, with an example that parses."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import typer

from edgessl.cli.main import COMMANDS, app


def parse(words: list[str]) -> dict[str, Any]:
    """The parameters of a command line, without running it."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("edgessl", list(words))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    return dict(command.make_context(name, rest, parent=context).params)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_the_example(edgessl: Any, name: str) -> None:
    done = edgessl(name, "--help")
    assert done.code == 0
    assert done.out.rstrip().splitlines()[-1].strip() == COMMANDS[name][1]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_parses(name: str) -> None:
    program, command, *rest = shlex.split(COMMANDS[name][1])
    assert (program, command) == ("edgessl", name)
    assert "as_json" in parse([command, *rest])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name: str) -> None:
    group: Any = typer.main.get_command(app)
    parameters = group.commands[name].params
    assert [parameter.name for parameter in parameters if not getattr(parameter, "help", None)] == []


@pytest.mark.parametrize("name", ["pretrain", "distill", "export", "embed", "adapt"])
def test_every_command_that_writes_can_overwrite(name: str) -> None:
    assert "overwrite" in parse(shlex.split(COMMANDS[name][1])[1:])


def test_the_list_of_commands_shows_whole_sentences(edgessl: Any) -> None:
    lines = edgessl("--help").out.partition("Commands:")[2].strip().splitlines()
    assert len(lines) == len(COMMANDS)
    assert [line for line in lines if not line.endswith(".") or line.endswith("...")] == []


def test_the_version_is_printed(edgessl: Any) -> None:
    assert edgessl("--version").out.startswith("edgessl 0.")
