"""`edgessl build`: plans of TensorRT for this device, judged on the bundle's golden samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgessl.cli.options import BundlePath, Json
from edgessl.cli.output import result, table, talk
from edgessl.errors import InputError

EXAMPLE = "edgessl build robot.edgessl"


def build(
    bundle: BundlePath,
    precision: Annotated[str, typer.Option(help="Of the plans: auto, int8, fp16 or fp32.")] = "auto",
    batch: Annotated[
        str, typer.Option(metavar="MIN,USUAL,MAX", help="Batches of one run; a larger one runs in parts.")
    ] = "1,1,16",
    workspace_mib: Annotated[
        int | None,
        typer.Option(help="Scratch memory a layer may use. Default: TensorRT's own limit, less on a board of 8 GiB."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of plans. Default: $EDGESSL_CACHE, or ~/.cache/edgessl/engines.")
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build what was built or refused before, too.")] = False,
    as_json: Json = False,
) -> None:
    """Build TensorRT plans of BUNDLE on this device.

    The fastest that computes what was exported is the one that serves. Every plan replays the golden samples; one
    below its bound is refused and never used. Plans are kept in a cache outside the bundle, and built again when the
    bundle, TensorRT, the GPU or the system changes. Exit code 3: none passed.
    """
    from edgessl.runtimes.build import build as build_plans

    report = build_plans(
        bundle,
        precision=precision,
        batches=_batches(batch),
        workspace_mib=workspace_mib,
        cache=cache,
        rebuild=rebuild,
        say=talk,
    )
    facts = report.to_json()
    shown = ("role", "precision", "typing", "ok", "min_cosine", "mean_cosine", "knn_overlap", "median_ms", "build_s")
    rows = [{key: row[key] for key in (*shown, "cached", "chosen")} for row in facts["rows"]]
    result(
        facts,
        f"{table(rows)}\n\n{report.chosen('encoder')} is chosen; the plans are in {report.cache}. "
        f"Type: edgessl embed {bundle} FRAMES --engine tensorrt -o vectors.npz",
        as_json=as_json,
    )


def _batches(text: str) -> tuple[int, int, int]:
    try:
        least, usual, most = (int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{text!r} is no range of batches; type --batch MIN,USUAL,MAX, such as 1,1,16") from error
    return least, usual, most
