"""A small convolutional encoder for frames of 32 to 128 pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgessl.encoders.base import EncoderModule, require_image
from edgessl.errors import InputError
from edgessl.signals import InputSpec


def conv_small(
    input: InputSpec, *, widths: Sequence[int] = (24, 48, 96, 128), depth: int = 1, dim: int = 128
) -> EncoderModule:
    """Stages of stride-2 convolutions, global average pooling, one linear layer.

    Each stage ends before its activation, at the batch norm, so that a port behind it moves the same quantity that
    batch-norm re-estimation would: the mean and spread of pre-activations.

    Args:
        input: Images of at least 8 pixels per stage halving.
        widths: Channels per stage.
        depth: Convolutions per stage; the first has stride 2.
        dim: Width of the embedding.
    """
    height, width = require_image(input, "conv_small")
    if min(height, width) < 2 ** len(widths):
        raise InputError(f"conv_small with {len(widths)} stages takes at least {2 ** len(widths)} pixels a side, not {height}x{width}")
    stages, last = [], 3
    for index, channels in enumerate(widths):
        stages.append(_stage(last, channels, depth, first=index == 0))
        last = channels
    return EncoderModule(
        input,
        stages,
        _Pool(last, dim),
        dim=dim,
        channels=widths,
        channel_axis=1,
        cut=len(widths) - 1,
        ports=range(len(widths) - 1),
    )


def _stage(inputs: int, channels: int, depth: int, *, first: bool) -> nn.Sequential:
    layers: list[nn.Module] = [] if first else [nn.ReLU()]
    for index in range(depth):
        if index:
            layers.append(nn.ReLU())
        layers.append(nn.Conv2d(channels if index else inputs, channels, 3, 1 if index else 2, 1, bias=False))
        layers.append(nn.BatchNorm2d(channels))
    return nn.Sequential(*layers)


class _Pool(nn.Module):
    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(channels, dim)

    def forward(self, latent: Tensor) -> Tensor:
        return self.project(torch.relu(latent).mean((2, 3)))  # (batch, dim)
