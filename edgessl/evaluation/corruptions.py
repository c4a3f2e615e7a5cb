"""What goes wrong with a sensor, at one strength each: samples as the sensor gives them, in and out.

For a first look at robustness, and none of it needs a label. The kinds are the usual ones (Hendrycks & Dietterich 2019,
arXiv:1903.12261, for images); the few here, and their strengths, are ours.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from edgessl.signals import SERIES

Corrupt = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]

IMAGE_NOISE = 0.1  # standard deviation, full scale 1
IMAGE_BLUR = 1 / 32  # standard deviation, as a share of the short side
IMAGE_GAIN = 0.35
IMAGE_CONTRAST = 0.3
JPEG_QUALITY = 20
SERIES_NOISE = 0.5  # standard deviation, as a share of the channel's
SERIES_GAIN = (0.5, 2.0)
SERIES_SHIFT = 0.25  # of the window, either way, at most


def corruptions(kind: str) -> dict[str, Corrupt]:
    """Corruptions of a kind of sample, by name: `(samples, generator) -> samples`, same shape and dtype."""
    return SERIES_CORRUPTIONS if kind in SERIES else IMAGE_CORRUPTIONS


def noisy_images(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The noise of a sensor that gets little light, drawn for every value."""
    return _rounded(frames + 255 * IMAGE_NOISE * rng.standard_normal(frames.shape, np.float32))


def blurred_images(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Out of focus: Pillow's Gaussian blur."""
    blur = ImageFilter.GaussianBlur(IMAGE_BLUR * min(frames.shape[1:3]))
    return np.stack([np.asarray(Image.fromarray(frame).filter(blur)) for frame in frames])


def dark_images(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Less light on the same exposure."""
    return _rounded(frames * np.float32(IMAGE_GAIN))


def flat_images(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Haze: each channel drawn towards its mean over the image."""
    mean = frames.mean((1, 2), np.float32, keepdims=True)
    return _rounded(mean + IMAGE_CONTRAST * (frames - mean))


def compressed_images(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Saved by Pillow as a poor JPEG and read again."""
    read = np.empty_like(frames)
    for place, frame in enumerate(frames):
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=JPEG_QUALITY)
        read[place] = np.asarray(Image.open(file))
    return read


def noisy_series(series: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise as a share of each channel's spread over all windows."""
    spread = series.std((0, 2), keepdims=True)
    return np.asarray(series + np.float32(SERIES_NOISE) * spread * rng.standard_normal(series.shape, np.float32))


def dropped_series(series: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """One channel of each window says nothing: it stays at its mean over all windows."""
    windows = np.arange(len(series))
    channel = rng.integers(0, series.shape[1], len(series))
    left: NDArray[np.float32] = series.copy()
    left[windows, channel] = series.mean((0, 2))[channel][:, None]
    return left


def scaled_series(series: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A wrong calibration: each channel of each window times a factor, drawn evenly on a logarithmic scale."""
    low, high = np.log(SERIES_GAIN)
    return np.asarray(series * np.exp(rng.uniform(low, high, (*series.shape[:2], 1))).astype(np.float32))


def shifted_series(series: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Cut out too early or too late; past the end the last value is held."""
    most = max(1, round(SERIES_SHIFT * series.shape[2]))
    late = rng.integers(-most, most + 1, (len(series), 1))
    at = np.clip(np.arange(series.shape[2]) + late, 0, series.shape[2] - 1)  # (n, time)
    return np.take_along_axis(series, at[:, None], 2)


IMAGE_CORRUPTIONS: dict[str, Corrupt] = {
    "noise": noisy_images,
    "blur": blurred_images,
    "dark": dark_images,
    "contrast": flat_images,
    "jpeg": compressed_images,
}
SERIES_CORRUPTIONS: dict[str, Corrupt] = {
    "noise": noisy_series,
    "drop": dropped_series,
    "gain": scaled_series,
    "shift": shifted_series,
}


def _rounded(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
