"""What only real recordings can show. They are no part of the project: EDGESSL_DATA names a folder that holds them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgessl.metrics import knn_accuracy
from edgessl.sources import open_source


def recordings(name: str) -> Path:
    folder = os.environ.get("EDGESSL_DATA", "")
    if not folder:
        pytest.skip("EDGESSL_DATA is not set: it names a folder with real recordings")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"EDGESSL_DATA has no {name}")
    return path


@pytest.mark.slow
def test_a_robots_frames_are_read_in_the_order_they_were_taken() -> None:
    folder = recordings("donkeycar/frames")
    source = open_source(str(folder), size=(48, 64))
    assert source.names == sorted(path.name for path in folder.glob("*.jpg"))
    frames = np.concatenate([batch.frames for batch in source.batches(256)]).astype(np.float32)
    assert len(frames) == len(source)
    assert not source.skipped
    following = np.abs(np.diff(frames, axis=0)).mean()
    apart = np.abs(frames - np.roll(frames, len(frames) // 2, axis=0)).mean()
    assert following < 0.7 * apart


@pytest.mark.slow
def test_nearest_neighbours_on_raw_pixels_score_what_others_measured() -> None:
    """20-NN on 6,000 + 1,500 images, cosine of raw pixels: .273 by an independent measurement."""
    folder = recordings("cifar10")
    with np.load(next(folder.glob("*.npz"))) as arrays:
        pixels, labels = {}, {}
        for part, count in (("train", 6000), ("test", 1500)):
            content, offsets = arrays[f"jpeg_{part}"], arrays[f"off_{part}"]
            images = [Image.open(io.BytesIO(content[offsets[i] : offsets[i + 1]].tobytes())) for i in range(count)]
            pixels[part] = np.stack([np.asarray(image, np.float32).ravel() for image in images])
            labels[part] = arrays[f"y_{part}"][:count].astype(np.int64)
    accuracy = knn_accuracy(pixels["test"], labels["test"], pixels["train"], labels["train"], k=20)
    assert accuracy == pytest.approx(0.273, abs=0.03)
