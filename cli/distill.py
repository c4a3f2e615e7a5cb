"""`edgessl distill`: a smaller encoder learns a teacher's embedding, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from edgessl.cli import training
from edgessl.cli.options import Data, Json, Overwrite, Seed, Series, Split, Strict, parsed_series
from edgessl.cli.output import result
from edgessl.errors import InputError
from edgessl.files import refuse_existing

if TYPE_CHECKING:
    from edgessl.trainer import Precision as TorchPrecision

MoreTeachers = Annotated[
    list[Path],
    typer.Option("--teacher", metavar="CHECKPOINT", help="A further teacher of the same samples; may be repeated."),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Ask the teachers once about each sample, and keep their vectors here; for clean=true."
    ),
]

EXAMPLE = "edgessl distill runs/a frames/ --encoder mobilenetv4_conv_small --steps 500 -o runs/b"


def distill(
    teacher: training.Teacher,
    data: Data,
    encoder: training.EncoderName,
    output: training.Output,
    more_teachers: MoreTeachers = [],  # noqa: B006, typer reads it and nobody changes it
    cache: Cache = None,
    init: training.Init = None,
    int8: training.Int8 = False,
    placement: training.Placement = "auto",
    steps: training.Steps = None,
    epochs: training.Epochs = None,
    batch: training.Batch = None,
    lr: training.LearningRate = None,
    split: Split = "train",
    series: Series = [],  # noqa: B006, typer reads it and nobody changes it
    settings: training.Settings = [],  # noqa: B006, typer reads it and nobody changes it
    seed: Seed = 0,
    accelerator: training.Accelerator = "auto",
    devices: training.Devices = "auto",
    precision: training.TrainPrecision = "32-true",
    workers: training.Workers = 1,
    log: training.Log = "csv",
    resume: training.Resume = False,
    strict: Strict = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a smaller encoder to embed DATA as TEACHER does.

    Architecture and width may differ from the teacher's; no labels are used.

    Where a student's int8 graph is too far from its float one: edgessl distill runs/b frames/ --encoder same --int8
    --steps 300 -o runs/b8

    Settings: --set relations=1 is the distillation's, --set encoder.dim=64 is the student's. With --set clean=true the
    teachers see the samples themselves and the student views of them; --cache then saves asking them again.
    """
    refuse_existing(output, overwrite=overwrite)
    if placement != "auto" and not int8:
        raise InputError(f"--placement {placement} is of int8; add --int8, or leave it out")
    options, encoder_options = training.split_settings(settings)
    from edgessl.checkpoint import read_facts
    from edgessl.distill import DistillationConfig, usual_settings
    from edgessl.distill import distill as train
    from edgessl.recipes import settings_of
    from edgessl.signals import InputSpec
    from edgessl.sources import open_source
    from edgessl.trainer import Run

    run = Run(
        steps=steps,
        epochs=epochs,
        batch=batch,
        lr=lr,
        seed=seed,
        accelerator=accelerator,
        devices=training.devices_of(devices),
        precision=cast("TorchPrecision", precision),  # Run checks it
        workers=workers,
        resume=resume,
        overwrite=overwrite,
        log=log,
    )
    spec = InputSpec.from_json(read_facts(teacher)["input"])
    training.tell_resume(output, resume)
    facts = train(
        teacher,
        open_source(data, split=split, strict=strict, windowing=parsed_series(series), spec=spec, labelled=False),
        encoder=encoder,
        output=output,
        run=run,
        encoder_options=encoder_options,
        config=settings_of(DistillationConfig, "distillation", options, usual_settings(placement if int8 else None)),
        start=init,
        placement=placement if int8 else None,
        more_teachers=more_teachers,
        cache=cache,
    )
    training.leave_helpers()
    training.talk_about_skipped(facts)
    result({"output": str(output), **facts}, training.trained_text(facts, output), as_json=as_json)
