"""`edgessl doctor`: what this machine has and lacks, the known traps of it, and what of a bundle can run here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgessl.cli.options import Json
from edgessl.cli.output import result, table
from edgessl.errors import EngineError

if TYPE_CHECKING:
    from edgessl.runtimes.doctor import Checkup

EXAMPLE = "edgessl doctor robot.edgessl"


def doctor(
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="[BUNDLE]", help="Folder NAME.edgessl: what of it can run here is told, too."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what this machine has, and what to type for what it lacks.

    And the known traps of this combination of board, libraries and encoder, each with its source. Exit code 1: something
    that edgessl needs is missing, or nothing of BUNDLE can run.
    """
    from edgessl.bundle import open_bundle
    from edgessl.runtimes.doctor import examine

    checkup = examine(bundle=open_bundle(bundle) if bundle else None)
    result(checkup.to_json(), _told(checkup), as_json=as_json)
    if checkup.missing:
        raise EngineError(f"missing: {'; '.join(checkup.missing)}")


def _told(checkup: Checkup) -> str:
    rows = [
        {"": ("" if fact.ok else "! ") + fact.name, "found": fact.value or "-", "to do": fact.hint}
        for fact in checkup.facts
    ]
    parts = [table(rows)]
    if checkup.traps:
        traps = [f"{trap.kind}: {trap.says}.\n  {trap.do}\n  {trap.source}" for trap in checkup.traps]
        parts.append("\n".join(["Known traps here:", *traps]))
    if checkup.artefacts:
        runs = [{**row, "reason": row["reason"] or None} for row in checkup.artefacts]
        parts.append(f"What of the bundle can run here:\n{table(runs)}")
    return "\n\n".join(parts)
