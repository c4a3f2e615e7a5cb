"""Convolutional encoders for frames of 32 to 128 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from edgessl.encoders.base import EncoderModule, require_image
from edgessl.errors import InputError, UnknownNameError
from edgessl.signals import InputSpec

POOLS = ("mean", "flat")
#: of the very first convolution; ours -> PyTorch's
PADDINGS: dict[str, Literal["zeros", "replicate"]] = {"zeros": "zeros", "edge": "replicate"}


def conv_small(
    input: InputSpec,
    *,
    widths: Sequence[int] = (24, 48, 96, 128),
    depth: int = 1,
    stem: int = 3,
    padding: str = "zeros",
    dim: int = 128,
    pool: str = "mean",
) -> EncoderModule:
    """Stages of stride-2 convolutions, a pool, one linear layer.

    Each stage ends before its activation, at the batch norm, so that a port behind it moves the same quantity that
    batch-norm re-estimation would: the mean and spread of pre-activations.

    Args:
        input: Images of at least 2 pixels per halving.
        widths: Channels per stage.
        depth: Convolutions per stage; the first has stride 2.
        stem: Pixels a side of the very first kernel, odd. The wider it is, the more of a blur or a haze can be undone in it
            when the stem is refitted on the device.
        padding: Around the frame, for that kernel: `zeros`, which is the mean colour, or `edge`, the frame's own border
            repeated. A frame that is darker or flatter than usual has no step at its edge then, and what is learned on the
            device about its light and contrast holds up to the border.
        dim: Width of the embedding.
        pool: `mean` over positions, for what a frame shows; `flat` keeps the positions, for where it was taken.

    Raises:
        InputError: Not images, too small, or an even kernel.
        UnknownNameError: No such pool, or padding.
    """
    height, width = require_image(input, "conv_small")
    if stem < 1 or stem % 2 == 0:
        raise InputError(f"conv_small takes a stem of an odd number of pixels, not {stem}; 3 and 7 are usual")
    if min(height, width) < 2 ** len(widths):
        raise InputError(
            f"conv_small with {len(widths)} stages takes at least {2 ** len(widths)} pixels a side, not {height}x{width}"
        )
    if padding not in PADDINGS:
        raise UnknownNameError("padding", padding, PADDINGS)
    stages = [_stage(3, widths[0], depth, first=True, kernel=stem, padding=PADDINGS[padding])]
    stages += [_stage(before, channels, depth, first=False) for before, channels in pairwise(widths)]
    map_size = [-(-side // 2 ** len(widths)) for side in (height, width)]
    return EncoderModule(
        input,
        stages,
        _pool(pool, widths[-1], map_size, dim),
        dim=dim,
        channels=widths,
        channel_axis=1,
        cut=len(widths) - 1,
        ports=range(len(widths) - 1),
    )


def res_small(
    input: InputSpec, *, widths: Sequence[int] = (48, 96, 192), dim: int = 128, pool: str = "mean"
) -> EncoderModule:
    """A patch stem of stride 4, residual stages of stride 2: more to compute than `conv_small`, and to learn with.

    Args:
        input: Images whose sides are multiples of 4.
        widths: Channels of the stem and of each residual stage.
        dim: Width of the embedding.
        pool: As in `conv_small`.

    Raises:
        InputError: Not images, or of another size.
        UnknownNameError: No such pool.
    """
    height, width = require_image(input, "res_small", multiple=4)
    stem = nn.Sequential(nn.Conv2d(3, widths[0], 6, 4, 1, bias=False), nn.BatchNorm2d(widths[0]))
    residual = [_Residual(before, after) for before, after in pairwise(widths)]
    map_size = [-(-side // (4 * 2 ** len(residual))) for side in (height, width)]
    return EncoderModule(
        input,
        [stem, *residual],
        _pool(pool, widths[-1], map_size, dim),
        dim=dim,
        channels=widths,
        channel_axis=1,
        cut=len(residual),
        ports=range(len(residual)),
    )


class _Residual(nn.Module):
    """Stride 2, then a convolution around which the stage's value goes; ends before its activation."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.down = _stage(inputs, channels, 1, first=False)
        self.around = _stage(channels, channels, 1, first=False, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        down: Tensor = self.down(x)
        around: Tensor = self.around(down)
        return torch.relu(down) + around


def _stage(
    inputs: int,
    channels: int,
    depth: int,
    *,
    first: bool,
    stride: int = 2,
    kernel: int = 3,
    padding: Literal["zeros", "replicate"] = "zeros",
) -> nn.Sequential:
    layers: list[nn.Module] = [] if first else [nn.ReLU()]
    for index in range(depth):
        if index:
            layers.append(nn.ReLU())
            convolution = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        else:
            convolution = nn.Conv2d(inputs, channels, kernel, stride, kernel // 2, bias=False, padding_mode=padding)
        layers += [convolution, nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers)


def _pool(kind: str, channels: int, map_size: Sequence[int], dim: int) -> nn.Module:
    if kind not in POOLS:
        raise UnknownNameError("pool", kind, POOLS)
    inputs = channels * (map_size[0] * map_size[1] if kind == "flat" else 1)
    return _Pool(inputs, dim, flat=kind == "flat")


class _Pool(nn.Module):
    def __init__(self, inputs: int, dim: int, *, flat: bool) -> None:
        super().__init__()
        self.flat = flat
        self.project = nn.Linear(inputs, dim)

    def forward(self, latent: Tensor) -> Tensor:
        latent = torch.relu(latent)
        pooled = latent.flatten(1) if self.flat else latent.mean((2, 3))
        return torch.as_tensor(self.project(pooled))  # (batch, dim)
