"""`edgessl verify`: does a bundle compute on this machine what it computed where it was made?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgessl.cli.options import BundlePath, EngineName, Json, LowPower, Threads, engine_settings
from edgessl.cli.output import result, table, talk
from edgessl.errors import GateError, InputError

EXAMPLE = "edgessl verify robot.edgessl"


def verify(
    bundle: BundlePath,
    engine: EngineName = "auto",
    threads: Threads = 0,
    low_power: LowPower = False,
    key: Annotated[Path | None, typer.Option(help="Public key: check the signature first.")] = None,
    signature: Annotated[Path | None, typer.Option(help="The signature; default: BUNDLE.sig beside it.")] = None,
    as_json: Json = False,
) -> None:
    """Check a bundle and replay its golden samples here.

    With --key its signature first: every file is what was signed, and there is no other. Exit code 4: a file is not
    what was exported or signed. Exit code 3: a graph's vectors are below their bound.
    """
    from edgessl.bundle import open_bundle
    from edgessl.runtimes.encoder import engine_name
    from edgessl.runtimes.verify import replay

    if key is not None:
        from edgessl.signing import verify_signature

        talk(f"{len(verify_signature(bundle, key, signature=signature))} files are as the owner of {key} signed them")
    elif signature is not None:
        raise InputError(f"a signature is checked with a key; type: edgessl verify {bundle} --key public.pem")
    settings = engine_settings(threads, low_power=low_power)
    rows = replay(open_bundle(bundle), engine_name(engine), threads=settings.threads)
    shown = ("name", "engine", "version", "min_cosine", "mean_cosine", "knn_overlap", "ok")
    facts = [row.to_json() for row in rows]
    result(facts, table([{key: row[key] for key in shown} for row in facts]), as_json=as_json)
    wrong = [row.name for row in rows if not row.ok]
    if wrong:
        raise GateError(f"{bundle} is below its bound here: {', '.join(wrong)}. Type: edgessl doctor")
