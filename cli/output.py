"""Results go to stdout, talk goes to stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import typer

if TYPE_CHECKING:
    from edgessl.runtimes.vectors import SourceVectors

_NAMED = 10  # samples that are named one by one


class Advance(Protocol):
    """Called with how much more is done."""

    def __call__(self, done: int) -> None:
        """Move the bar on."""
        ...


def talk(message: str) -> None:
    """One line to stderr."""
    typer.echo(message, err=True)


def talk_about(found: SourceVectors) -> None:
    """Say what of a source was left out."""
    talk_skipped([(skipped.name, skipped.reason) for skipped in found.skipped])
    talk_quarantined(found.quarantined)


def talk_skipped(skipped: Iterable[tuple[str, str]], *, count: int | None = None) -> None:
    """Name the samples that could not be read, with the reason; `count` where there are more than are given."""
    _name("skipped", [f"{name}: {reason}" for name, reason in skipped], count)


def talk_quarantined(names: Sequence[str]) -> None:
    """Name the samples that hold NaN or infinity."""
    _name("quarantined (NaN or infinity, their vectors are NaN)", names)


def _name(what: str, lines: Sequence[str], count: int | None = None) -> None:
    count = len(lines) if count is None else count
    if count:
        more = [f"  ... {count - _NAMED} more"] if count > _NAMED else []
        talk("\n".join([f"{count} {what}:", *(f"  {line}" for line in lines[:_NAMED]), *more]))


def result(facts: Mapping[str, Any] | Sequence[Any], text: str, *, as_json: bool) -> None:
    """Print what a command found: `text` for people, `facts` for machines."""
    typer.echo(json.dumps(facts, indent=2) if as_json else text)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as aligned columns, headed by the keys of the first; numbers to the right."""
    if not rows:
        return "(nothing)"
    heads = list(rows[0])
    cells = [[_cell(row.get(head)) for head in heads] for row in rows]
    right = [all(isinstance(row.get(head), (int, float, type(None))) for row in rows) for head in heads]
    widths = [max(len(line[column]) for line in [heads, *cells]) for column in range(len(heads))]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [heads, *cells]
    ]
    return "\n".join(lines)


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """A progress bar on stderr; yields what moves it on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)

        def advance(done: int) -> None:
            bar.advance(task, done)

        yield advance


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
