"""What every encoder is: prepared frames -> stages -> pool -> unit vector, with a place to cut it in two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgessl.errors import InputError
from edgessl.signals import InputSpec

#: Mean and standard deviation of ImageNet's training set, RGB in 0..1; the constants of torchvision's reference.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class EncoderModule(nn.Module):
    """An encoder in PyTorch.

    `stages[:cut]` is the trunk, frozen and quantized on the device; `stages[cut:]` and `pool` are the tail, which
    learns there. A port (a scale and a shift per channel) stands after each stage listed in `ports`.

    Attributes:
        input: What one sample is.
        stages: Modules applied one after the other; each takes and gives one tensor.
        pool: Last latent -> `(batch, dim)`.
        dim: Width of the embedding.
        channel_axis: Axis of the channels in a latent: 1 for `(batch, channels, height, width)`, 2 for
            `(batch, tokens, channels)`.
        channels: Channels of each stage's output.
        cut: Index of the first stage of the tail.
        ports: Stages of the trunk that have a port behind them.
        name, options: How `build_encoder` made it.
    """

    name: str
    options: dict[str, Any]
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        input: InputSpec,
        stages: Sequence[nn.Module],
        pool: nn.Module,
        *,
        dim: int,
        channels: Sequence[int],
        channel_axis: int,
        cut: int,
        ports: Sequence[int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if not 0 < cut <= len(stages):
            raise InputError(f"cannot cut {len(stages)} stages at {cut}; choose 1 to {len(stages)}")
        if any(port >= cut for port in ports):
            raise InputError(f"ports {tuple(ports)} must lie in the trunk, before stage {cut}")
        self.input = input
        self.stages = nn.ModuleList(stages)
        self.pool = pool
        self.dim = dim
        self.channels = tuple(channels)
        self.channel_axis = channel_axis
        self.cut = cut
        self.ports = tuple(ports)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def prepare(self, frames: Tensor) -> Tensor:
        """uint8 frames `(batch, height, width, 3)` -> float `(batch, 3, height, width)` in 0..1."""
        return frames.permute(0, 3, 1, 2).float() / 255

    def normalize(self, images: Tensor) -> Tensor:
        """Images in 0..1 -> the scale that the first stage takes."""
        return (images - self.mean) / self.std

    def features(self, images: Tensor) -> Tensor:
        """Images `(batch, 3, height, width)` in 0..1 -> features `(batch, dim)`, not normalised: what recipes train on."""
        latent = self.normalize(images)
        for stage in self.stages:
            latent = stage(latent)
        features: Tensor = self.pool(latent)
        return features

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 frames `(batch, height, width, 3)` -> unit vectors `(batch, dim)`: what is exported."""
        return unit_rows(self.features(self.prepare(frames)))


def unit_rows(features: Tensor) -> Tensor:
    """Rows `(batch, dim)` divided by their length; `functional.normalize` without the shape operators it leaves in a graph."""
    length: Tensor = features.norm(dim=1, keepdim=True)
    return features / length.clamp_min(1e-12)


def require_image(input: InputSpec, encoder: str, *, multiple: int = 1) -> tuple[int, int]:
    """Height and width of the samples.

    Raises:
        InputError: The samples are not images, or their size is no multiple of `multiple`.
    """
    if input.kind != "image":
        raise InputError(f"encoder {encoder!r} takes images, not {input.kind}")
    height, width = input.shape[:2]
    if height % multiple or width % multiple:
        near = [max(multiple, round(size / multiple) * multiple) for size in (height, width)]
        raise InputError(
            f"encoder {encoder!r} takes sizes that are multiples of {multiple}, not {height}x{width}; "
            f"type --size {near[0]}x{near[1]}"
        )
    return height, width
