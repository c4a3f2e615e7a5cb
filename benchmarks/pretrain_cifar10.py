"""SimCLR on CIFAR-10 with the small convolutional encoder: how far a quarter of an hour on two cores goes.

    EDGESSL_DATA=/path/to/data python benchmarks/pretrain_cifar10.py
    python benchmarks/pretrain_cifar10.py /path/to/data

The folder holds `cifar10/cifar10.npz`, see `cifar.py`. Writes `benchmarks/results/pretrain_cifar10.json`.

Claim: 20-NN at least 15 points above the same encoder untrained and 8 above raw pixels, in at most 15 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from cifar import cifar10

from edgessl.blocks.image_views import ImageViewConfig
from edgessl.evaluate import evaluate, raw_pixels
from edgessl.export.pays import machine
from edgessl.metrics import knn_accuracy
from edgessl.pretrain import pretrain
from edgessl.sources.arrays import ArraySource
from edgessl.trainer import Run

RESULT = Path(__file__).parent / "results" / "pretrain_cifar10.json"
BANK = 20_000
WIDTHS = (32, 64, 128, 256)
VIEWS = ImageViewConfig(
    area=(0.3, 1.0), turn_deg=0.0, contrast=(0.6, 1.4), saturation=(0.4, 1.6), gain=(0.6, 1.4), blur=0.0, noise=0.0
)


def main() -> None:
    parser = argparse.ArgumentParser(description="SimCLR on CIFAR-10, figures to benchmarks/results/.")
    parser.add_argument(
        "data", nargs="?", default=os.environ.get("EDGESSL_DATA"), help="folder with cifar10/cifar10.npz"
    )
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--train", type=int, default=50_000, help="training images")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    if given.data is None:
        parser.error("give the data folder, or set EDGESSL_DATA")
    data = Path(given.data)
    train, test = cifar10(data, "train", slice(given.train)), cifar10(data, "test")
    bank = cifar10(data, "train", slice(BANK))  # labelled neighbours
    with tempfile.TemporaryDirectory() as folder:
        output, started, worked = Path(folder) / "simclr", time.monotonic(), time.process_time()
        facts = pretrain(
            train,
            recipe="simclr",
            encoder="conv_small",
            encoder_options={"widths": list(WIDTHS)},
            recipe_options={"views": VIEWS, "temperature": 0.2},
            output=output,
            run=Run(steps=given.steps, batch=given.batch, lr=given.lr, seed=0, log_every=50),
        )
        seconds, cpu_seconds = time.monotonic() - started, time.process_time() - worked
        figures = evaluate([output], bank, test)
    trained, untrained, pixels = (row for row in figures.rows)
    learned, random, centred = (row.knn or 0.0 for row in figures.rows)
    plain = _plain_pixels(bank, test)
    result = {
        "claim": "20-NN 15 points above untrained and 8 above raw pixels, in at most 15 minutes on 2 cores",
        "holds": learned >= random + 0.15 and learned >= max(plain, centred) + 0.08 and seconds <= 900,
        "date": date.today().isoformat(),
        "machine": {"cpu": machine(), "threads": torch.get_num_threads(), "system": platform.platform()},
        "versions": facts["versions"] | {"python": platform.python_version()},
        "train_images": len(train),
        "bank_images": len(bank),
        "test_images": len(test),
        "steps": given.steps,
        "batch": given.batch,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "rows": {
            "trained": trained.to_json() | {"name": "simclr conv_small"},
            "untrained": untrained.to_json(),
            "raw_pixels": pixels.to_json() | {"note": "mean removed"},
            "raw_pixels_plain": {"knn": plain},
        },
    }
    given.result.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _plain_pixels(train: ArraySource, test: ArraySource) -> float:
    """20-NN on pixels with their mean left in, by which the set's difficulty is usually stated."""
    bank, queries = (raw_pixels(source.read(range(len(source)))[1]) for source in (train, test))
    return knn_accuracy(queries, np.asarray(test.labels), bank, np.asarray(train.labels))


if __name__ == "__main__":
    main()
