"""Two random views of each sample, as the sensor would give them, for any encoder that takes samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgessl.blocks.views import USUAL_VIEWS, random_view
from edgessl.signals import InputSpec

_AT_ONCE = 64


def two_views(frames: NDArray[Any], spec: InputSpec, *, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two views of each sample, `(n, *sample)` each in the sample's dtype, by the usual views of its kind.

    Every encoder is asked about the same views, whatever it was trained with.

    Args:
        frames: `(n, *sample)`.
        spec: What one sample is.
        seed: Of the views.
    """
    generator = torch.Generator().manual_seed(seed)
    views: tuple[list[NDArray[Any]], ...] = ([], [])
    for start in range(0, len(frames), _AT_ONCE):
        samples = torch.from_numpy(np.ascontiguousarray(frames[start : start + _AT_ONCE])).float()
        if spec.kind == "image":
            samples = samples.permute(0, 3, 1, 2) / 255
        for view in views:
            made = random_view(samples, generator, USUAL_VIEWS[spec.kind])
            if spec.kind == "image":
                made = (made * 255).round().permute(0, 2, 3, 1)
            view.append(made.numpy().astype(spec.dtype))
    return np.concatenate(views[0]), np.concatenate(views[1])
