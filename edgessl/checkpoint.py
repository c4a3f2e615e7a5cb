"""A trained encoder on disk: a folder with `encoder.safetensors` and `encoder.json`. No pickle, ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

import edgessl
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import CheckpointError
from edgessl.files import sha256_of, write_atomic
from edgessl.signals import InputSpec

FORMAT = 1
WEIGHTS, FACTS = "encoder.safetensors", "encoder.json"


def write_checkpoint(folder: Path, encoder: EncoderModule, facts: dict[str, Any]) -> None:
    """Write `encoder` into `folder`, which exists; see `files.atomic_folder` for a folder that is whole or absent.

    Args:
        folder: Where the two files go.
        encoder: Made by `build_encoder`, so that its name and options rebuild it.
        facts: What is worth knowing later, as plain values: recipe, steps, data digest.
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
