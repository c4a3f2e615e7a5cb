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

    methods = [
        {
            "recipe": name,
            "what it is": entry.about,
            "learns from": ", ".join(entry.kinds),
            "such as": f"--recipe {name} --encoder {entry.encoder[0]}",
        }
        for name, entry in RECIPES.items()
    ]
    encoders = [{"encoder": name, "what it is": about} for name, (_, _, about) in ENCODERS.items()]
    result({"recipes": methods, "encoders": encoders}, "\n\n".join(map(table, (methods, encoders))), as_json=as_json)
