"""`edgessl demo`: all of it on real photographs, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgessl.cli.options import Json, Overwrite
from edgessl.files import refuse_existing

EXAMPLE = "edgessl demo -o demo --overwrite"


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
    has no torch. Prints a table, and writes OUTPUT/report.json and a picture.
    """
    refuse_existing(output, overwrite=overwrite)
    from edgessl.demo import run_demo

    run_demo(output, data or None, json=as_json)
