"""One encoder of the zoo: trained shortly where its line says so, exported, and what came out as one row."""

from __future__ import annotations

import json
import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zoo_models
from numpy.typing import NDArray
from pretrain_cifar10 import VIEWS
from zoo_models import Model

import edgessl
from edgessl.encoders import ENCODERS, build_encoder
from edgessl.encoders.base import EncoderModule
from edgessl.errors import EdgeSSLError
from edgessl.export.bundle import export
from edgessl.export.config import ExportConfig
from edgessl.load import load_encoder
from edgessl.metrics import cosines, knn_accuracy
from edgessl.pretrain import pretrain
from edgessl.sources.arrays import ArraySource
from edgessl.trainer import Run

ENGINES = {"onnxruntime": "onnx", "openvino": "openvino"}  # those that run here, and their targets
LINTED = "tensorrt:10.3"
FP32_COSINE, INT8_COSINE, KNN_POINTS = 0.9999, 0.995, 0.5
SLOW = "it does not pay"  # how the exporter begins when int8 was right, and no faster


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a row depends on beside its encoder."""

    data: Path
    cache: Path
    steps: int
    batch: int
    seed: int


def row_of(model: Model, options: Options) -> dict[str, Any]:
    """Train, export, measure."""
    row: dict[str, Any] = {"name": model.name, "family": model.family, "input": list(model.spec.shape)}
    encoder, facts, row["training"] = _encoder(model, options)
    row |= {"parameters": sum(each.numel() for each in encoder.parameters()), "dim": encoder.dim}
    source = zoo_models.calibration(options.data, model)
    bundle = options.cache / f"{model.name}.edgessl"
    row |= _exported(encoder, facts, source, bundle, ExportConfig(targets=(*ENGINES.values(), "tensorrt")))
    if model.lr:
        bundles = {engine: bundle for engine in ENGINES if row["int8"][engine]["kept"]}
        slow = {name: target for name, target in ENGINES.items() if row["int8"][name]["reason"].startswith(SLOW)}
        if slow:  # right and no faster: written all the same, so that how right it is can be looked at
            forced = options.cache / f"{model.name}.int8.edgessl"
            try:
                again = _exported(
                    encoder, facts, source, forced, ExportConfig(targets=tuple(slow.values()), precision="int8")
                )
                bundles |= dict.fromkeys(slow, forced)
                for engine in slow:
                    mine = row["int8"][engine]
                    row["int8"][engine] = again["int8"][engine] | {"kept": False, "reason": mine["reason"]}
            except EdgeSSLError as error:
                row["forced_int8"] = str(error)
        row["held_out"] = _held_out(model, options, bundle, bundles)
    row["missed"] = _missed(row)
    row["ok"] = not row["missed"]
    for name in (f"{model.name}.edgessl", f"{model.name}.int8.edgessl"):
        shutil.rmtree(options.cache / name, ignore_errors=True)
    return row


def _encoder(model: Model, options: Options) -> tuple[EncoderModule, dict[str, Any], dict[str, Any] | None]:
    torch.manual_seed(options.seed)
    if not model.lr:
        if model.name in ENCODERS:
            built = build_encoder(model.name, model.spec).eval()
            return built, {"made_by": "benchmarks/export_zoo.py", "untrained": True}, None
        loaded = load_encoder(f"timm:{model.name}", input=model.spec)
        return loaded.encoder, _facts(loaded), None
    folder = options.cache / f"{model.name}-{model.size}-{options.steps}x{options.batch}-{model.lr:g}-{options.seed}"
    told = folder.with_suffix(".json")
    if not (folder / "encoder.json").exists():
        began = time.monotonic()
        run = Run(
            steps=options.steps, batch=options.batch, lr=model.lr, seed=options.seed, progress=False, overwrite=True
        )
        facts = pretrain(
            zoo_models.training(options.data, model),
            recipe="simclr",
            encoder=model.name,
            output=folder,
            run=run,
            recipe_options={"views": VIEWS, "temperature": 0.2},
        )
        seconds = round(time.monotonic() - began, 1)
        training = {"recipe": "simclr", "steps": options.steps, "batch": options.batch, "seconds": seconds}
        told.write_text(json.dumps(training | {"lr": model.lr, "loss": facts.get("loss")}) + "\n")
    loaded = load_encoder(str(folder))
    return loaded.encoder, _facts(loaded), json.loads(told.read_text())


def _facts(loaded: Any) -> dict[str, Any]:
    return dict(loaded.facts | {"pooling": loaded.pooling, "preprocessing": loaded.preprocessing})


def _exported(
    encoder: EncoderModule, facts: dict[str, Any], source: ArraySource, bundle: Path, config: ExportConfig
) -> dict[str, Any]:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    report = export(encoder, facts, source, bundle, config=config, overwrite=True, say=say)
    seconds = time.monotonic() - began
    say("done")
    manifest = json.loads((bundle / "manifest.json").read_text())
    parity = list(manifest["parity"].values())
    # The training step runs in onnxruntime, on whatever device: TensorRT never sees it.
    found = [each for each in manifest["lint"] if each["target"] == LINTED and each["file"] != "step.onnx"]
    told = {f"{finding['level']} {finding['rule']}: {finding['message']}" for finding in found}
    return {
        "seconds": round(seconds, 1),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "fp32_min_cosine": {
            engine: min(
                (each["min_cosine"] for each in parity if each.get("precision") == "fp32" and each["engine"] == engine),
                default=None,
            )
            for engine in ENGINES
        },
        "int8": {
            engine: _int8(manifest, report.rejected, engine, target)
            for engine, target in {**ENGINES, "tensorrt": "tensorrt"}.items()
            if target in config.targets
        },
        "rejected": report.rejected,
        "median_ms": {
            f"{each['engine']} {each['precision']}": each["median_ms"]
            for each in report.measured
            if each["role"] == "encoder"
        },
        "lint": {
            "target": LINTED,
            "errors": sum(finding["level"] == "error" for finding in found),
            "warnings": sum(finding["level"] == "warning" for finding in found),
            "said": sorted(told)[:6],
        },
        "bytes": {
            path: facts["size_bytes"]
            for path, facts in manifest["artefacts"].items()
            if facts["role"] in ("encoder", "data", "step") or path == "tail.onnx"
        },
        "bundle_bytes": sum(facts["size_bytes"] for facts in manifest["artefacts"].values()),
    }


def _int8(manifest: dict[str, Any], rejected: dict[str, str], engine: str, target: str) -> dict[str, Any]:
    """What became of int8 for an engine; the gate's figures where it stayed."""
    folder, suffix = ("", ".onnx") if target == "onnx" else (f"{target}/", ".xml" if target == "openvino" else ".onnx")
    file = f"{folder}encoder.int8{suffix}"
    gate = manifest["parity"].get(file, {})
    facts = manifest.get("quantization", {}).get(file, {})
    return {
        "kept": f"{engine} int8" not in rejected,
        "reason": rejected.get(f"{engine} int8", ""),
        "judged_by": gate.get("engine"),
        "samples": gate.get("samples"),
        "mean_cosine": gate.get("mean_cosine"),
        "min_cosine": gate.get("min_cosine"),
        "knn_overlap": gate.get("knn_overlap"),
        "nodes": gate.get("nodes", {}),
        "excluded": len(facts.get("excluded", ())),
        "smoothed": facts.get("smoothed", 0),
    }


def _held_out(model: Model, options: Options, fp32: Path, bundles: dict[str, Path]) -> dict[str, Any]:
    """Frames that calibration did not see: how near int8 is to fp32, and what its neighbours are worth."""
    bank, queries = zoo_models.neighbours(options.data, model)
    found: dict[str, Any] = {"bank": len(bank), "queries": len(queries)}
    frames = {name: source.read(range(len(source)))[1] for name, source in (("bank", bank), ("queries", queries))}
    pixels = {name: _pixels(each) for name, each in frames.items()}
    found["knn_pixels"] = _knn(pixels, bank, queries)
    with torch.no_grad():
        torch.manual_seed(options.seed)
        untrained = build_encoder(model.name, model.spec).eval()
        parts = {name: np.array_split(each, -(-len(each) // 64)) for name, each in frames.items()}
        raw = {
            name: np.concatenate([untrained(torch.from_numpy(part)).numpy() for part in each])
            for name, each in parts.items()
        }
    found["knn_untrained"] = _knn(raw, bank, queries)
    whole = _embedded(fp32, "onnxruntime", "fp32", frames)
    found["knn_fp32"] = _knn(whole, bank, queries)
    for engine, bundle in bundles.items():
        began = time.monotonic()
        vectors = _embedded(bundle, engine, "int8", frames)
        similar = cosines(whole["queries"], vectors["queries"])
        accuracy = _knn(vectors, bank, queries)
        found[engine] = {
            "mean_cosine": float(similar.mean()),
            "min_cosine": float(similar.min()),
            "knn_int8": accuracy,
            "drop_points": round(100 * (found["knn_fp32"] - accuracy), 2),
        }
        print(f"{engine} int8 on held-out frames: {found[engine]} in {time.monotonic() - began:.1f} s", flush=True)
    return found


def _pixels(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (frames[:, ::2, ::2].reshape(len(frames), -1) / 255).astype(np.float32)


def _knn(vectors: dict[str, NDArray[np.float32]], bank: ArraySource, queries: ArraySource) -> float:
    return knn_accuracy(vectors["queries"], np.asarray(queries.labels), vectors["bank"], np.asarray(bank.labels))


def _embedded(
    bundle: Path, engine: str, precision: str, frames: dict[str, NDArray[np.uint8]]
) -> dict[str, NDArray[np.float32]]:
    with edgessl.open(bundle, engine=engine, precision=precision) as encoder:
        return {name: encoder.embed(each) for name, each in frames.items()}


def _missed(row: dict[str, Any]) -> list[str]:
    """Which bounds the row does not reach; empty where it passes."""
    found = []
    for engine, least in row["fp32_min_cosine"].items():
        if least is None or not least >= FP32_COSINE:
            found.append(f"fp32 in {engine}: minimum cosine {least}, not {FP32_COSINE}")
    if row["lint"]["errors"]:
        found.append(f"{row['lint']['errors']} lint errors for {LINTED}: {'; '.join(row['lint']['said'][:2])}")
    for engine in ENGINES if "held_out" in row else ():
        held = row["held_out"].get(engine)
        if held is None:
            found.append(f"int8 in {engine}: {row.get('forced_int8') or row['int8'][engine]['reason']}")
            continue
        if held["mean_cosine"] < INT8_COSINE:
            found.append(f"int8 in {engine}: mean cosine {held['mean_cosine']:.4f} of held-out frames")
        if held["drop_points"] > KNN_POINTS:
            found.append(f"int8 in {engine}: 20-NN {held['drop_points']} points lower")
    return found
