"""`edgessl diff`: what differs between two bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgessl.cli.options import EngineName, Json
from edgessl.cli.output import result, table

EXAMPLE = "edgessl diff robot.edgessl newer.edgessl --run"

_WIDEST = 48  # characters of a value


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder NAME.edgessl written by `edgessl export`.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The one to compare with it.")],
    run: Annotated[bool, typer.Option("--run", help="Embed the golden samples of both with both.")] = False,
    engine: EngineName = "auto",
    as_json: Json = False,
) -> None:
    """Compare two bundles.

    Says whether their vectors may be mixed, and what differs: facts, files, tensors, parity. The exit code is 0
    whether they differ or not.
    """
    from edgessl.difference import difference

    found = difference(a, b, run=run, engine=engine)
    parts = [f"vectors may be mixed: {found.mixing}"]
    if found.vectors is not None:
        shown = ("samples", "precisions", "min_cosine", "mean_cosine", "knn_overlap", "agree")
        row = found.to_json()["vectors"]
        parts.append(table([{key: row[key] for key in shown}]))
    for name in ("facts", "artefacts", "tensors", "parity", "volatile"):
        lines = getattr(found, name)
        heads = list(dict.fromkeys(key for line in lines for key in line))
        rows = [{head: _short(line.get(head)) for head in heads} for line in lines]
        parts.append(f"{name}: the same" if not rows else f"{name}\n{table(rows)}")
    result(found.to_json(), "\n\n".join(parts), as_json=as_json)


def _short(value: Any) -> Any:
    if value is None or isinstance(value, (int, float)):
        return value
    text = str(value)
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}..."
