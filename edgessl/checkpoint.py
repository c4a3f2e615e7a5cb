"""A trained encoder on disk: a folder with `encoder.safetensors` and `encoder.json`. No pickle, ever.

An encoder that learned with its activations rounded has their ranges beside it, in `quantization.safetensors`; its
weights are fp32 as any other's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model

import edgessl
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import CheckpointError
from edgessl.files import sha256_of, write_atomic
from edgessl.signals import InputSpec

FORMAT = 1
WEIGHTS, FACTS, RANGES = "encoder.safetensors", "encoder.json", "quantization.safetensors"


def write_checkpoint(
    folder: Path, encoder: EncoderModule, facts: dict[str, Any], ranges: Mapping[str, tuple[float, float]] | None = None
) -> None:
    """Write `encoder` into `folder`, which exists; see `files.atomic_folder` for a folder that is whole or absent.

    Args:
        folder: Where the two files go.
        encoder: Made by `build_encoder`, so that its name and options rebuild it.
        facts: What is worth knowing later, as plain values: recipe, steps, data digest.
        ranges: `input.MODULE` and `output.MODULE` -> smallest and largest value, of an encoder that learned with its
            activations rounded.
    """
    temporary = folder / f".{WEIGHTS}.partial"
    save_model(encoder, str(temporary))
    temporary.replace(folder / WEIGHTS)
    content = {
        "format": FORMAT,
        "edgessl": edgessl.__version__,
        "encoder": {"name": encoder.name, "options": encoder.options, "dim": encoder.dim},
        "input": encoder.input.to_json(),
        "weights_sha256": sha256_of(folder / WEIGHTS),
        **facts,
    }
    if ranges:
        save_file({name: torch.tensor(pair) for name, pair in ranges.items()}, folder / RANGES)
        digest = {"file": RANGES, "sha256": sha256_of(folder / RANGES)}
        content["quantization"] = {**facts.get("quantization", {}), **digest}
    write_atomic(folder / FACTS, (json.dumps(content, indent=2) + "\n").encode())


def read_facts(folder: Path) -> dict[str, Any]:
    """What `encoder.json` says.

    Raises:
        CheckpointError: There is no checkpoint in `folder`, or a newer version wrote it.
    """
    path = folder / FACTS
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder} holds no checkpoint ({WEIGHTS} and {FACTS}); type: "
            "edgessl pretrain DATA --recipe simclr --encoder conv_small -o NEW_FOLDER"
        )
    try:
        facts = json.loads(path.read_text())
        written, _ = int(facts["format"]), facts["encoder"]["name"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}. Write the checkpoint again") from error
    if written > FORMAT:
        raise CheckpointError(
            f"{path} has format {written}, newer than {FORMAT}, which this edgessl {edgessl.__version__} reads; "
            "type: pip install -U edgessl"
        )
    return dict(facts)


def read_ranges(folder: Path) -> dict[str, tuple[float, float]]:
    """Ranges that the encoder of a checkpoint learned with: `input.MODULE` or `output.MODULE` -> (low, high).

    The output of a convolution is that of the ReLU that alone reads it, where there is one; its range begins at 0.
    Empty where the encoder learned in float.

    Raises:
        CheckpointError: Missing, damaged, or from a newer version.
    """
    quantization = read_facts(folder).get("quantization")
    if not quantization:
        return {}
    path = folder / RANGES
    if not path.is_file() or sha256_of(path) != quantization.get("sha256"):
        raise CheckpointError(f"{path} changed after it was written, or is missing; restore it, or train again")
    try:
        low_high = {name: pair.tolist() for name, pair in load_file(path).items()}
        return {name: (float(low), float(high)) for name, (low, high) in low_high.items()}
    except (SafetensorError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}. Train again") from error


def read_checkpoint(folder: Path) -> tuple[EncoderModule, dict[str, Any]]:
    """Rebuild the encoder of a checkpoint, in eval mode, with its facts.

    Raises:
        CheckpointError: Missing, damaged, or from a newer version.
    """
    facts = read_facts(folder)
    weights = folder / WEIGHTS
    if sha256_of(weights) != facts.get("weights_sha256"):
        raise CheckpointError(f"{weights} changed after it was written; restore it, or train again")
    built = facts["encoder"]
    # Weights come from the file: a checkpoint of a downloaded model needs no network.
    options = {key: value for key, value in built["options"].items() if key != "pretrained"}
    encoder = build_encoder(built["name"], InputSpec.from_json(facts["input"]), **options)
    encoder.options = dict(built["options"])
    try:
        load_model(encoder, str(weights))
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{weights} does not fit encoder {built['name']!r}: {error}") from error
    return encoder.eval(), facts
