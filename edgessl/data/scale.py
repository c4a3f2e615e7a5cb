"""What scale a source's channels have: encoders of series divide by it, and have no other way to know it."""

from __future__ import annotations

import numpy as np

from edgessl.sources import Source


def channel_scale(source: Source) -> dict[str, list[float]]:
    """`mean` and `std` of each channel of a source of series `(channels, time)`, as the encoders take them.

    A channel that stands still gets a deviation of 1.
    """
    count, total, square = 0, np.zeros(()), np.zeros(())
    for batch in source.batches(256):
        series = batch.frames.astype(np.float64)
        series = np.where(np.isfinite(series), series, 0.0)
        count += series.shape[0] * series.shape[2]
        total, square = total + series.sum((0, 2)), square + (series**2).sum((0, 2))
    mean = total / max(count, 1)
    std = np.sqrt(np.maximum(square / max(count, 1) - mean**2, 0))
    return {"mean": mean.tolist(), "std": np.where(std > 0, std, 1.0).tolist()}
