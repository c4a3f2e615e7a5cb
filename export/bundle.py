"""Checkpoint -> bundle: every graph written, opened in its engine, compared, and only then put in place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from edgessl.bundle import Kind, open_bundle, write_manifest
from edgessl.encoders.base import EncoderModule
from edgessl.errors import GateError, InputError, UnknownNameError
from edgessl.export.graph import IR_VERSION, OPSET, write_graph
from edgessl.export.objectives import Source as SourceStatistics
from edgessl.export.quantize import batches_of, quantize_graph
from edgessl.export.split import Split, split_encoder
from edgessl.export.statistics import source_statistics
from edgessl.export.tail import write_tail
from edgessl.export.train_step import Step, StepConfig, step_facts, step_parity, write_step
from edgessl.files import atomic_folder, refuse_existing, sha256_of
from edgessl.runtimes.split import Tail, Trunk
from edgessl.runtimes.verify import ParityRow, replay
from edgessl.sources import Source

PRECISIONS = ("auto", "fp32", "int8")
ENGINE = "onnxruntime"
LEAST = 32  #: frames, so that ten nearest neighbours among the golden samples say something

#: path -> what it is
Roles = dict[str, Kind]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to write. All defaults are ours.

    Attributes:
        precision: `int8` must pass its gate; `auto` leaves int8 out where it does not; `fp32` does not try.
        calibration: Frames that quantization and source statistics are taken from, spread over the source.
        golden: Frames stored with their fp32 vectors: what every graph is compared on, here and on the device. They are not
            among the calibration frames, at most a third of all.
        anchors: Frames stored as latents, which a candidate on the device is judged by.
        step: The tail's training step.
    """

    precision: str = "auto"
    calibration: int = 512
    golden: int = 64
    anchors: int = 64
    step: StepConfig = field(default_factory=StepConfig)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UnknownNameError("precision", self.precision, PRECISIONS)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written.

    Attributes:
        path: The bundle.
        parity: One row per graph that embeds.
        rejected: Precisions that were tried and left out, with the reason.
    """

    path: Path
    parity: list[ParityRow]
    rejected: dict[str, str]


def export(
    encoder: EncoderModule,
    facts: dict[str, Any],
    calibrate: Source,
    output: Path,
    *,
    config: ExportConfig | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> ExportReport:
    """Write a bundle.

    Args:
        encoder: The encoder, in eval mode.
        facts: Of its checkpoint; go into the manifest as provenance.
        calibrate: Real frames from where the encoder will work.
        output: The folder to write, `NAME.edgessl`.
        config: What to write.
        overwrite: Replace `output`.
        say: Told about each step.

    Raises:
        GateError: A graph failed its bound; nothing is written.
        InputError: Too few frames, or `output` exists.
    """
    config = config or ExportConfig()
    if output.suffix != ".edgessl":
        raise InputError(f"a bundle's name ends in .edgessl; type -o {output.with_suffix('.edgessl')}")
    refuse_existing(output, overwrite=overwrite)
    samples, frames, names = _frames(calibrate, config)
    say(f"{len(frames)} calibration frames, {len(samples)} golden samples")
    split = split_encoder(encoder)
    golden = _embed(encoder, samples)
    with atomic_folder(output, overwrite=overwrite) as folder:
        save_file({"samples": np.ascontiguousarray(samples), "vectors": golden}, folder / "golden.safetensors")
        roles: Roles = {"golden.safetensors": Kind("golden")}
        roles |= _write_graphs(split, folder, say)
        rejected: dict[str, str] = {}
        manifest = _manifest(encoder, facts, calibrate, names, split, folder, output)
        if config.precision != "fp32":
            say("int8: calibrating and quantizing")
            quantized = _quantize(split, folder, frames)
            reason = _failure(folder, roles | quantized, manifest, only="int8")
            if not reason:
                roles |= quantized
            elif config.precision == "int8":
                raise GateError(f"int8 failed its gate: {reason}. Give more calibration frames, or --precision auto")
            else:
                say(f"int8 left out: {reason}")
                rejected["int8"] = reason
                for path in quantized:
                    (folder / path).unlink()
        say("source statistics and training step")
        best = "int8" if "trunk.int8.onnx" in roles else "fp32"
        facts_of_step, step_figures = _write_adaptation(split, folder, roles, manifest, frames, best, config)
        roles |= {"step.onnx": Kind("step", "fp32"), "source.safetensors": Kind("source")}
        manifest |= {"step": facts_of_step, "rejected": rejected}
        say("parity gate")
        rows = _replay(folder, roles, manifest)
        failed = [row for row in rows if not row.ok]
        if failed:
            raise GateError("; ".join(_describe(row) for row in failed))
        manifest["parity"] = {row.file: row.to_json() for row in rows} | {"step.onnx": step_figures}
        write_manifest(folder, roles, manifest)
        open_bundle(folder)
    return ExportReport(path=output, parity=rows, rejected=rejected)


def _frames(source: Source, config: ExportConfig) -> tuple[NDArray[Any], NDArray[Any], list[str]]:
    """Golden samples, calibration frames and the names of these, both evenly over the source."""
    wanted = min(config.calibration + config.golden, len(source))
    indices = np.unique(np.linspace(0, len(source) - 1, wanted).round().astype(int))
    kept, frames = source.read(indices)
    if len(kept) < LEAST:
        raise InputError(f"{source.name} has {len(kept)} readable frames; export takes at least {LEAST}, better 400")
    golden = np.linspace(0, len(kept) - 1, min(config.golden, len(kept) // 3)).round().astype(int)
    others = np.setdiff1d(np.arange(len(kept)), golden)
    return frames[golden], frames[others], [source.names[kept[row]] for row in others]


@torch.no_grad()
def _embed(encoder: EncoderModule, frames: NDArray[Any]) -> NDArray[np.float32]:
    parts = [
        encoder(torch.from_numpy(np.ascontiguousarray(part))) for part in np.array_split(frames, -(-len(frames) // 32))
    ]
    return np.ascontiguousarray(torch.cat(parts).numpy())


def _write_graphs(split: Split, folder: Path, say: Callable[[str], None]) -> Roles:
    frames = torch.zeros(2, *split.encoder.input.shape, dtype=torch.uint8)
    statistics = [f"port{index}.{part}" for index in range(len(split.encoder.ports)) for part in ("mean", "square")]
    say("encoder.onnx")
    write_graph(
        split.encoder, (frames,), folder / "encoder.onnx", inputs=["frames"], outputs=["vectors"], dynamic=["frames"]
    )
    say("trunk.fp32.onnx")
    write_graph(
        split.trunk,
        (frames, *split.identity_ports()),
        folder / "trunk.fp32.onnx",
        inputs=["frames", *split.port_names()],
        outputs=["latents", *statistics],
        dynamic=["frames"],
    )
    say("tail.onnx")
    weights = {f"weight.{name}": value for name, value in split.tail_weights().items()}
    write_tail(split, folder / "tail.onnx")
    save_file({name: value.contiguous().numpy() for name, value in weights.items()}, folder / "tail.safetensors")
    return {
        "encoder.onnx": Kind("encoder", "fp32"),
        "trunk.fp32.onnx": Kind("trunk", "fp32"),
        "tail.onnx": Kind("tail", "fp32"),
        "tail.safetensors": Kind("weights"),
    }


def _quantize(split: Split, folder: Path, frames: NDArray[Any]) -> Roles:
    values = (value.numpy() for value in split.identity_ports())
    identity = dict(zip(split.port_names(), values, strict=True))
    quantize_graph(folder / "encoder.onnx", folder / "encoder.int8.onnx", batches_of(frames, {}))
    quantize_graph(folder / "trunk.fp32.onnx", folder / "trunk.int8.onnx", batches_of(frames, identity))
    return {
        "encoder.int8.onnx": Kind("encoder", "int8", "onnxruntime"),
        "trunk.int8.onnx": Kind("trunk", "int8", "onnxruntime"),
    }


def _write_adaptation(
    split: Split,
    folder: Path,
    roles: Roles,
    manifest: dict[str, Any],
    frames: NDArray[Any],
    precision: str,
    config: ExportConfig,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Source statistics, taken on the trunk that will serve so that quantization is not seen as drift; and the step."""
    write_manifest(folder, roles, manifest)
    bundle = open_bundle(folder, verify=False)
    with Trunk(bundle, engine=ENGINE, precision=precision) as trunk, Tail(bundle, engine=ENGINE) as tail:
        observed = trunk.run(frames, trunk.identity)
        vectors = tail.run(observed.latents)
    anchors = np.linspace(0, len(frames) - 1, min(config.anchors, len(frames))).round().astype(int)
    source = source_statistics(observed, vectors, anchors, channel_axis=split.encoder.channel_axis)
    save_file(source, folder / "source.safetensors")
    statistics = SourceStatistics(
        mean=torch.from_numpy(source["embedding.mean"]), std=torch.from_numpy(source["embedding.var"] + 1e-8).sqrt()
    )
    step = Step(split, config.step, statistics)
    write_step(step, folder / "step.onnx")
    return step_facts(step), step_parity(step, folder / "step.onnx", ENGINE, observed.latents[: 4 * config.step.batch])


def _manifest(
    encoder: EncoderModule,
    facts: dict[str, Any],
    calibrate: Source,
    names: Sequence[str],
    split: Split,
    folder: Path,
    output: Path,
) -> dict[str, Any]:
    weights = sha256_of(folder / "encoder.onnx")
    return {
        "name": output.stem,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        # The space is named for the function that makes it: the same weights and preprocessing, the same space.
        "space_id": f"{encoder.name}-{encoder.dim}-{weights[:12]}",
        "dim": encoder.dim,
        "input": encoder.input.to_json(),
        "encoder": {"name": encoder.name, "options": encoder.options},
        "split": {
            "latent": list(split.latent),
            "channel_axis": encoder.channel_axis,
            "cut": encoder.cut,
            "ports": [{"stage": stage, "channels": encoder.channels[stage]} for stage in encoder.ports],
        },
        "onnx": {"opset": OPSET, "ir_version": IR_VERSION},
        "provenance": {
            "checkpoint": facts,
            "calibration": {
                "data": calibrate.name,
                "frames": len(names),
                "names_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
                "skipped": len(calibrate.skipped),
            },
            "versions": {"torch": torch.__version__, "onnx": onnx.__version__, "numpy": np.__version__},
        },
        "parity": {},
    }


def _replay(folder: Path, roles: Roles, manifest: dict[str, Any]) -> list[ParityRow]:
    write_manifest(folder, roles, manifest)
    return replay(open_bundle(folder, verify=False), ENGINE)


def _failure(folder: Path, roles: Roles, manifest: dict[str, Any], *, only: str) -> str:
    """Why the graphs of one precision fail their bound; empty when they pass."""
    rows = [row for row in _replay(folder, roles, manifest) if row.precision == only]
    return "; ".join(_describe(row) for row in rows if not row.ok)


def _describe(row: ParityRow) -> str:
    asked = {name: value for name, value in asdict(row.bound).items() if value}
    got = ", ".join(f"{name} {getattr(row, name):.5f} (at least {value})" for name, value in asked.items())
    return f"{row.file}: {got}"
