"""`edgessl demo`: all of it on real photographs, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgessl.cli.options import Json, Overwrite
from edgessl.cli.output import result, table, talk
from edgessl.files import refuse_existing

EXAMPLE = "edgessl demo -o demo --overwrite"

NEXT = """\
The same with your own frames:
  edgessl pretrain FRAMES --recipe simclr --encoder conv_small --size 64 --steps 500 -o runs/mine
  edgessl export runs/mine --calibrate FRAMES -o robot.edgessl
  edgessl adapt robot.edgessl NEW_FRAMES --state state -o vectors.npz"""


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the report, the picture and the models.")
    ] = Path("demo"),
    data: Annotated[str, typer.Option(help="Folder of your own frames instead of the demo's photographs.")] = "",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train, distil, export and adapt, on a simulated drive.

    A camera drives over photographs by day, revisits, and comes back at night; the device part runs in a process that
    has no torch. Prints a table, and writes OUTPUT/report.json and OUTPUT/night.png.
    """
    refuse_existing(output, overwrite=overwrite)
    from edgessl.demo.report import NAMES
    from edgessl.demo.run import run_demo

    report = run_demo(output, data or None, overwrite=overwrite, say=talk)
    rows = [{"": NAMES[row["name"]]} | {key: row[key] for key in row if key != "name"} for row in report["rows"]]
    night, small = report["night"], report["thumbnail"]
    text = (
        f"{table(rows)}\n\n"
        f"The night took {100 * night['taken']:.1f} points of recall from the int8 student; "
        f"adapting, without labels and without torch, gave back {100 * night['given_back']:.1f} ({night['share']:.0%}).\n"
        f"A {small['side']}x{small['side']} colour thumbnail reaches {small['recall_revisit']:.3f} on the revisit and "
        f"{small['recall_night']:.3f} at night.\n"
        f"recall_night is measured on a night lap of which every frame is embedded before anything is learned from it.\n"
        f"{output}/report.json, {output}/night.png, {output}/robot.edgessl; {report['seconds']:.0f} s.\n\n{NEXT}"
    )
    result(report, text, as_json=as_json)
