"""Encoder -> bundle: every graph written, opened in its engine, compared, and only then put in place."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors.numpy import save_file

from edgessl.bundle import Kind, open_bundle, refuse_name, write_manifest
from edgessl.encoders.base import EncoderModule
from edgessl.errors import GateError
from edgessl.export.adaptation import check_ports, write_adaptation, write_live_tail
from edgessl.export.calibrate import observe, spread
from edgessl.export.config import ExportConfig
from edgessl.export.draft import Draft, failures
from edgessl.export.facts import manifest_of
from edgessl.export.fold import record_fold
from edgessl.export.graphs import Graphs, traced
from edgessl.export.lint import lint
from edgessl.export.make import Maker
from edgessl.export.pays import machine
from edgessl.export.report import ReportData, write_report
from edgessl.export.samples import Samples, read_samples
from edgessl.export.split import Split, split_encoder
from edgessl.export.stem import note_stem, record_stem
from edgessl.export.surgery import static_batch
from edgessl.export.targets import TARGETS
from edgessl.export.trained_ranges import with_trained
from edgessl.files import atomic_folder, refuse_existing
from edgessl.runtimes.verify import ParityRow
from edgessl.sources import Source

ENGINE = "onnxruntime"  #: every device has it; the fp32 graphs are judged in it, whatever the targets

_UNSEEN = 256  # samples that a searched form is tried on besides
_SINGLES = 12  # golden samples for the graph of one: the same function, and slow to run one by one

#: what one moment of the export is told to
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written.

    Attributes:
        path: The bundle.
        parity: One row per graph that embeds.
        rejected: "engine precision" that was tried and left out, with the reason.
        measured: Times, a row per graph.
    """

    path: Path
    parity: list[ParityRow]
    rejected: dict[str, str]
    measured: list[dict[str, Any]] = field(default_factory=list)


def export(
    encoder: EncoderModule,
    facts: dict[str, Any],
    calibrate: Source,
    output: Path,
    *,
    config: ExportConfig | None = None,
    trained: Mapping[str, tuple[float, float]] | None = None,
    overwrite: bool = False,
    say: Say = lambda _: None,
    advance: Callable[[int], None] = lambda _: None,
) -> ExportReport:
    """Write a bundle.

    Args:
        encoder: The encoder, in eval mode.
        facts: Where it comes from; go into the manifest as provenance.
        calibrate: Real samples from where the encoder will work.
        output: The folder to write, `NAME.edgessl`.
        config: What to write.
        trained: Ranges of a quantization-aware distillation, `input.MODULE` and `output.MODULE`; they replace what
            calibration sees.
        overwrite: Replace `output`.
        say: Told about each step.
        advance: Told how many more samples are calibrated on.

    Raises:
        GateError: A graph failed its bound; nothing is written.
        InputError: Too few samples, or `output` exists.
    """
    config = config or ExportConfig()
    refuse_name(output)
    refuse_existing(output, overwrite=overwrite)
    samples = read_samples(calibrate, encoder, config)
    say(f"{len(samples.frames)} samples of {calibrate.name}, {len(samples.golden.samples)} golden ones")
    if bad := samples.quarantined:
        say(f"{len(bad)} left out, they hold NaN or infinity: {', '.join(bad[:10])}{' ...' * (len(bad) > 10)}")
    split = split_encoder(encoder)
    say("tracing")
    graphs = traced(split)
    with atomic_folder(output, overwrite=overwrite) as folder:
        manifest = manifest_of(encoder, facts, calibrate, samples, split, graphs, output, config)
        draft = Draft(folder=folder, golden=samples.golden, input=encoder.input, dim=encoder.dim, manifest=manifest)
        _write_fp32(draft, graphs, split, samples)
        maker = Maker(draft=draft, graphs=graphs, ranges={}, config=config, say=say)
        if any("int8" in config.wanted(name) for name in config.targets):
            chosen = spread(samples.frames, config.calibration)
            draft.unseen = np.delete(samples.frames, chosen, 0)[:_UNSEEN]
            maker.ranges = _ranges(graphs, samples.frames[chosen], facts, trained or {}, say, advance)
        for name in sorted(config.targets, key=lambda name: not TARGETS[name].here):
            for precision in config.wanted(name):
                maker.make(name, precision)
        say("source statistics and training step")
        write_adaptation(split, draft, samples.frames, config)
        if "rehearsal.safetensors" in draft.kinds:
            say(
                "rehearsal.safetensors holds frames of the source, for level tail to learn from; --rehearsal 0 leaves them out"
            )
        findings = _linted(draft, config) + [found for found in maker.findings if found["file"] in draft.kinds]
        for (level, check), count in Counter((found["level"], found["target"]) for found in findings).items():
            say(f"lint for {check}: {count} {level}{'s' * (count != 1)}; report.html has them")
        manifest |= {"rejected": draft.rejected, "lint": findings}
        manifest["parity"] = {row.file: row.to_json() for row in draft.parity}
        manifest["parity"]["step.onnx"] = manifest["step"].pop("parity")
        _write_reports(draft, maker)
        write_manifest(folder, draft.kinds, manifest)
        open_bundle(folder)
    return ExportReport(path=output, parity=draft.parity, rejected=draft.rejected, measured=maker.measured)


def _write_fp32(draft: Draft, graphs: Graphs, split: Split, samples: Samples) -> None:
    """What every bundle has, judged in the engine that every device has."""
    golden = {"samples": samples.golden.samples, "vectors": samples.golden.vectors}
    save_file(golden, draft.folder / "golden.safetensors")
    draft.kinds["golden.safetensors"] = Kind("golden")
    write_live_tail(split, draft)
    models = {
        "encoder.onnx": graphs.encoder,
        "encoder.b1.onnx": static_batch(graphs.encoder, 1),
        "trunk.fp32.onnx": graphs.trunk,
    }
    files = {
        "encoder.onnx": Kind("encoder", "fp32"),
        "encoder.b1.onnx": Kind("encoder", "fp32", batch=1),
        "trunk.fp32.onnx": Kind("trunk", "fp32"),
    }
    for path, model in models.items():
        onnx.save(model, draft.folder / path)
    single = files.pop("encoder.b1.onnx")
    rows, vectors = draft.judge(files, ENGINE)
    few = replace(draft, golden=samples.golden.first(_SINGLES))
    rows += few.judge({"encoder.b1.onnx": single}, ENGINE)[0]
    files["encoder.b1.onnx"] = single
    if reason := failures(rows):
        raise GateError(f"the exported graphs do not compute what PyTorch does: {reason}")
    draft.accept(files, rows, vectors)
    check_ports(split, draft)
    forms = {"encoder": graphs.encoder, "trunk": graphs.trunk}
    record_fold(draft, graphs, forms, files, ENGINE)
    note_stem(draft, split, graphs)
    record_stem(draft, graphs, forms, files, ENGINE)


def _ranges(
    graphs: Graphs,
    chosen: NDArray[Any],
    facts: dict[str, Any],
    trained: Mapping[str, tuple[float, float]],
    say: Say,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Ranges by placement: what calibration saw, and what was trained where it was trained for that placement."""
    say(f"calibrating on {len(chosen)} samples")
    seen = observe(graphs.encoder, chosen, advance=advance)
    placement = facts.get("quantization", {}).get("placement", "") if trained else ""
    return {
        target.placement.name: with_trained(seen, graphs.encoder, trained)
        if placement and placement in (target.placement.name, target.placement.trained)
        else seen
        for target in TARGETS.values()
    }


def _linted(draft: Draft, config: ExportConfig) -> list[dict[str, str]]:
    """What of the graphs for every engine some engine may refuse.

    Raises:
        GateError: The engine that every device has would.
    """
    found = []
    for path, kind in draft.kinds.items():
        if not path.endswith(".onnx") or kind.engine:
            continue  # what is for one engine was linted for it when it was made
        model = onnx.load(draft.folder / path)
        for check in config.lint_for:
            engine = check.partition(":")[0]
            if kind.role == "step" and engine != ENGINE:
                continue  # the training step runs where every device can run it
            findings = lint(model, check)
            wrong = [finding.message for finding in findings if finding.level == "error"]
            if wrong and engine == ENGINE:
                raise GateError(f"{path}: {'; '.join(wrong[:3])}")
            found += [finding.to_json() | {"file": path, "target": check} for finding in findings]
    return found


def _write_reports(draft: Draft, maker: Maker) -> None:
    """The two files that differ from export to export: what was timed, and the page for people."""
    measured = {"machine": machine(), "threads": os.cpu_count() or 1, "rows": maker.measured}
    (draft.folder / "measured.json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    draft.kinds["measured.json"] = Kind("report")
    sizes = {
        path: kind._asdict() | {"size_bytes": (draft.folder / path).stat().st_size}
        for path, kind in sorted(draft.kinds.items())
    }
    data = ReportData(
        manifest=draft.manifest | {"artefacts": sizes},
        measured=measured,
        samples=draft.golden.samples,
        names=draft.golden.names,
        vectors={"golden": draft.golden.vectors} | draft.vectors,
        layers=maker.layers,
        lint=draft.manifest["lint"],
    )
    write_report(draft.folder, data)
    draft.kinds["report.html"] = Kind("report")
