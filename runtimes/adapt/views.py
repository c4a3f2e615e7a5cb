"""Two views of what the sensor gave, made in numpy when a frame is admitted; the frame itself is never kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.signals import InputSpec


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """How far a view goes from its frame.

    Attributes:
        gain: Largest change of brightness or amplitude, as a factor.
        noise: Largest standard deviation of added noise: share of full scale for images, of the sample's own spread for
            series.
        shift: Largest step along each axis of space or time, as a share of its length.
        blur: Probability of smoothing over three neighbours.
    """

    gain: float = 1.3
    noise: float = 0.02
    shift: float = 0.1
    blur: float = 0.5


def view(frames: NDArray[Any], spec: InputSpec, config: ViewsConfig, rng: np.random.Generator) -> NDArray[Any]:
    """One view of each of `frames` `(batch, *sample)`, of the same dtype and shape."""
    axes = (0, 1) if spec.kind == "image" else (1,)
    return np.stack([_one(frame, axes, spec, config, rng) for frame in frames])


def _one(
    frame: NDArray[Any], axes: tuple[int, ...], spec: InputSpec, config: ViewsConfig, rng: np.random.Generator
) -> NDArray[Any]:
    seen = frame.astype(np.float32)
    for axis in axes:
        seen = _shifted(seen, axis, config.shift, rng)
    if rng.random() < config.blur:
        for axis in axes:
            seen = _smoothed(seen, axis)
    seen *= np.float32(config.gain ** rng.uniform(-1, 1))
    scale = 255.0 if spec.kind == "image" else float(frame.std())
    sigma = np.float32(config.noise * scale * rng.random())
    seen += sigma * rng.standard_normal(seen.shape, dtype=np.float32)
    if spec.kind == "image":
        seen = np.clip(seen + 0.5, 0, 255)
    return seen.astype(frame.dtype)


def _shifted(frame: NDArray[np.float32], axis: int, share: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Moved along an axis; what comes in repeats the edge."""
    length = frame.shape[axis]
    reach = int(share * length)
    step = int(rng.integers(-reach, reach + 1))
    return np.take(frame, np.clip(np.arange(length) + step, 0, length - 1), axis=axis)


def _smoothed(frame: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    last = frame.shape[axis] - 1
    at = np.arange(last + 1)
    left = np.take(frame, np.maximum(at - 1, 0), axis=axis)
    right = np.take(frame, np.minimum(at + 1, last), axis=axis)
    return np.asarray((left + 2 * frame + right) / 4, np.float32)
