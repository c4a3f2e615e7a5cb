"""Random views of images, drawn for a whole batch at once, on any device.

torchvision's transforms give one set of parameters to a whole batch and take no generator, so a run that was
interrupted would not go on with the views it would have seen. Here each sample has its own parameters, and all of them
come from the generator that is passed in. The order is that of a camera: where it looks, what the light does, optics,
exposure, sensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgessl.blocks.draws import Range, chance, log_uniform, normal, uniform
from edgessl.errors import InputError

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, kw_only=True)
class ImageViewConfig:
    """How far a view may be from its image.

    SimCLR (arXiv:2002.05709, appendix A) is the model, made for photographs of 224 pixels of one object. The defaults
    are ours: frames of 32 to 128 pixels bear less cropping, and a robot's camera meets darkness and noise, so the
    changes of light are stronger.

    Attributes:
        area: Share of the image in the crop; SimCLR 0.08 to 1. Over 1 looks past the border, which mirrors the image.
        aspect: Width over height of the crop; as SimCLR.
        turn_deg: Largest roll, either way; SimCLR has none.
        flip: Probability of a left-right mirror image; as SimCLR.
        light: Probability that contrast, saturation, tint, gamma and gain change; as SimCLR's colour jitter.
        contrast: Factor on the distance from the image's mean.
        saturation: Factor on the distance from grey.
        tint: Largest change of one colour channel, as the logarithm of a factor; in place of SimCLR's hue.
        gamma: Exponent of each pixel, drawn evenly on a logarithmic scale.
        gain: Factor on the light, drawn evenly on a logarithmic scale; SimCLR's brightness goes down to 0.2.
        grey: Probability of a grey image; as SimCLR.
        blur: Probability of a blur; as SimCLR.
        blur_sigma: Standard deviation of the blur as a share of the short side; SimCLR's is 0.1 to 2 pixels of 224.
        noise: Largest standard deviation of the sensor's noise, full scale 1; SimCLR has none.
    """

    area: Range = (0.3, 1.0)
    aspect: Range = (3 / 4, 4 / 3)
    turn_deg: float = 15.0
    flip: float = 0.5
    light: float = 0.8
    contrast: Range = (0.6, 1.4)
    saturation: Range = (0.4, 1.6)
    tint: float = 0.15
    gamma: Range = (0.7, 1.4)
    gain: Range = (0.25, 1.4)
    grey: float = 0.2
    blur: float = 0.5
    blur_sigma: Range = (0.0015, 0.015)
    noise: float = 0.03

    def __post_init__(self) -> None:
        for name in ("area", "aspect", "gamma", "gain", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise InputError(f"{name} must be a range of positive numbers, low to high, not {low} to {high}")
        for name in ("contrast", "saturation"):
            low, high = getattr(self, name)
            if not 0 <= low <= high < math.inf:
                raise InputError(f"{name} must be a range of factors, low to high, not {low} to {high}")
        for name in ("flip", "light", "grey", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is a probability, 0 to 1, not {getattr(self, name)}")
        for name in ("turn_deg", "tint", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be 0 or more, not {getattr(self, name)}")


def random_image_view(images: Tensor, generator: torch.Generator, config: ImageViewConfig) -> Tensor:
    """One view of each image.

    Args:
        images: float `(batch, 3, height, width)` in 0..1.
        generator: Where all chance comes from; it may live on the CPU while the images do not.
        config: How far a view may be from its image.

    Returns:
        float `(batch, 3, height, width)` in 0..1.
    """
    at = images.new_zeros(len(images), 1, 1, 1)  # one parameter per sample, of the right device and dtype
    x = crop(images, generator, area=config.area, aspect=config.aspect, turn_deg=config.turn_deg, flip=config.flip)
    grey, lit = chance(at, generator, config.grey), chance(at, generator, config.light)
    gain = torch.where(lit, log_uniform(at, generator, *config.gain), 1)
    if config.grey or config.light:
        saturation = torch.where(lit, uniform(at, generator, *config.saturation), 1)
        contrast = torch.where(lit, uniform(at, generator, *config.contrast), 1)
        tint = torch.where(lit, uniform(at.expand(-1, 3, -1, -1), generator, -config.tint, config.tint), 0).exp()
        gamma = torch.where(lit, log_uniform(at, generator, *config.gamma), 1)
        x = recolour(x, contrast=contrast, saturation=torch.where(grey, 0, saturation), tint=torch.where(grey, 1, tint))
        x = x.clamp(0, 1) ** gamma
    if config.blur:
        blurred, sigma = chance(at, generator, config.blur), uniform(at, generator, *config.blur_sigma)
        x = blur(x, torch.where(blurred, sigma * min(x.shape[2:]), 0).flatten())
    x = x * gain
    if config.noise:
        level = uniform(at, generator, 0, config.noise)
        x = x + normal(x, generator) * level
    return x.clamp(0, 1)


def crop(
    images: Tensor, generator: torch.Generator, *, area: Range, aspect: Range, turn_deg: float, flip: float
) -> Tensor:
    """Cut a turned window out of each image and stretch it to the image's size, bilinear, mirrored at the border.

    Args:
        images: `(batch, channels, height, width)`.
        generator: Draws the windows.
        area: Share of the image in the window.
        aspect: Width over height of the window, beside the image's own.
        turn_deg: Largest roll, either way.
        flip: Probability of a left-right mirror image.
    """
    at = images.new_zeros(len(images))
    share, shape = uniform(at, generator, *area), log_uniform(at, generator, *aspect)
    width, height = (share * shape).sqrt(), (share / shape).sqrt()  # of the image's; (batch,)
    # Anywhere that keeps the upright window inside the image, or the image inside a larger window.
    x = uniform(at, generator, -1, 1) * (1 - width).abs()
    y = uniform(at, generator, -1, 1) * (1 - height).abs()
    turn = uniform(at, generator, -turn_deg, turn_deg).deg2rad()
    mirror = torch.where(chance(at, generator, flip), -1.0, 1.0)
    sides = images.shape[3] / images.shape[2]  # a turn is a turn in pixels, not in the grid's -1..1
    cos, sin = turn.cos(), turn.sin()
    rows = (cos * width * mirror, -sin * height / sides, x, sin * width * mirror * sides, cos * height, y)
    window = torch.stack(rows, 1).view(-1, 2, 3)
    grid = functional.affine_grid(window, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def recolour(images: Tensor, *, contrast: Tensor, saturation: Tensor, tint: Tensor) -> Tensor:
    """Scale the distance from grey, each channel, and the distance from the mean.

    Args:
        images: `(batch, 3, height, width)`.
        contrast: `(batch, 1, 1, 1)`.
        saturation: `(batch, 1, 1, 1)`; 0 makes the image grey.
        tint: `(batch, 3, 1, 1)` factor on each channel.
    """
    grey = (images * images.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    images = torch.lerp(grey, images, saturation) * tint
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur; at the border the kernel is cut off and normalised again.

    Args:
        images: `(batch, channels, height, width)`.
        sigma: `(batch,)` standard deviations in pixels; 0 leaves the image as it is.
    """
    # Two matrix products: on a CPU several times faster than a convolution with a kernel per sample.
    height, width = images.shape[2:]
    down = _gaussian(sigma, height)
    across = down if width == height else _gaussian(sigma, width)
    rows = images.flatten(1, 2) @ across.mT  # (batch, channels * height, width)
    return down[:, None] @ rows.view_as(images)


def _gaussian(sigma: Tensor, side: int) -> Tensor:
    """Weights `(batch, side, side)` of every pixel of a line, last axis, in every blurred pixel of it."""
    at = torch.arange(side, device=sigma.device)
    fall = (-(at**2) / (2 * sigma.clamp_min(1e-3)[:, None] ** 2)).exp()  # (batch, side), over the distance
    # Farther than 6 sigma is nothing: weights that are not quite 0 (denormal numbers) make the product 20 times slower.
    weights = fall.where(fall > 1e-8, 0)[:, (at[:, None] - at).abs()]
    return weights / weights.sum(2, keepdim=True)
