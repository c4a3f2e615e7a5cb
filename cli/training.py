"""Options of the two commands that train, and the run they make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgessl.cli.options import parsed_settings
from edgessl.cli.output import talk, talk_skipped
from edgessl.errors import InputError

Teacher = Annotated[Path, typer.Argument(metavar="TEACHER", help="Checkpoint folder of the teacher.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The checkpoint folder to make.")]
EncoderName = Annotated[str, typer.Option("--encoder", help="A name from `edgessl recipes`, or a model of timm.")]
Init = Annotated[
    Path | None,
    typer.Option("--init", metavar="CHECKPOINT", help="Begin with this student; the teacher with --encoder same."),
]
Int8 = Annotated[bool, typer.Option("--int8", help="Round the student as its int8 graph will, while it learns.")]
Placement = Annotated[
    str, typer.Option(help="Whose int8 graph: onnxruntime, symmetric (TensorRT, OpenVINO), or auto by architecture.")
]
Steps = Annotated[int | None, typer.Option(help="Optimizer steps; default: 50 passes over the data.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the data, instead of --steps.")]
Batch = Annotated[int | None, typer.Option(help="Samples per step; the recipe's own when left out.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Peak learning rate; the recipe's own when left out.")]
Accelerator = Annotated[str, typer.Option(help="cpu, gpu, or auto: the fastest that is there.")]
Devices = Annotated[str, typer.Option(help="How many devices, or auto. They share each batch.")]
NumNodes = Annotated[int, typer.Option("--num-nodes", help="How many machines; start them with torchrun or SLURM.")]
Strategy = Annotated[str, typer.Option(help="Of Lightning, for several devices: auto or ddp.")]
Guard = Annotated[
    bool, typer.Option("--guard/--no-guard", help="Stop with exit code 3 when the encoder has collapsed.")
]
TrainPrecision = Annotated[str, typer.Option("--precision", help="32-true, bf16-mixed or 16-mixed.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes that read samples too many for memory, per device; by the machine when left out."),
]
Log = Annotated[str, typer.Option(help="csv or tensorboard, in OUTPUT/log.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same settings.")]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the method, views.KEY=VALUE or encoder.KEY=VALUE; may be repeated.",
    ),
]


def split_settings(settings: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the method, and those of the encoder, which are written `encoder.KEY=VALUE`."""
    values = parsed_settings(settings)
    encoder = values.pop("encoder", {})
    if not isinstance(encoder, dict):
        raise InputError(
            f"the encoder is chosen by --encoder {encoder}; --set encoder.KEY=VALUE changes a setting of it"
        )
    return values, encoder


def tell_resume(output: Path, resume: bool) -> None:
    """Say so where there is nothing to resume: the training was stopped before it began, or the name is wrong."""
    from edgessl.trainstate import interrupted

    if resume and not interrupted(output):
        talk(f"there is no interrupted training of {output}; starting at step 0")


def devices_of(text: str) -> int | str:
    """`"2"` -> 2; anything else is Lightning's to understand."""
    return int(text) if text.isdecimal() else text


def leave_helpers() -> None:
    """End here where this process only helped another one to train: the first one speaks."""
    from edgessl.blocks.gather import is_first

    if not is_first():
        raise typer.Exit


def talk_about_skipped(facts: dict[str, Any]) -> None:
    """Name what a training left out."""
    data = facts["data"]
    talk_skipped(zip(data["skipped_names"], data["skipped_reasons"], strict=True), count=data["skipped"])


def trained_text(facts: dict[str, Any], output: Path) -> str:
    """One line about a training that ended."""
    losses = ", ".join(f"{name} {value:.4g}" for name, value in facts["loss"].items())
    data = facts["data"]
    skipped = f", {data['skipped']} skipped" if data["skipped"] else ""
    return (
        f"{facts['steps']} steps of {facts['batch']} on {data['samples']} samples in {facts['seconds']:.0f} s: {losses}"
        f"{skipped} -> {output}"
    )
