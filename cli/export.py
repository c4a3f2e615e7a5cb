"""`edgessl export`: a checkpoint becomes a bundle, or nothing when a written graph is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgessl.cli.options import Json, Overwrite, Precision, Split, Strict
from edgessl.cli.output import result, table, talk, talk_skipped
from edgessl.files import refuse_existing

EXAMPLE = "edgessl export runs/a --calibrate frames/ -o robot.edgessl"


def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Folder written by `edgessl pretrain` or `edgessl distill`.")
    ],
    calibrate: Annotated[
        str, typer.Option(help="Real samples from where the encoder will work: folder, .npz, demo:LAP.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to make, NAME.edgessl.")],
    precision: Precision = "auto",
    objective: Annotated[
        str, typer.Option(help="What the tail learns from on the device: align, vicreg or ntxent.")
    ] = "align",
    split: Split = "train",
    strict: Strict = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write CHECKPOINT as a bundle for a device.

    It holds graphs in fp32 and int8, the live tail and its training step, golden samples and a manifest. Every graph is
    opened in its engine and compared with PyTorch. Below its bound int8 is left out; where fp32 fails, nothing is
    written, and the exit code is 3.
    """
    refuse_existing(output, overwrite=overwrite)
    from edgessl.checkpoint import read_checkpoint, read_facts
    from edgessl.export.bundle import export as write
    from edgessl.export.config import ExportConfig
    from edgessl.export.train_step import StepConfig
    from edgessl.signals import InputSpec
    from edgessl.sources import open_source

    spec = InputSpec.from_json(read_facts(checkpoint)["input"])
    samples = open_source(calibrate, split=split, strict=strict, spec=spec)
    encoder, facts = read_checkpoint(checkpoint)
    config = ExportConfig(precision=precision, step=StepConfig(objective=objective))
    report = write(encoder, facts, samples, output, config=config, overwrite=overwrite, say=talk)
    talk_skipped((skipped.name, skipped.reason) for skipped in samples.skipped)
    shown = ("name", "file", "min_cosine", "mean_cosine", "knn_overlap")
    parity = [row.to_json() for row in report.parity]
    result(
        {"output": str(output), "parity": parity, "rejected": report.rejected},
        f"{table([{key: row[key] for key in shown} for row in parity])}\n\n{output} is ready; "
        f"type: edgessl embed {output} FRAMES -o vectors.npz",
        as_json=as_json,
    )
