"""Encoders for series and clips, `(channels, time)`: inertial sensors, currents, force, sound.

Inside, a series is a map of height 1 and a convolution over time has a kernel of height 1. TensorRT has two- and
three-dimensional convolutions only, and its ONNX parser puts the missing axis in between a quantized weight and its
convolution; onnxruntime blocks its channels for maps only. So everything that folds, quantizes and differentiates
convolutions needs to know one kind of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from edgessl.encoders.base import EncoderModule, require_series
from edgessl.errors import InputError
from edgessl.signals import InputSpec
from edgessl.vision import vision_module


def conv_series(
    input: InputSpec,
    *,
    widths: Sequence[int] = (32, 64, 96, 128),
    kernel: int = 5,
    dim: int = 128,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> EncoderModule:
    """Stages of stride-2 convolutions over time, a mean over what is left, one linear layer: `conv_small` for series.

    Args:
        input: Series of at least 2 time steps per halving.
        widths: Channels per stage.
        kernel: Time steps per kernel, odd.
        dim: Width of the embedding.
        mean, std: Per channel, of the recordings; empty for 0 and 1. The first batch norm takes either.

    Raises:
        InputError: No series, or too short.
    """
    channels, _ = require_series(input, "conv_series", least=2 ** len(widths))
    stages: list[nn.Module] = []
    for index, (before, after) in enumerate(zip((channels, *widths), widths, strict=False)):
        first = nn.ReLU() if index else _AsMap()
        stages.append(nn.Sequential(first, *_convolution(before, after, kernel, stride=2)))
    return _convolutional(input, stages, widths, dim, mean, std)


def tcn_small(
    input: InputSpec,
    *,
    width: int = 64,
    depth: int = 4,
    kernel: int = 3,
    dim: int = 128,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> EncoderModule:
    """Dilated residual convolutions (Bai et al. 2018, arXiv:1803.01271), which look both ways: the window is whole.

    Each stage doubles the dilation, so that the last sees `4 (kernel - 1) (2 ** depth - 1)` steps beside its own; the
    stem halves the length once. Stages end before their activation, as those of `conv_small`.

    Args:
        input: Series of at least 2 time steps.
        width: Channels of every stage.
        depth: Dilated stages.
        kernel: Time steps per kernel, odd.
        dim: Width of the embedding.
        mean, std: As in `conv_series`.

    Raises:
        InputError: No series.
    """
    channels, _ = require_series(input, "tcn_small", least=2)
    stem = nn.Sequential(_AsMap(), *_convolution(channels, width, 2 * kernel + 1, stride=2))
    stages = [stem, *(_Dilated(width, kernel, 2**level) for level in range(depth))]
    return _convolutional(input, stages, [width] * len(stages), dim, mean, std)


def vit_series(
    input: InputSpec,
    *,
    dim: int = 128,
    depth: int = 4,
    heads: int = 4,
    patch: int = 8,
    tail: int = 1,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> EncoderModule:
    """A transformer over patches of time, each of all channels; no class token, the mean of the tokens.

    Args:
        input: Series whose length is a multiple of the patch.
        dim: Width of tokens and embedding.
        depth: Blocks.
        heads: Attention heads per block.
        patch: Time steps per token.
        tail: Blocks in the tail.
        mean, std: Per channel, of the recordings; empty for 0 and 1. Nothing else here brings them to one scale.

    Raises:
        InputError: No series, or of another length.
    """
    if patch < 1:
        raise InputError(f"patch of vit_series is at least 1 time step, not {patch}")
    channels, time = require_series(input, "vit_series", multiple=patch)
    if not 1 <= tail < depth:
        raise InputError(f"a tail of {tail} blocks leaves no trunk in {depth}; choose 1 to {depth - 1}")
    block = vision_module("timm.models.vision_transformer").Block
    norm = partial(nn.LayerNorm, eps=1e-6)
    blocks = [block(dim, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth)]
    trunk = depth - tail
    return EncoderModule(
        input,
        [PatchEmbed(channels, time // patch, patch, dim), *blocks, norm(dim)],
        _MeanTokens(),
        dim=dim,
        channels=[dim] * (depth + 2),
        channel_axis=2,
        cut=1 + trunk,
        ports=sorted({0, round(trunk / 2), trunk}),
        mean=mean or None,
        std=std or None,
    )


class PatchEmbed(nn.Module):
    """`(batch, channels, time)` -> tokens `(batch, time / patch, dim)` with their learned places.

    Attributes:
        prefix: Class and register tokens: none.
        grid: The number of patches.
        patch: Time steps of a patch.
    """

    def __init__(self, channels: int, tokens: int, patch: int, dim: int) -> None:
        super().__init__()
        self.prefix = 0
        self.grid: tuple[int, ...] = (tokens,)
        self.patch: tuple[int, ...] = (patch,)
        self.project = nn.Sequential(_AsMap(), nn.Conv2d(channels, dim, (1, patch), (1, patch)))
        self.places = nn.Parameter(torch.empty(1, tokens, dim))
        nn.init.trunc_normal_(self.places, std=0.02)

    def forward(self, series: Tensor) -> Tensor:
        """Normalised series `(batch, channels, time)` -> tokens `(batch, time / patch, dim)`."""
        tokens: Tensor = self.project(series)  # (batch, dim, 1, tokens)
        return tokens.flatten(2).transpose(1, 2) + self.places


def _convolutional(
    input: InputSpec,
    stages: list[nn.Module],
    widths: Sequence[int],
    dim: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> EncoderModule:
    return EncoderModule(
        input,
        stages,
        _Pool(widths[-1], dim),
        dim=dim,
        channels=widths,
        channel_axis=1,
        cut=len(stages) - 1,
        ports=range(len(stages) - 1),
        mean=mean or None,
        std=std or None,
    )


def _convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    """A convolution over time that keeps the length but for its stride, and its batch norm."""
    if kernel < 1 or kernel % 2 == 0:
        raise InputError(f"kernel must be odd, so that an output has a middle, not {kernel}")
    reach = dilation * (kernel - 1) // 2
    convolution = nn.Conv2d(inputs, outputs, (1, kernel), (1, stride), (0, reach), (1, dilation), bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class _AsMap(nn.Module):
    """`(batch, channels, time)` -> `(batch, channels, 1, time)`."""

    def forward(self, series: Tensor) -> Tensor:
        return series.unsqueeze(2)


class _Dilated(nn.Module):
    """Two convolutions of one dilation, around which the stage's value goes."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        first = _convolution(width, width, kernel, dilation=dilation)
        second = _convolution(width, width, kernel, dilation=dilation)
        self.around = nn.Sequential(nn.ReLU(), *first, nn.ReLU(), *second)

    def forward(self, x: Tensor) -> Tensor:
        around: Tensor = self.around(x)
        return x + around


class _MeanTokens(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)  # (batch, dim)


class _Pool(nn.Module):
    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, dim)

    def forward(self, latent: Tensor) -> Tensor:
        return torch.as_tensor(self.project(torch.relu(latent).mean((2, 3))))  # (batch, dim)
