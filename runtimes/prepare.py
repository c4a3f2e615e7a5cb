"""Frames as the first convolution reads them, on numpy: for statistics, which need no graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def prepared(frames: NDArray[np.uint8], source: Mapping[str, NDArray[Any]]) -> Floats:
    """`(batch, height, width, 3)` uint8 -> `(batch, 3, *size)`, at the encoder's size and scale.

    Args:
        frames: As the camera gives them.
        source: Tensors of the bundle's `source` file: `prepare.mean` and `prepare.std` `(3,)`, and, where the camera's size is
            not the encoder's, `prepare.rows` `(size, height)` and `prepare.columns` `(size, width)`.
    """
    images = frames.transpose(0, 3, 1, 2).astype(np.float32) / 255
    if "prepare.rows" in source:
        images = source["prepare.rows"] @ images @ source["prepare.columns"].T
    mean, std = (source[f"prepare.{part}"].reshape(-1, 1, 1) for part in ("mean", "std"))
    return np.asarray((images - mean) / std, np.float32)
