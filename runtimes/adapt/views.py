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
        mask: Largest share of a series' time that is held at the channel's mean; images have none.
    """

    gain: float = 1.3
    noise: float = 0.02
    shift: float = 0.1
    blur: float = 0.5
    mask: float = 0.1


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
    if spec.kind != "image":
        return np.asarray(_disturbed(seen, config, rng), frame.dtype)
    seen *= np.float32(config.gain ** rng.uniform(-1, 1))
    sigma = np.float32(config.noise * 255.0 * rng.random())
    seen += sigma * rng.standard_normal(seen.shape, dtype=np.float32)
    return np.asarray(np.clip(seen + 0.5, 0, 255).astype(frame.dtype))


def _disturbed(series: NDArray[np.float32], config: ViewsConfig, rng: np.random.Generator) -> NDArray[np.float32]:
    """Each channel scaled and jittered by its own spread (Um et al. 2017, arXiv:1706.00527), and a gap in all of them."""
    channels, time = series.shape
    spread = series.std(1, keepdims=True)  # channels of one sensor differ in unit and size
    series = series * (config.gain ** rng.uniform(-1, 1, (channels, 1))).astype(np.float32)
    noise = rng.standard_normal(series.shape, dtype=np.float32)
    series = series + spread * np.float32(config.noise * rng.random()) * noise
    gap = int(rng.integers(int(config.mask * time) + 1))
    start = int(rng.integers(time - gap + 1))
    series[:, start : start + gap] = series.mean(1, keepdims=True)
    return series


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
