"""What the encoder's own world looks like, measured on the trunk that will run: the reference that adaptation returns to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.split import Observed

Arrays = dict[str, NDArray[Any]]
BLOCK = 16  #: consecutive frames whose drift scores the device averages


def source_statistics(
    observed: Observed, vectors: NDArray[np.float32], anchors: NDArray[np.intp], *, channel_axis: int
) -> Arrays:
    """The content of `source.safetensors`.

    Args:
        observed: What the trunk made of the calibration frames, with identity ports.
        vectors: Their embeddings `(n, dim)`.
        anchors: Which frames to keep as anchors, as int8 latents.
        channel_axis: Axis of the channels in `observed.latents`.
    """
    source: Arrays = {"embedding.mean": vectors.mean(0), "embedding.var": vectors.var(0)}
    for index, (mean, square) in enumerate(zip(observed.means, observed.squares, strict=True)):
        source[f"port{index}.mean"] = mean.mean(0)
        # Spread over positions and frames together: E[x^2] - E[x]^2.
        source[f"port{index}.var"] = np.maximum(square.mean(0) - mean.mean(0) ** 2, 0)
    if observed.means:
        source |= drift_reference(frame_statistic(observed.means[0], observed.squares[0]))
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


def frame_statistic(mean: NDArray[Any], square: NDArray[Any]) -> NDArray[np.float64]:
    """Per frame: channel means, and logarithms of channel spreads, before the first port. `(n, 2 channels)`."""
    spread = np.sqrt(np.maximum(square - mean**2, 1e-8))
    return np.concatenate([mean, np.log(spread)], axis=1).astype(np.float64)


def drift_reference(statistic: NDArray[np.float64]) -> Arrays:
    """Mean, whitening and threshold for the device's drift score `|W (s - mean)|^2 / k`.

    The threshold is cross-fitted: each half of the frames is scored in blocks by the reference of the other half, so that
    it says what an unseen but unshifted block scores; the device alarms at three times the largest such block (ours).
    """
    half = len(statistic) // 2
    largest = 0.0
    for fit, held in ((statistic[:half], statistic[half:]), (statistic[half:], statistic[:half])):
        mean, whiten = _whitening(fit)
        scores = np.square((held - mean) @ whiten.T).mean(1)
        blocks = [scores[start : start + BLOCK].mean() for start in range(0, len(scores), BLOCK)]
        largest = max(largest, *blocks)
    mean, whiten = _whitening(statistic)
    return {"drift.mean": mean, "drift.whiten": whiten, "drift.threshold": np.asarray(3.0 * largest)}


def _whitening(statistic: NDArray[np.float64], shrinkage: float = 0.05) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean `(d,)` and whitening `(d, d)`, the covariance shrunk towards its diagonal."""
    mean = statistic.mean(0)
    covariance = np.cov(statistic, rowvar=False)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.diag(np.diag(covariance))
    values, axes = np.linalg.eigh(covariance + 1e-6 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
    return mean, (axes / np.sqrt(values)).T
