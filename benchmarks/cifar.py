"""CIFAR-10 as JPEG files in one `.npz`, which several benchmarks look at.

`cifar10/cifar10.npz` in the data folder holds `jpeg_train`, `off_train`, `y_train` and the same for `test`, where image `i`
is the JPEG file `jpeg[off[i]:off[i + 1]]`.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from edgessl.signals import image_spec
from edgessl.sources.arrays import ArraySource


def cifar10(data: Path, split: str, part: slice = slice(None), *, size: tuple[int, int] | None = None) -> ArraySource:
    """Some images of a split with their labels; they are shuffled already.

    Args:
        data: The data folder.
        split: `train` or `test`.
        part: Which of them.
        size: Height and width that they are resized to; their own 32x32 when None.
    """
    with np.load(data / "cifar10" / "cifar10.npz", allow_pickle=False) as file:
        jpeg, offsets, labels = file[f"jpeg_{split}"], file[f"off_{split}"], file[f"y_{split}"]
    chosen = range(len(labels))[part]
    files = (BytesIO(jpeg[offsets[index] : offsets[index + 1]].tobytes()) for index in chosen)
    frames = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    names = [f"{split}/{index:05d}" for index in chosen]
    spec = image_spec(*frames.shape[1:3])
    return ArraySource(f"cifar10 {split}", frames, spec, names, labels=labels[part].astype(np.int64), size=size)
