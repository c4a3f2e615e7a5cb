"""`edgessl doctor`: facts about this machine, and what is missing with the line to type."""

from __future__ import annotations

from edgessl.cli.options import Json
from edgessl.cli.output import result, table

EXAMPLE = "edgessl doctor"


def doctor(as_json: Json = False) -> None:
    """Say what this machine has, and what to type for what it lacks."""
    from edgessl.runtimes.doctor import facts

    rows = [fact.to_json() for fact in facts()]
    result(
        rows,
        table([{"": row["name"], "found": row["value"] or "-", "to do": row["hint"]} for row in rows]),
        as_json=as_json,
    )
