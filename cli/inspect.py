"""`edgessl inspect`: what a bundle or checkpoint is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgessl.cli.options import Json
from edgessl.cli.output import result, table

_TRAINED = ("made_by", "recipe", "steps", "batch", "seed", "data", "weights_sha256")  # the rest stands in the --json
EXAMPLE = "edgessl inspect robot.edgessl"


def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Bundle or checkpoint folder.")],
    as_json: Json = False,
) -> None:
    """Show what a bundle or checkpoint is.

    Of a bundle every digest is checked.
    """
    from edgessl.bundle import MANIFEST, open_bundle

    if path.is_dir() and not (path / MANIFEST).exists():
        from edgessl.checkpoint import read_facts

        facts = read_facts(path)
        result(facts, _lines(facts), as_json=as_json)
        return
    bundle = open_bundle(path)
    files = [
        {
            "file": artefact.path,
            "role": artefact.role,
            "precision": artefact.precision,
            "engine": artefact.engine or "any",
            "bytes": artefact.size_bytes,
        }
        for artefact in bundle.artefacts
    ]
    rest = {key: value for key, value in bundle.manifest.items() if key not in ("artefacts", "parity")}
    measured = [_parity(file, figures) for file, figures in bundle.manifest.get("parity", {}).items()]
    rest.setdefault("space_revision", 0)
    trained = rest.get("provenance", {}).get("checkpoint", {})
    rest["provenance"] = {key: trained[key] for key in _TRAINED if key in trained}
    text = f"{_lines(rest)}\n\n{table(files)}\n\n{table(measured)}"
    result(bundle.manifest | {"path": str(path), "digests": "match"}, text, as_json=as_json)


def _lines(facts: dict[str, Any], prefix: str = "") -> str:
    lines = []
    for key, value in facts.items():
        if isinstance(value, dict) and value:
            lines.append(_lines(value, f"{prefix}{key}."))
        else:
            lines.append(f"{prefix + key:<28} {value}")
    return "\n".join(lines)


def _parity(file: str, figures: dict[str, Any]) -> dict[str, Any]:
    shown = ("engine", "version", "min_cosine", "mean_cosine", "knn_overlap")
    return {"parity of": file} | {key: figures.get(key) for key in shown}
