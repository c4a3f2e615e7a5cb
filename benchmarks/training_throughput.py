"""Images per second of our SimCLR training beside a loop written as lightly's SimCLR example is.

    python benchmarks/training_throughput.py IMAGES.npz --threads 2 --workers 0

Both train the same encoder (conv_small, 32x32) with the same head, loss, batch and AdamW, in fp32. Lightly's loop draws its views
with `SimCLRTransform` on PIL images in a `DataLoader`, ours on whole batches of tensors, with strengths set as lightly's are:
colour jitter, grey, blur off at this size, crop and flip. The two take turns in one process; a round's figure leaves out the
first steps. The source's images are in memory for both.

Claim: ours is at least as fast.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from edgessl.blocks.image_views import ImageViewConfig
from edgessl.encoders import build_encoder
from edgessl.export.pays import machine
from edgessl.loop import TrainingModule
from edgessl.recipes import build_recipe
from edgessl.signals import image_spec
from edgessl.sources import open_source
from edgessl.sources.arrays import ArraySource
from edgessl.trainer import Run, seeded, train
from edgessl.vision import vision_module

RESULT = Path(__file__).parent / "results" / "training_throughput.json"
SIZE, SKIP, LR = 32, 3, 1e-3
#: Lightly's: crop 0.08 to 1, flip 0.5, jitter 0.8 in 0.8 of the views, grey 0.2; its blur is switched off on small images.
VIEWS = ImageViewConfig(
    area=(0.08, 1.0),
    turn_deg=0,
    flip=0.5,
    light=0.8,
    contrast=(0.2, 1.8),
    saturation=(0.2, 1.8),
    grey=0.2,
    blur=0,
    noise=0,
)


class Pictures(Dataset[Any]):
    """PIL images -> two views, as lightly's datasets give them."""

    def __init__(self, frames: NDArray[np.uint8]) -> None:
        transforms = vision_module("lightly.transforms")
        self._frames = frames
        self._views = transforms.SimCLRTransform(input_size=SIZE, gaussian_blur=0.0, cj_strength=1.0)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Any:
        return self._views(Image.fromarray(self._frames[index]))


class Example(nn.Module):
    """Backbone and projection head, as in lightly's example."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_encoder("conv_small", image_spec(SIZE, SIZE))
        heads = vision_module("lightly.models.modules")
        self.head = heads.SimCLRProjectionHead(self.backbone.dim, 256, 128)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.head(self.backbone.features(images))
        return projected


def lightlys(frames: NDArray[np.uint8], *, batch: int, steps: int, workers: int) -> float:
    """Images per second of the plain loop."""
    with seeded(0):
        model = Example().train()
    loader = DataLoader(Pictures(frames), batch_size=batch, shuffle=True, drop_last=True, num_workers=workers)
    criterion = vision_module("lightly.loss").NTXentLoss(temperature=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=1e-4)
    done, started = 0, 0.0
    while done < steps:
        for x0, x1 in loader:
            if done == SKIP:
                started = time.perf_counter()
            loss = criterion(model(x0), model(x1))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            if done == steps:
                break
    return (steps - SKIP) * batch / (time.perf_counter() - started)


def ours(frames: NDArray[np.uint8], *, batch: int, steps: int, workers: int) -> float:
    """Images per second of `edgessl pretrain --recipe simclr`, from the end of the first steps to that of the last."""
    times: list[float] = []
    original = TrainingModule.on_train_batch_end

    def noted(self: TrainingModule, *rest: Any) -> None:
        original(self, *rest)
        times.append(time.perf_counter())

    source = ArraySource("frames", frames, image_spec(SIZE, SIZE), [f"{index}" for index in range(len(frames))])
    with seeded(0):
        recipe = build_recipe("simclr", build_encoder("conv_small", source.spec), views=VIEWS)
    TrainingModule.on_train_batch_end = noted  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = Run(steps=steps, batch=batch, lr=LR, workers=workers, progress=False, accelerator="cpu")
            train(recipe, source, output=Path(folder) / "out", run=run, facts={})
    finally:
        TrainingModule.on_train_batch_end = original  # type: ignore[method-assign]
    return (steps - SKIP) * batch / (times[-1] - times[SKIP - 1])


def main() -> None:
    """Measure in turns, print, and write the result."""
    parser = argparse.ArgumentParser(description="SimCLR: our images per second over those of lightly's example loop.")
    parser.add_argument("data", help="folder of images, or an .npz file; resized to 32x32")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=0, help="of lightly's loader; ours reads from memory")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    source = open_source(given.data, size=(SIZE, SIZE))
    frames = source.read(np.arange(min(given.images, len(source))))[1]
    loops: dict[str, Callable[..., float]] = {"ours": ours, "lightly": lightlys}
    numbers = {"batch": given.batch, "steps": given.steps, "workers": given.workers}
    rounds = [{name: loop(frames, **numbers) for name, loop in loops.items()} for _ in range(given.rounds)]
    ratios = [each["ours"] / each["lightly"] for each in rounds]
    result = {
        "claim": "our training is at least as fast as lightly's example loop",
        "holds": statistics.median(ratios) >= 1.0,
        "date": date.today().isoformat(),
        "machine": {"cpu": machine(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {name: vision_module(name).__version__ for name in ("torch", "lightly", "torchvision")},
        "images": len(frames),
        **numbers,
        "threads": given.threads,
        "images_per_second": {name: round(statistics.median(each[name] for each in rounds), 1) for name in loops},
        "ratio": {"median": round(statistics.median(ratios), 3), "rounds": [round(ratio, 3) for ratio in ratios]},
    }
    given.result.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
