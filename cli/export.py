"""`edgessl export`: any encoder becomes a bundle, or nothing when a written graph is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgessl.cli import training
from edgessl.cli.options import (
    Json,
    Overwrite,
    Precision,
    Series,
    Size,
    Split,
    Strict,
    parsed_series,
    parsed_settings,
    parsed_size,
)
from edgessl.cli.output import progress, result, table, talk, talk_skipped
from edgessl.errors import InputError
from edgessl.files import refuse_existing

if TYPE_CHECKING:
    from edgessl.load import Loaded

EXAMPLE = "edgessl export runs/a --calibrate frames/ --to onnx,openvino,tensorrt --input-size 480x640 -o robot.edgessl"


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Checkpoint folder, timm:NAME, package.module:factory, or a local Hugging Face folder.",
        ),
    ],
    calibrate: Annotated[
        str, typer.Option(help="Real samples from where the encoder will work: folder, .npz, demo:LAP.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to make, NAME.edgessl.")],
    to: Annotated[str, typer.Option(help="Targets, with commas: onnx, openvino, tensorrt.")] = "onnx",
    precision: Precision = "auto",
    input_size: Annotated[
        str, typer.Option(help="The camera's frames, such as 480x640 (height x width): the graph resizes them itself.")
    ] = "",
    fit: Annotated[
        str, typer.Option(help="With --input-size: stretch, crop, or auto (what the encoder was trained with).")
    ] = "auto",
    size: Size = "",
    weights: Annotated[
        Path | None, typer.Option(help="Weights file of a timm model or a factory, .safetensors.")
    ] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Let timm download its weights.")] = False,
    pool: Annotated[str, typer.Option(help="cls, mean, gem or attention, instead of the model's own.")] = "",
    license: Annotated[str, typer.Option(help="Of the weights, such as Apache-2.0; goes into the manifest.")] = "",
    calibration: Annotated[int, typer.Option(help="Samples to calibrate int8 on, chosen for spread.")] = 300,
    rehearsal: Annotated[
        int,
        typer.Option(help="Frames of these samples that go into the bundle, for level tail to learn from; 0 for none."),
    ] = 512,
    objective: Annotated[
        str, typer.Option(help="What the tail learns from on the device: align, vicreg or ntxent.")
    ] = "align",
    settings: training.Settings = [],  # noqa: B006, typer reads it and nobody changes it
    split: Split = "train",
    series: Series = [],  # noqa: B006, typer reads it and nobody changes it
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written, and write nothing.")] = False,
    strict: Strict = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write an encoder as a bundle for a device.

    It holds graphs from the sensor's sample to the unit vector, the live tail and its training step, golden samples and a
    manifest. Every graph is opened in its engine and compared with PyTorch. With --precision auto int8 and fp16 are kept
    where they pass and are faster on this machine; where fp32 fails, or a precision asked for by name, nothing is written,
    and the exit code is 3.

    Settings of timm models and factories: --set tail=2.
    """
    from edgessl.bundle import refuse_name

    refuse_name(output)
    refuse_existing(output, overwrite=overwrite or dry_run)
    camera, own = parsed_size(input_size, "--input-size"), parsed_size(size)
    if fit not in ("auto", "stretch", "crop"):
        raise InputError(f"no fit {fit!r}; choose stretch, crop or auto")
    if fit != "auto" and not camera:
        raise InputError(
            f"--fit {fit} says how a camera's frames are brought to the encoder; type --input-size 480x640 too"
        )
    from edgessl.checkpoint import read_ranges
    from edgessl.export.bundle import export as write
    from edgessl.export.config import ExportConfig
    from edgessl.export.train_step import StepConfig
    from edgessl.sources import open_source

    targets = tuple(dict.fromkeys(name.strip() for name in to.split(",") if name.strip()))
    config = ExportConfig(
        targets=targets,
        precision=precision,
        calibration=calibration,
        rehearsal=rehearsal,
        license=license,
        strict=strict,
        step=StepConfig(objective=objective),
    )
    loaded = _loaded(source, own, weights, pretrained, pool, parsed_settings(settings))
    encoder, facts = loaded.encoder, loaded.facts | {"pooling": loaded.pooling, "preprocessing": loaded.preprocessing}
    if facts.get("untrained"):
        talk(f"{source} is untrained: its weights are random; give --weights FILE or --pretrained")
    if camera:
        encoder = _with_camera(loaded, camera, fit)
    windowing = parsed_series(series)
    samples = open_source(
        calibrate, split=split, strict=strict, windowing=windowing, spec=encoder.input, labelled=False
    )
    if dry_run:
        plan = config.plan()
        about = {
            "encoder": encoder.name,
            "input": encoder.input.to_json(),
            "dim": encoder.dim,
            "samples": len(samples),
            "pooling": loaded.pooling,
            "output": str(output),
        }
        text = "\n".join(f"{key:<10} {value}" for key, value in about.items())
        result({**about, "plan": plan}, f"{text}\n\n{table(plan)}\n\nnothing was written", as_json=as_json)
        return
    trained = read_ranges(Path(source)) if "quantization" in facts else {}
    with progress("calibrating", min(calibration, len(samples))) as advance:
        report = write(
            encoder,
            facts,
            samples,
            output,
            config=config,
            trained=trained,
            overwrite=overwrite,
            say=talk,
            advance=advance,
        )
    talk_skipped((skipped.name, skipped.reason) for skipped in samples.skipped)
    parity = [row.to_json() for row in report.parity]
    times = {(row["file"], row["engine"]): row for row in report.measured}
    rows = [_shown(row, times) for row in parity]
    left_out = "".join(f"\nleft out: {name}: {reason}" for name, reason in report.rejected.items())
    result(
        {"output": str(output), "parity": parity, "rejected": report.rejected, "measured": report.measured},
        f"{table(rows)}\n{left_out}\n{output} is ready; type: edgessl embed {output} FRAMES -o vectors.npz",
        as_json=as_json,
    )


def _loaded(
    source: str,
    size: tuple[int, int] | None,
    weights: Path | None,
    pretrained: bool,
    pool: str,
    options: dict[str, Any],
) -> Loaded:
    from edgessl.load import load_encoder
    from edgessl.signals import image_spec

    spec = image_spec(*size) if size else None
    return load_encoder(source, input=spec, weights=weights, pretrained=pretrained, pool=pool, options=options)


def _with_camera(loaded: Loaded, camera: tuple[int, int], fit: str) -> Any:
    """The encoder behind a resize of the camera's frames, in the way that its own configuration states."""
    from edgessl.encoders.camera import FILTERS, with_camera

    stated = loaded.preprocessing
    if fit == "auto":
        fit = str(stated.get("fit", "stretch"))
    filters = str(stated.get("interpolation", "bilinear"))
    return with_camera(
        loaded.encoder,
        *camera,
        fit=fit,
        interpolation=filters if filters in FILTERS else "bilinear",
        crop_pct=float(stated.get("crop", 1.0)) if fit == "crop" else 1.0,
    )


def _shown(row: dict[str, Any], times: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    time = times.get((row["file"], row["engine"]), {})
    shown = ("name", "engine", "min_cosine", "mean_cosine", "knn_overlap", "worst")
    facts = {key: row[key] for key in shown}
    return facts | {"ms": time.get("median_ms"), "of fp32": time.get("ratio_to_fp32")}
