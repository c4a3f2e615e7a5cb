"""What the encoder's own world looks like, measured on the trunk that will run: the reference that adaptation returns to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from edgessl.runtimes.split import Observed

Arrays = dict[str, NDArray[Any]]
_BANK = 256  # source frames that the device compares each frame with
_WINDOW = 32  # source frames per window; they lie further apart than the device's, which are consecutive
_APART = 5  # source frames before and after one that may not be its nearest


def source_statistics(
    observed: Observed,
    products: Mapping[int, NDArray[np.float64]],
    vectors: NDArray[np.float32],
    anchors: NDArray[np.intp],
    *,
    channel_axis: int,
) -> Arrays:
    """The content of `source.safetensors`.

    Args:
        observed: What the trunk made of the calibration frames, with identity ports.
        products: Of ports that may mix channels, the mean products of two channels `(channels, channels)`.
        vectors: Their embeddings `(n, dim)`.
        anchors: Which frames to keep as anchors, as int8 latents.
        channel_axis: Axis of the channels in `observed.latents`.
    """
    source: Arrays = {"embedding.mean": vectors.mean(0), "embedding.var": vectors.var(0)}
    source["embedding.covariance"] = np.cov(vectors, rowvar=False, bias=True)
    for index, (mean, square) in enumerate(zip(observed.means, observed.squares, strict=True)):
        source[f"port{index}.mean"] = mean.mean(0)
        # Spread over positions and frames together: E[x^2] - E[x]^2.
        source[f"port{index}.var"] = np.maximum(square.mean(0) - mean.mean(0) ** 2, 0)
        if index in products:
            middle = mean.mean(0, dtype=np.float64)
            source[f"port{index}.covariance"] = products[index] - np.outer(middle, middle)
    if observed.means:
        bank = np.linspace(0, len(vectors) - 1, min(_BANK, len(vectors))).round().astype(int)
        source |= drift_reference(observed.statistic()[bank])
    latents = observed.latents
    others = tuple(axis for axis in range(latents.ndim) if axis != channel_axis)
    scale = np.maximum(np.abs(latents).max(others), 1e-6) / 127
    shape = [1] * latents.ndim
    shape[channel_axis] = -1
    source["latent.scale"] = scale
    source["anchor.latents"] = np.clip(np.rint(latents[anchors] / scale.reshape(shape)), -127, 127).astype(np.int8)
    source["anchor.vectors"] = vectors[anchors]
    return {
        name: np.ascontiguousarray(value if value.dtype == np.int8 else value.astype(np.float32))
        for name, value in source.items()
    }


def drift_reference(statistic: NDArray[np.float64]) -> Arrays:
    """What the device needs to tell a shift from a new scene: mean, whitening, a bank of frames, and a threshold.

    Scenes differ more from each other than a scene from itself at night, so distance to the source's mean says little.
    What a shift of sensor or light does is move every frame the same way. The device therefore averages, over a window of
    frames, the displacement of each from its nearest source frame: scenes cancel out, a shift stays.

    The threshold is twice the largest window of the source's own frames, each scored against the bank without the frames
    around it, so that none finds itself; window and factor are ours.

    Args:
        statistic: Of the source's frames, in their order, as `Observed.statistic` gives them.
    """
    mean, whiten = _whitening(statistic)
    bank = (statistic - mean) @ whiten.T  # (n, k)
    squared = np.square(bank).sum(1)
    distance = squared[:, None] + squared[None] - 2 * bank @ bank.T
    order = np.arange(len(bank))
    distance[np.abs(order[:, None] - order[None]) <= min(_APART, len(bank) // 8)] = np.inf
    displacement = bank - bank[distance.argmin(1)]
    window = min(_WINDOW, len(bank))
    starts = range(0, len(bank) - window + 1, max(1, window // 8))
    largest = max(np.square(displacement[start : start + window].mean(0)).mean() for start in starts)
    return {"drift.mean": mean, "drift.whiten": whiten, "drift.bank": bank, "drift.threshold": np.asarray(2 * largest)}


def _whitening(statistic: NDArray[np.float64], shrinkage: float = 0.005) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean `(d,)` and whitening `(d, d)`, the covariance shrunk towards its diagonal.

    Any `W` with `W C W' = 1` gives the same distances; the inverse of the Cholesky factor takes a fifth of the time of axes.
    """
    mean = statistic.mean(0)
    covariance = np.cov(statistic, rowvar=False)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.diag(np.diag(covariance))
    factor = np.linalg.cholesky(covariance + 1e-6 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
    return mean, solve_triangular(factor, np.eye(len(factor)), lower=True, check_finite=False)
