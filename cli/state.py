"""`edgessl state`: what an encoder learned, looked at and gone back from between two runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edgessl.cli.options import Json, Overwrite
from edgessl.cli.output import result, table, talk
from edgessl.errors import InputError

LIST = "edgessl state list state/"
ROLLBACK = "edgessl state rollback state/ --to 12"
RESET = "edgessl state reset state/ --yes"
PLOT = "edgessl state plot events.jsonl -o adaptation.svg"

StatePath = Annotated[Path, typer.Argument(metavar="STATE", help="Folder that was given to `edgessl adapt --state`.")]


def list_(state: StatePath, as_json: Json = False) -> None:
    """List the snapshots of a state, newest first.

    A learner starts from the newest one that is whole.
    """
    from edgessl.runtimes.adapt.snapshots import list_snapshots

    rows = list_snapshots(state)
    starts = next((row.number for row in rows if not row.damaged), 0)
    lines = [table([_line(row.to_json()) for row in rows])] if rows else []
    lines += [f"{row.file}: {row.damaged}" for row in rows if row.damaged]
    size = sum(row.size_bytes for row in rows)
    lines.append(f"a learner starts from {f'snapshot {starts}' if starts else 'the factory'}; {size} bytes in all")
    facts = {"state": str(state), "starts_from": starts, "snapshots": [row.to_json() for row in rows]}
    result(facts, "\n".join(lines), as_json=as_json)


def rollback(
    state: StatePath,
    to: Annotated[int | None, typer.Option(help="Number of the snapshot. Default: the one before.")] = None,
    as_json: Json = False,
) -> None:
    """Make an older snapshot the newest one.

    It is written again under the next number. Those between are kept until newer ones push them out, so --to can
    also go forward again.
    """
    from edgessl.runtimes.adapt.snapshots import roll_back

    row = roll_back(state, to)
    text = f"{state} is back at snapshot {row.origin}, {row.frames} frames, written again as {row.number}"
    result({"state": str(state)} | row.to_json(), text, as_json=as_json)


def reset(
    state: StatePath,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove every snapshot: the factory's encoder serves again.

    What was learned is lost. Any bundle may use the folder from then on.
    """
    from edgessl.runtimes.adapt.snapshots import reset as remove

    if not yes and not _agreed(state):
        talk("nothing was removed")
        raise typer.Exit(1)
    count = remove(state)
    result({"state": str(state), "removed": count}, f"{count} snapshots removed from {state}", as_json=as_json)


def plot(
    events: Annotated[Path, typer.Argument(metavar="EVENTS", help="File written by `edgessl adapt --log`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .svg file to write.")],
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw a log: drift, level, decisions and quality over the frames."""
    from edgessl.runtimes.adapt.drawing import refuse_plot, write_plot
    from edgessl.runtimes.adapt.history import history_of, read_events

    refuse_plot(output, overwrite=overwrite, option="-o")
    if output.resolve() == events.resolve():
        raise InputError(f"{output} is both EVENTS and -o; give the drawing another name")
    history = history_of(read_events(events))
    write_plot(output, history, title=events.name)
    facts = {"output": str(output), "from": history.start, "to": history.end, "counts": history.counts}
    result(facts, f"frames {history.start} to {history.end} -> {output}", as_json=as_json)


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table, for people."""
    shown = {"number": row["number"], "written (UTC)": row["written"][:19].replace("T", " ")}
    shown["state"] = "damaged" if row["damaged"] else "whole"
    shown |= {key: row[key] for key in ("frames", "votes", "level", "frozen")}
    shown |= {"from": row["origin"], "bytes": row["size_bytes"], "bundle": row["name"] or None}
    return shown | {"manifest": row["bundle"] and row["bundle"][:12], "space": row["space_id"]}


def _agreed(state: Path) -> bool:
    told = f"{state} loses every snapshot, and with them what was learned"
    if not sys.stdin.isatty():
        raise InputError(f"{told}; add --yes if that is meant")
    return typer.confirm(f"{told}. Go on?", err=True)
