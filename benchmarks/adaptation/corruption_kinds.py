"""What each CIFAR-10-C-style corruption does to images of 32 pixels; `corruptions.py` has the constants and the differences.

Each function takes its constants in the table's order, then images in 0..1 `(n, 32, 32, 3)` and a generator, and may
leave 0..1.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Images = NDArray[np.float32]  # (n, 32, 32, 3) in 0..1

SIDE = 32
_LUMA = np.float32([0.299, 0.587, 0.114])  # ITU-R BT.601


def gaussian_noise(sigma: float, x: Images, rng: Generator) -> Images:
    return x + sigma * rng.standard_normal(x.shape, np.float32)


def shot_noise(scale: float, x: Images, rng: Generator) -> Images:
    return rng.poisson(x * scale).astype(np.float32) / scale


def impulse_noise(amount: float, x: Images, rng: Generator) -> Images:
    drawn = rng.random(x.shape, np.float32)  # each channel for itself
    return np.where(drawn < amount, drawn < amount / 2, x)


def speckle_noise(sigma: float, x: Images, rng: Generator) -> Images:
    return x * (1 + sigma * rng.standard_normal(x.shape, np.float32))


def gaussian_blur(sigma: float, x: Images, rng: Generator) -> Images:
    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")


def defocus_blur(radius: float, alias: float, x: Images, rng: Generator) -> Images:
    return ndimage.correlate(x, disk_kernel(radius, alias)[None, :, :, None], mode="mirror")


def glass_blur(sigma: float, shift: int, rounds: int, x: Images, rng: Generator) -> Images:
    x = gaussian_blur(sigma, x, rng)
    inner = np.arange(shift + 1, SIDE - shift + 1)  # as published: one row and column more at the far side
    for _ in range(rounds):
        down, right = rng.integers(-shift, shift, (2, len(x), len(inner), len(inner)))  # 0 or towards the upper left
        x[:, inner[0] :, inner[0] :] = x[_frame(x), inner[:, None] + down, inner + right]
    return gaussian_blur(sigma, x, rng)


def motion_blur(radius: float, sigma: float, x: Images, rng: Generator) -> Images:
    return _along(x, rng.uniform(-45, 45, len(x)), line_weights(radius, sigma))


def zoom_blur(end: float, x: Images, rng: Generator) -> Images:
    zooms = 1 + 0.01 * np.arange(round((end - 1) / 0.01))  # the end is left out
    lines = [_zoom_weights(1.0), *map(_zoom_weights, zooms)]  # the image itself counts once more
    weights = sum(np.kron(line, line) for line in lines) / np.float32(len(lines))  # (1024 out, 1024 in)
    blurred = np.tensordot(x.reshape(len(x), -1, 3), weights, (1, 1))  # (n, 3, 1024)
    return np.moveaxis(blurred, 1, 2).reshape(x.shape)


def snow(
    mean: float,
    std: float,
    zoom: float,
    least: float,
    radius: float,
    sigma: float,
    mix: float,
    x: Images,
    rng: Generator,
) -> Images:
    line = _zoom_weights(zoom)
    layer = line @ (mean + std * rng.standard_normal(x.shape[:3], np.float32)) @ line.T
    layer = np.where(layer < least, 0, layer.clip(0, 1))[..., None]
    layer = _along(layer, rng.uniform(-135, -45, len(x)), line_weights(radius, sigma))
    pale = np.maximum(x, (x @ _LUMA)[..., None] * 1.5 + 0.5)
    return mix * x + (1 - mix) * pale + layer + np.rot90(layer, 2, (1, 2))


def frost(image: float, ice: float, x: Images, rng: Generator) -> Images:
    veil, crystals = plasma(len(x), 1.8, rng), plasma(len(x), 1.4, rng)
    ridges = (1 - np.abs(2 * crystals - 1)) ** 3
    texture = (0.2 + 0.4 * veil + 0.6 * ridges).clip(0, 1)[..., None] * np.float32([0.82, 0.92, 1.0])
    return image * x + ice * texture


def fog(weight: float, decay: float, x: Images, rng: Generator) -> Images:
    brightest = x.max((1, 2, 3), keepdims=True)
    return (x + weight * plasma(len(x), decay, rng)[..., None]) * brightest / (brightest + weight)


def brightness(more: float, x: Images, rng: Generator) -> Images:
    value = x.max(3, keepdims=True)
    brighter = (value + more).clip(0, 1)  # hue and saturation stay: all channels by one factor; black becomes grey
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)


def saturate(factor: float, more: float, x: Images, rng: Generator) -> Images:
    value, spread = x.max(3, keepdims=True), np.ptp(x, 3)[..., None]
    saturation = spread / np.where(value > 0, value, 1)
    # How far each channel is from V, as a share of the farthest; grey has hue 0, so it turns red, as in HSV code.
    share = np.where(spread > 0, (value - x) / np.where(spread > 0, spread, 1), np.float32([0, 1, 1]))
    return value * (1 - share * (saturation * factor + more).clip(0, 1))


def contrast(factor: float, x: Images, rng: Generator) -> Images:
    mean = x.mean((1, 2), keepdims=True)
    return (x - mean) * factor + mean


def elastic_transform(alpha: float, sigma: float, jitter: float, x: Images, rng: Generator) -> Images:
    middle, arm = SIDE // 2, SIDE // 3
    corners = np.array([[arm, arm], [arm, -arm], [-arm, -arm]]) + middle
    moved = corners + SIDE * jitter * rng.uniform(-1, 1, (len(x), 3, 2))
    homogeneous = np.dstack([moved, np.ones((len(x), 3, 1))])
    back = np.linalg.solve(homogeneous, np.broadcast_to(corners, moved.shape))  # (n, 3, 2): where a moved point was
    waves = rng.uniform(-1, 1, (2, len(x), SIDE, SIDE)).astype(np.float32)
    waves = SIDE * alpha * ndimage.gaussian_filter(waves, (0, 0, SIDE * sigma, SIDE * sigma), truncate=3.0)
    grid = np.stack(np.broadcast_arrays(*np.ix_(np.arange(SIDE), np.arange(SIDE)), 1.0), -1)  # (row, column, 1)
    points = (grid + np.moveaxis(np.concatenate([waves, 0 * waves[:1]]), 0, -1)) @ back[:, None]  # (n, 32, 32, 2)
    return sampled(x, points[..., 0], points[..., 1])


def spatter(
    mean: float, std: float, blur: float, least: float, strength: float, mud: int, x: Images, rng: Generator
) -> Images:
    layer = mean + std * rng.standard_normal(x.shape[:3], np.float32)
    layer = ndimage.gaussian_filter(layer, (0, blur, blur), mode="nearest")
    wet = (layer > least).astype(np.float32)
    if mud:
        cover = ndimage.gaussian_filter(wet, (0, strength, strength), mode="nearest")
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return x * (1 - cover) + cover * np.float32([63, 42, 20]) / 255  # brown
    body = ndimage.gaussian_filter(wet, (0, 0.7, 0.7), mode="nearest")
    slope = ndimage.sobel(body, 1, mode="nearest") + ndimage.sobel(body, 2, mode="nearest")
    light = wet * layer * (1 + slope.clip(-1, 1))
    light *= strength / np.maximum(light.max((1, 2), keepdims=True), 1e-6)
    return x + light[..., None] * np.float32([175, 238, 238]) / 255  # pale turquoise


def pixelate(factor: float, x: Images, rng: Generator) -> Images:
    small = int(SIDE * factor)
    return _each(x, lambda image: image.resize((small, small), Image.Resampling.BOX).resize((SIDE, SIDE), 0))


def jpeg_compression(quality: int, x: Images, rng: Generator) -> Images:
    def packed(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _each(x, packed)


def disk_kernel(radius: float, alias: float) -> NDArray[np.float64]:
    """Weights `(7, 7)` of a disk of this radius in pixels, softened by a Gaussian of sigma `alias` cut to 3 pixels."""
    across = np.arange(-3, 4) ** 2
    disk = (across[:, None] + across <= radius**2).astype(np.float64)
    soft = np.exp(-(np.arange(-1, 2) ** 2) / (2 * alias**2))
    kernel = ndimage.convolve(disk, np.outer(soft, soft), mode="constant")
    return kernel / kernel.sum()


def line_weights(radius: float, sigma: float) -> NDArray[np.float64]:
    """Weights of the pixels 0, 1, ..., 2 * radius along the motion, half a Gaussian: the tail that motion leaves."""
    weights = np.exp(-(np.arange(2 * int(radius) + 1) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def plasma(count: int, decay: float, rng: Generator) -> Images:
    """Heights `(count, 32, 32)` in 0..1 of a diamond-square fractal that goes round at the borders.

    Args:
        count: How many maps.
        decay: The chance part falls by its square from one scale to the next, as in the published generator, which
            multiplies by its wobble twice.
        rng: Draws them.
    """
    heights = np.zeros((count, SIDE, SIDE), np.float32)
    step, wobble = SIDE, 1.0
    while step > 1:
        half = step // 2

        def chance(like: Images, wobble: float = wobble) -> Images:
            return np.float32(wobble) * (2 * rng.random(like.shape, np.float32) - 1)

        corners = heights[:, ::step, ::step]
        below = corners + np.roll(corners, -1, 1)
        centres = (below + np.roll(below, -1, 2)) / 4 + chance(corners)
        beside = (corners + np.roll(corners, -1, 2) + centres + np.roll(centres, 1, 1)) / 4 + chance(corners)
        under = (below + centres + np.roll(centres, 1, 2)) / 4 + chance(corners)
        heights[:, half::step, half::step] = centres
        heights[:, ::step, half::step] = beside
        heights[:, half::step, ::step] = under
        step, wobble = half, wobble / decay**2
    heights -= heights.min((1, 2), keepdims=True)
    return heights / heights.max((1, 2), keepdims=True)


def sampled(x: Images, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Images:
    """Pixels at fractional places `(n, 32, 32)`, bilinear, mirrored at the border."""
    last, frame = SIDE - 1, _frame(x)
    rows, columns = (last - np.abs(last - at % (2 * last)) for at in (rows, columns))
    top, left = (np.minimum(at.astype(int), last - 1) for at in (rows, columns))
    down, right = ((at - low)[..., None].astype(np.float32) for at, low in ((rows, top), (columns, left)))
    upper = x[frame, top, left] * (1 - right) + x[frame, top, left + 1] * right
    lower = x[frame, top + 1, left] * (1 - right) + x[frame, top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def _each(x: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    return np.stack(
        [np.asarray(change(Image.fromarray(frame)), np.float32) / 255 for frame in np.rint(x * 255).astype(np.uint8)]
    )


def _zoom_weights(zoom: float) -> NDArray[np.float32]:
    """Weights `(32 out, 32 in)` that enlarge a line about its centre, bilinear."""
    middle = (SIDE - 1) / 2
    source = middle + (np.arange(SIDE) - middle) / zoom
    return (1 - np.abs(source[:, None] - np.arange(SIDE))).clip(0, None).astype(np.float32)


def _along(x: Images, degrees: NDArray[np.float64], weights: NDArray[np.float64]) -> Images:
    """Blur each image along its own direction, 0 to the right and -90 upwards, to the nearest pixel; the border goes on."""
    blurred, line, turn = np.zeros_like(x), np.arange(SIDE), np.deg2rad(degrees)[:, None]
    for step, weight in enumerate(weights):
        rows = (line + np.rint(step * np.sin(turn)).astype(int)).clip(0, SIDE - 1)  # (n, 32)
        columns = (line + np.rint(step * np.cos(turn)).astype(int)).clip(0, SIDE - 1)
        blurred += np.float32(weight) * x[_frame(x), rows[:, :, None], columns[:, None]]
    return blurred


def _frame(x: Images) -> NDArray[np.int64]:
    """Index `(n, 1, 1)` that stays in each frame."""
    return np.arange(len(x))[:, None, None]
