"""`edgessl embed`: vectors of every sample of a source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgessl.cli.options import (
    BundlePath,
    EngineName,
    Json,
    Overwrite,
    Precision,
    Samples,
    Series,
    Split,
    Strict,
    parsed_series,
)
from edgessl.cli.output import progress, result, talk_about
from edgessl.files import refuse_existing

EXAMPLE = "edgessl embed robot.edgessl frames/ -o vectors.npz"


def embed(
    bundle: BundlePath,
    source: Samples,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")],
    engine: EngineName = "auto",
    precision: Precision = "auto",
    batch: Annotated[int, typer.Option(help="Samples per run.")] = 32,
    split: Split = "train",
    series: Series = [],  # noqa: B006, typer reads it and nobody changes it
    strict: Strict = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Embed every sample of SOURCE with BUNDLE.

    OUTPUT holds `vectors` (n, dim) float32 in the source's order, `names` relative to the source, `version` (n,) of the
    encoder, `space_id` and `space_revision`.
    """
    refuse_existing(output, overwrite=overwrite, file="-o vectors.npz")
    from edgessl.runtimes.encoder import open_encoder
    from edgessl.runtimes.vectors import quarantining, vectors_of, write_vectors
    from edgessl.sources import open_source

    with open_encoder(bundle, engine=engine, precision=precision) as encoder:
        windowing = parsed_series(series)
        samples = open_source(
            source, split=split, strict=strict, windowing=windowing, spec=encoder.input, labelled=False
        )
        with progress("embed", len(samples)) as advance:
            found = vectors_of(samples, quarantining(encoder), batch=batch, strict=strict, advance=advance)
        write_vectors(output, found, encoder.space_id, encoder.manifest.get("space_revision", 0))
        facts = {"output": str(output), "dim": encoder.dim, "space_id": encoder.space_id} | encoder.info()
    talk_about(found)
    facts |= found.counts()
    result(
        facts, f"{facts['samples']} vectors of {facts['dim']} in space {facts['space_id']} -> {output}", as_json=as_json
    )
