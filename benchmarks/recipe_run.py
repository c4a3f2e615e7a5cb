"""One training for `recipes.py`, in a process of its own; its row goes to stdout as JSON.

python benchmarks/recipe_run.py /path/to/data simclr image 0
python benchmarks/recipe_run.py /path/to/data simclr image 0 --control
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from cifar import cifar10
from imu import imu
from recipe_settings import settings_of

from edgessl.check import Contender, embedded
from edgessl.data.scale import channel_scale
from edgessl.encoders import EncoderModule
from edgessl.evaluation.probes import probed
from edgessl.metrics import rankme
from edgessl.sources.arrays import ArraySource
from edgessl.trainer import Run

BANK, RANK_SAMPLES = 10_000, 2048


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a recipe once and probe the encoder before and after.")
    parser.add_argument("data", type=Path)
    parser.add_argument("recipe")
    parser.add_argument("kind", choices=["image", "series"])
    parser.add_argument("seed", type=int)
    parser.add_argument("--control", action="store_true", help="views unpaired; the untrained encoder is left out")
    parser.add_argument("--steps", type=int, help="in place of the table's")
    parser.add_argument("--train", type=int, default=50_000, help="training images")
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = settings_of(given.recipe, given.kind)
    train, bank, test = sources(given.data, given.kind, given.train)
    scale = channel_scale(train) if given.kind == "series" else {}
    run = Run(
        steps=given.steps or settings.steps,
        batch=settings.batch,
        lr=settings.lr,
        precision=settings.precision,
        accelerator="cpu",
        devices=1,
        save_every=1000,
        log_every=50,
        progress=False,
    )
    contender = Contender(
        recipe=given.recipe,
        encoder=settings.encoder,
        run=run,
        recipe_options=settings.recipe_options,
        encoder_options=scale | settings.encoder_options,
    )
    row: dict[str, Any] = {"seed": given.seed}
    if not given.control:
        row["untrained"] = figures(contender.begin(train, given.seed), bank, test)
    started = time.monotonic()
    encoder, facts = contender.trained(train, given.seed, paired=not given.control)
    row["seconds"] = round(time.monotonic() - started, 1)
    row |= {name: facts[name] for name in ("steps", "batch", "lr", "weight_decay", "loss", "figures", "versions")}
    row["control" if given.control else "trained"] = figures(encoder, bank, test)
    json.dump(row, sys.stdout)


def sources(data: Path, kind: str, train: int) -> tuple[ArraySource, ArraySource, ArraySource]:
    """What a recipe learns from without labels, what the probes learn from, and what they are tested on."""
    if kind == "series":
        windows = imu(data, "train")
        return windows, windows, imu(data, "test")
    return cifar10(data, "train", slice(train)), cifar10(data, "train", slice(BANK)), cifar10(data, "test")


def figures(encoder: EncoderModule, bank: ArraySource, test: ArraySource) -> dict[str, float]:
    """20-NN, linear probe and macro-F1 of the test samples, and the effective rank of their vectors."""
    known, (vectors, labels) = embedded(encoder, bank), embedded(encoder, test)
    found = asdict(probed(*known, vectors, labels)) | {"rank": rankme(vectors[:RANK_SAMPLES])}
    return {name: round(value, 4) for name, value in found.items()}


if __name__ == "__main__":
    main()
