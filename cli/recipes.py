"""`edgessl recipes`: what can be trained."""

from __future__ import annotations

from edgessl.cli.options import Json
from edgessl.cli.output import result, table

EXAMPLE = "edgessl recipes --json"


def recipes(as_json: Json = False) -> None:
    """List the recipes and the encoders that can be trained.

    Beside these encoders, any image model of timm can be named.
    """
    from edgessl.encoders import ENCODERS
    from edgessl.recipes import RECIPES

    rows = [
        {kind: name, "what it is": entry[2]}
        for kind, entries in (("recipe", RECIPES), ("encoder", ENCODERS))
        for name, entry in entries.items()
    ]
    known = [[row for row in rows if kind in row] for kind in ("recipe", "encoder")]
    result({"recipes": known[0], "encoders": known[1]}, "\n\n".join(map(table, known)), as_json=as_json)
