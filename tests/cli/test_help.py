"""Every command explains itself, with an example that parses."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import typer

from edgessl.cli.main import COMMANDS, GROUPS, app


def parse(words: list[str]) -> dict[str, Any]:
    """The parameters of a command line, without running it."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("edgessl", list(words))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    if hasattr(command, "commands"):
        context = command.make_context(name, rest, parent=context)
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    return dict(command.make_context(name, rest, parent=context).params)


def command_of(name: str) -> Any:
    """The command that stands in the table under `name`."""
    found: Any = typer.main.get_command(app)
    for word in name.split():
        found = found.commands[word]
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_the_example(edgessl: Any, name: str) -> None:
    done = edgessl(*name.split(), "--help")
    assert done.code == 0
    assert done.out.rstrip().splitlines()[-1].strip() == COMMANDS[name][1]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_parses(name: str) -> None:
    words = shlex.split(COMMANDS[name][1])
    assert words[: 1 + len(name.split())] == ["edgessl", *name.split()]
    assert "as_json" in parse(words[1:])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name: str) -> None:
    parameters = command_of(name).params
    assert [parameter.name for parameter in parameters if not getattr(parameter, "help", None)] == []


@pytest.mark.parametrize("name", ["pretrain", "distill", "export", "embed", "adapt", "state plot"])
def test_every_command_that_writes_can_overwrite(name: str) -> None:
    assert "overwrite" in parse(shlex.split(COMMANDS[name][1])[1:])


def test_the_list_of_commands_shows_whole_sentences(edgessl: Any) -> None:
    lines = edgessl("--help").out.partition("Commands:")[2].strip().splitlines()
    assert [line.split()[0] for line in lines] == list(dict.fromkeys(name.split()[0] for name in COMMANDS))
    for group in GROUPS:
        lines += edgessl(group, "--help").out.partition("Commands:")[2].strip().splitlines()
    assert len(lines) == len(COMMANDS) + len(GROUPS)
    assert [line for line in lines if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_alone_shows_its_help(edgessl: Any, group: str) -> None:
    done = edgessl(group)
    assert done.code == 2
    assert GROUPS[group] in done.out + done.talk


def test_the_version_is_printed(edgessl: Any) -> None:
    assert edgessl("--version").out.startswith("edgessl 0.")
