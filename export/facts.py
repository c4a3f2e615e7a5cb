"""What a manifest says about an encoder: what it is, where it comes from, how it was split."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from edgessl.encoders.base import EncoderModule
from edgessl.export.config import ExportConfig
from edgessl.export.graph import IR_VERSION, OPSET
from edgessl.export.graphs import Graphs
from edgessl.export.samples import Samples
from edgessl.export.split import Split
from edgessl.sources import Source

UNKNOWN = "unknown"


def manifest_of(
    encoder: EncoderModule,
    facts: dict[str, Any],
    source: Source,
    samples: Samples,
    split: Split,
    graphs: Graphs,
    output: Path,
    config: ExportConfig,
) -> dict[str, Any]:
    """Everything that is known before the first file is written; the same input gives the same facts."""
    reported = {entry.name for entry in graphs.trunk.graph.output}
    function = hashlib.sha256(graphs.encoder.SerializeToString(deterministic=True)).hexdigest()
    return {
        "name": output.stem,
        # The space is named for the function that makes it: the same weights and preprocessing, the same space.
        "space_id": f"{encoder.name}-{encoder.dim}-{function[:12]}",
        "dim": encoder.dim,
        "license": config.license or str(facts.get("license") or UNKNOWN),
        "input": encoder.input.to_json(),
        "preprocessing": _preprocessing(encoder, facts),
        "pooling": str(facts.get("pooling") or getattr(encoder.pool, "kind", type(encoder.pool).__name__.strip("_"))),
        "encoder": {"name": encoder.name, "options": encoder.options},
        "split": {
            "latent": list(split.latent),
            "channel_axis": encoder.channel_axis,
            "cut": encoder.cut,
            "ports": [
                {"stage": stage, "channels": encoder.channels[stage], "products": f"port{index}.products" in reported}
                for index, stage in enumerate(encoder.ports)
            ],
        },
        "onnx": {"opset": OPSET, "ir_version": IR_VERSION},
        "golden": {"names": list(samples.golden.names)},
        "provenance": {
            "checkpoint": _placeless(facts),
            "parent": _placeless(facts.get("parent")),
            "calibration": {
                "data": Path(source.name).name,
                "frames": len(samples.names),
                "names_sha256": hashlib.sha256("\n".join(samples.names).encode()).hexdigest(),
                "samples_sha256": hashlib.sha256(samples.frames.tobytes()).hexdigest(),
                "skipped": len(source.skipped) + len(samples.quarantined),
            },
            "versions": {"torch": torch.__version__, "onnx": onnx.__version__, "numpy": np.__version__},
        },
        "parity": {},
        "rejected": {},
    }


def _placeless(value: Any) -> Any:
    """Facts without the folders of the machine that made them: a bundle travels, and its digests say what was meant."""
    if isinstance(value, dict):
        return {key: _placeless(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_placeless(each) for each in value]
    if isinstance(value, str) and (Path(value).is_absolute() or value[:1] in ("~", ".")):
        return Path(value).name
    return value


def _preprocessing(encoder: EncoderModule, facts: dict[str, Any]) -> dict[str, Any]:
    """What the graph does to a sample before the first stage."""
    stated: dict[str, Any] = dict(facts.get("preprocessing") or {})
    stated["mean"] = [round(value, 6) for value in encoder.mean.flatten().tolist()]
    stated["std"] = [round(value, 6) for value in encoder.std.flatten().tolist()]
    resize = encoder.resize
    stated["resize"] = None if resize is None else dict(getattr(resize, "facts", {}))
    return stated
