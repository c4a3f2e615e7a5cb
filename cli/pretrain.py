"""`edgessl pretrain`: unlabelled samples become a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from edgessl.cli import training
from edgessl.cli.options import Data, Json, Overwrite, Seed, Series, Size, Split, Strict, parsed_series, parsed_size
from edgessl.cli.output import result
from edgessl.files import refuse_existing

if TYPE_CHECKING:
    from edgessl.run import Precision as TorchPrecision

EXAMPLE = "edgessl pretrain frames/ --recipe simclr --encoder conv_small --size 64 --steps 500 -o runs/a"


def pretrain(
    data: Data,
    recipe: Annotated[str, typer.Option(help="A name from `edgessl recipes`.")],
    encoder: training.EncoderName,
    output: training.Output,
    steps: training.Steps = None,
    epochs: training.Epochs = None,
    batch: training.Batch = None,
    lr: training.LearningRate = None,
    size: Size = "",
    split: Split = "train",
    series: Series = [],  # noqa: B006, typer reads it and nobody changes it
    settings: training.Settings = [],  # noqa: B006, typer reads it and nobody changes it
    seed: Seed = 0,
    accelerator: training.Accelerator = "auto",
    devices: training.Devices = "auto",
    num_nodes: training.NumNodes = 1,
    strategy: training.Strategy = "auto",
    precision: training.TrainPrecision = "32-true",
    workers: training.Workers = None,
    guard: training.Guard = True,
    log: training.Log = "csv",
    resume: training.Resume = False,
    strict: Strict = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train an encoder on DATA, without labels.

    Settings: --set temperature=0.2 is the recipe's, --set views.flip=0 its views', --set encoder.dim=64 the encoder's.
    """
    refuse_existing(output, overwrite=overwrite)
    shape, (recipe_options, encoder_options) = parsed_size(size), training.split_settings(settings)
    from edgessl.pretrain import pretrain as train
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
        num_nodes=num_nodes,
        strategy=strategy,
        precision=cast("TorchPrecision", precision),  # Run checks it
        workers=workers,
        guard=guard,
        resume=resume,
        overwrite=overwrite,
        log=log,
    )
    training.tell_resume(output, resume)
    facts = train(
        open_source(data, size=shape, split=split, strict=strict, windowing=parsed_series(series), labelled=False),
        recipe=recipe,
        encoder=encoder,
        output=output,
        run=run,
        recipe_options=recipe_options,
        encoder_options=encoder_options,
    )
    training.leave_helpers()
    training.talk_about_skipped(facts)
    result({"output": str(output), **facts}, training.trained_text(facts, output), as_json=as_json)
