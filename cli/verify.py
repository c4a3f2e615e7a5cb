"""`edgessl verify`: does a bundle compute on this machine what it computed where it was made?"""

from __future__ import annotations

from typing import Annotated

import typer

from edgessl.cli.options import BundlePath, EngineName, Json
from edgessl.cli.output import result, table
from edgessl.errors import GateError

EXAMPLE = "edgessl verify robot.edgessl"


def verify(
    bundle: BundlePath,
    engine: EngineName = "auto",
    threads: Annotated[int, typer.Option(help="Threads per run; 0 lets the engine choose.")] = 0,
    as_json: Json = False,
) -> None:
    """Check a bundle and replay its golden samples here.

    Exit code 4: a file is not what was exported. Exit code 3: a graph's vectors are below their bound.
    """
    from edgessl.bundle import open_bundle
    from edgessl.runtimes.encoder import engine_name
    from edgessl.runtimes.verify import replay

    rows = replay(open_bundle(bundle), engine_name(engine), threads=threads)
    shown = ("name", "engine", "version", "min_cosine", "mean_cosine", "knn_overlap", "ok")
    facts = [row.to_json() for row in rows]
    result(facts, table([{key: row[key] for key in shown} for row in facts]), as_json=as_json)
    wrong = [row.name for row in rows if not row.ok]
    if wrong:
        raise GateError(f"{bundle} is below its bound here: {', '.join(wrong)}. Type: edgessl doctor")
