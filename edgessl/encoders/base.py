"""What every encoder is: prepared samples -> stages -> pool -> unit vector, with a place to cut it in two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgessl.errors import InputError
from edgessl.signals import SERIES, InputSpec

#: Mean and standard deviation of ImageNet's training set, RGB in 0..1; the constants of torchvision's reference.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class EncoderModule(nn.Module):
    """An encoder in PyTorch, for images or for series.

    `stages[:cut]` is the trunk, frozen and quantized on the device; `stages[cut:]` and `pool` are the tail, which
    learns there. A port (a scale and a shift per channel) stands after each stage listed in `ports`.

    Attributes:
        input: What one sample is.
        resize: What makes the encoder's size of the camera's, for images that come in another size; else None. See
            `camera.with_camera`.
        stages: Modules applied one after the other; each takes and gives one tensor.
        pool: Last latent -> `(batch, dim)`.
        dim: Width of the embedding.
        channel_axis: Axis of the channels in a latent: 1 for `(batch, channels, height, width)`, 2 for
            `(batch, tokens, channels)`. A series is a map of height 1.
        channels: Channels of each stage's output.
        cut: Index of the first stage of the tail.
        ports: Stages of the trunk that have a port behind them.
        mean, std: What `normalize` takes off and divides by, per channel of the sample.
        name, options: How `build_encoder` made it.
    """

    name: str
    options: dict[str, Any]
    mean: Tensor
    std: Tensor
    resize: nn.Module | None

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
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not 0 < cut <= len(stages):
            raise InputError(f"cannot cut {len(stages)} stages at {cut}; choose 1 to {len(stages)}")
        if any(port >= cut for port in ports):
            raise InputError(f"ports {tuple(ports)} must lie in the trunk, before stage {cut}")
        self.input = input
        self.resize = None
        self.stages = nn.ModuleList(stages)
        self.pool = pool
        self.dim = dim
        self.channels = tuple(channels)
        self.channel_axis = channel_axis
        self.cut = cut
        self.ports = tuple(ports)
        usual_mean, usual_std, shape = _statistics(input)
        self.register_buffer("mean", _per_channel("mean", usual_mean if mean is None else mean, shape))
        self.register_buffer("std", _per_channel("std", usual_std if std is None else std, shape))
        if not bool((self.std > 0).all()):
            raise InputError(f"std must be positive in every channel, not {self.std.flatten().tolist()}")

    def blank(self, count: int) -> Tensor:
        """Zeros `(count, *sample)` of the dtype that the sensor gives: an example to trace with."""
        return torch.zeros(count, *self.input.shape, dtype=getattr(torch, self.input.dtype))

    def prepare(self, frames: Tensor) -> Tensor:
        """What the sensor gave -> what views are made of.

        uint8 frames `(batch, height, width, 3)` -> float `(batch, 3, height, width)` in 0..1, at the encoder's own size.
        Series `(batch, channels, time)` stay as they are.
        """
        if self.input.kind in SERIES:
            return frames.float()
        if self.resize is not None:
            return torch.as_tensor(self.resize(frames)) / 255
        return frames.permute(0, 3, 1, 2).float() / 255

    def normalize(self, images: Tensor) -> Tensor:
        """Prepared samples -> the scale that the first stage takes."""
        return (images - self.mean) / self.std

    def features(self, images: Tensor) -> Tensor:
        """Prepared samples `(batch, 3, height, width)` in 0..1, or `(batch, channels, time)` -> features `(batch, dim)`.

        These are not normalised: what recipes train on.
        """
        latent = self.normalize(images)
        for stage in self.stages:
            latent = stage(latent)
        features: Tensor = self.pool(latent)
        return features

    def forward(self, frames: Tensor) -> Tensor:
        """`(batch, *sample)` as the sensor gives it -> unit vectors `(batch, dim)`: what is exported."""
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


def require_series(input: InputSpec, encoder: str, *, least: int = 1, multiple: int = 1) -> tuple[int, int]:
    """Channels and time steps of the samples.

    Raises:
        InputError: The samples are no series, too short, or their length is no multiple of `multiple`.
    """
    if input.kind not in SERIES or len(input.shape) != 2:
        raise InputError(f"encoder {encoder!r} takes series (channels, time), not {input.kind} {input.shape}")
    channels, time = input.shape
    if time < least:
        raise InputError(f"encoder {encoder!r} takes at least {least} time steps, not {time}; cut longer windows")
    if time % multiple:
        near = max(multiple, round(time / multiple) * multiple)
        raise InputError(
            f"encoder {encoder!r} takes lengths that are multiples of {multiple}, not {time}; cut windows of {near}"
        )
    return channels, time


def _statistics(input: InputSpec) -> tuple[Sequence[float], Sequence[float], tuple[int, ...]]:
    """Mean and standard deviation where an encoder names none, and the shape that stands against a prepared sample."""
    if input.kind in SERIES:
        channels = input.shape[0]
        return [0.0] * channels, [1.0] * channels, (channels, 1)
    return IMAGENET_MEAN, IMAGENET_STD, (3, 1, 1)


def _per_channel(name: str, values: Sequence[float], shape: tuple[int, ...]) -> Tensor:
    if len(values) != shape[0]:
        raise InputError(f"{name} has {len(values)} values, the samples have {shape[0]} channels; give one per channel")
    return torch.tensor(values, dtype=torch.float32).view(shape)
