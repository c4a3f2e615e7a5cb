"""How many images per second reach the training loop, from memory and from files, by number of workers?

    python benchmarks/data_loading.py FOLDER_OR_NPZ

The first images of the source are written as JPEG files into a temporary folder; then batches are drawn as training draws
them, through the same schedule and loader. Figures only: how many are enough depends on the device that they are for.
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
from PIL import Image
from torch.utils.data import DataLoader

import edgessl
from edgessl.data.frames import MEMORY_LIMIT_BYTES, FrameBatches, as_it_is
from edgessl.data.schedule import StepSchedule
from edgessl.export.pays import machine
from edgessl.sources import Source, open_source

RESULT = Path(__file__).parent / "results" / "data_loading.json"


def write_jpegs(source: Source, folder: Path, count: int) -> None:
    """The first `count` images as JPEG files of quality 90."""
    _, frames = source.read(np.arange(min(count, len(source))))
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:06d}.jpg", quality=90)


def images_per_second(source: Source, *, batch: int, steps: int, workers: int | None) -> float:
    """Of `steps` batches, after the first one; from memory where `workers` is None."""
    frames = FrameBatches(source, memory_limit_bytes=MEMORY_LIMIT_BYTES if workers is None else 0)
    loader = DataLoader(
        frames,
        batch_size=None,
        sampler=StepSchedule(len(frames), batch=batch, seed=0, chunk=steps + 1),
        collate_fn=as_it_is,
        num_workers=workers or 0,
    )
    batches = iter(loader)
    next(batches)
    started = time.perf_counter()
    count = sum(len(images) for images, *_ in batches)
    return count / (time.perf_counter() - started)


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description="Images per second into the training loop.")
    parser.add_argument("data", help="folder of images, or an .npz file")
    parser.add_argument("--size", type=int, default=0, help="frames are resized to this; 0 keeps their size")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    size = (given.size, given.size) if given.size else None
    with tempfile.TemporaryDirectory() as name:
        write_jpegs(open_source(given.data, size=size), Path(name), given.count)
        files = open_source(name, size=size)
        ways: dict[str, int | None] = {"memory": None} | {f"workers {count}": count for count in given.workers}
        rounds = [
            {way: images_per_second(files, batch=given.batch, steps=given.steps, workers=w) for way, w in ways.items()}
            for _ in range(given.rounds)
        ]
        shape = list(files.spec.shape)
    result = {
        "claim": None,
        "date": date.today().isoformat(),
        "machine": {"cpu": machine(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"edgessl": edgessl.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "images": given.count,
        "shape": shape,
        "batch": given.batch,
        "images_per_second": {way: round(float(np.median([each[way] for each in rounds]))) for way in ways},
    }
    given.result.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
