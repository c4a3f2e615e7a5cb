"""`edgessl state export`: what was learned, as a bundle of its own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgessl.cli.options import BundlePath, Json, Overwrite
from edgessl.cli.output import result, table, talk
from edgessl.cli.state import StatePath

EXAMPLE = "edgessl state export state/ robot.edgessl -o adapted.edgessl"


def export(
    state: StatePath,
    bundle: BundlePath,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to make, NAME.edgessl.")],
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write what was learned as a bundle whose factory encoder it is.

    The newest whole snapshot is taken, and of it what serves in the shift that was learned last. Every graph is compared
    with what the learner serves; a float graph that differs writes nothing, exit code 3. The space keeps its id, and its
    revision grows by one. The new bundle embeds; to go on adapting, keep the old one and its state. Needs edgessl[export].
    """
    from edgessl.export.adapted import export_adapted

    report = export_adapted(bundle, state, output, overwrite=overwrite, say=talk)
    found = report.compatibility
    shown = ("name", "engine", "min_cosine", "mean_cosine", "knn_overlap", "worst")
    parity = [row.to_json() for row in report.parity]
    lines = [table([{key: row[key] for key in shown} for row in parity])]
    lines += [f"left out: {name}: {reason}" for name, reason in report.left_out.items()]
    lines.append(
        f"recall@1 of the golden samples, which show the world that the bundle was made in, among their vectors of before: "
        f"{found.after:.3f} ({found.before:.3f} with the encoder of before)"
    )
    lines.append(
        f"space {report.space_id}, revision {report.space_revision}, snapshot {report.learned.snapshot} -> {output}"
    )
    facts = {
        "output": str(output),
        "space_id": report.space_id,
        "space_revision": report.space_revision,
        "snapshot": report.learned.snapshot,
        "damaged": report.learned.damaged,
        "parity": parity,
        "left_out": report.left_out,
        "compatibility": asdict(found) | {"change": found.change},
    }
    result(facts, "\n".join(lines), as_json=as_json)
