"""A foreign model in parts: stages and pool, held to the model's own output before an encoder is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgessl.encoders.base import EncoderModule
from edgessl.errors import InputError
from edgessl.signals import InputSpec

PORTS = 6  #: at most, of a net whose stages are few


@dataclass(frozen=True, kw_only=True)
class Parts:
    """One way to take a model apart.

    Attributes:
        stages: Applied one after the other.
        pool: Last latent -> `(batch, dim)`.
        last: Maps have their channels last.
        spread: Ports stand at four depths, not behind each stage: for transformers, whose blocks are many.
    """

    stages: Sequence[nn.Module]
    pool: nn.Module
    last: bool = False
    spread: bool = False


def encoder_of(
    ways: Sequence[Callable[[], Parts]],
    whole: Callable[[Tensor], Tensor] | None,
    input: InputSpec,
    *,
    tail: int = 1,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> EncoderModule:
    """The encoder of the first way that computes what the whole model computes.

    Args:
        ways: Tried in order; the last should be one stage, which always holds.
        whole: The model, prepared samples `(batch, 3, height, width)` or `(batch, channels, time)` -> `(batch, dim)`;
            None where the pool was changed on purpose: the first way is then taken as it is.
        input: What one sample is.
        tail: Stages in the tail, at most all but one.
        mean, std: Statistics that the model expects.

    Raises:
        InputError: No way gives what the model gives.
    """
    images = input.kind == "image"
    shape = (3, *input.shape[:2]) if images else input.shape
    probe = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = None if whole is None else whole(probe)
        for way in ways:
            try:
                parts = way()
                for module in (*parts.stages, parts.pool):
                    module.eval()
                latents, features = _run(parts, probe)
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
                if way is ways[-1]:
                    raise
                continue  # parts of that name are there, and are called in another way
            if features.ndim == 2 and (wanted is None or _same(features, wanted)):
                return _assembled(parts, latents, int(features.shape[1]), input, tail, mean, std)
    raise InputError("the model does not give one vector per sample that its own parts agree on")


class Pointwise(nn.Module):
    """A linear map of the embedding that starts as the identity: what can be learnt where a model has no end of its own."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(dim))
            self.linear.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, dim)` -> `(batch, dim)`."""
        return torch.as_tensor(self.linear(features))


class AsToken(nn.Module):
    """A whole model `-> (batch, dim)` as one stage that gives one token `(batch, 1, dim)`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Normalised samples -> `(batch, 1, dim)`."""
        return torch.as_tensor(self.model(images)).unsqueeze(1)


class OneToken(nn.Module):
    """The opposite of `AsToken`'s last line."""

    def forward(self, tokens: Tensor) -> Tensor:
        """`(batch, 1, dim)` -> `(batch, dim)`."""
        return tokens.squeeze(1)


def _run(parts: Parts, latent: Tensor) -> tuple[list[Tensor], Tensor]:
    latents = []
    for stage in parts.stages:
        latent = stage(latent)
        latents.append(latent)
    return latents, parts.pool(latent)


def _same(features: Tensor, wanted: Tensor) -> bool:
    return features.shape == wanted.shape and torch.allclose(features, wanted, rtol=1e-4, atol=1e-5)


def _assembled(
    parts: Parts,
    latents: list[Tensor],
    dim: int,
    input: InputSpec,
    tail: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> EncoderModule:
    """Ports need one axis for the channels: stages whose latents have another number of axes join the next one."""
    stages: list[nn.Module] = []
    kept: list[Tensor] = []
    waiting: list[nn.Module] = []
    for stage, latent in zip(parts.stages, latents, strict=True):
        waiting.append(stage)
        if latent.ndim == latents[-1].ndim:
            stages.append(waiting[0] if len(waiting) == 1 else nn.Sequential(*waiting))
            kept.append(latent)
            waiting = []
    if kept[-1].ndim not in (3, 4):
        raise InputError(f"latents of {kept[-1].ndim} axes cannot be cut; edgessl takes maps and tokens")
    axis = kept[-1].ndim - 1 if kept[-1].ndim == 3 or parts.last else 1
    cut = max(1, len(stages) - tail)
    pool = parts.pool
    trunk = {id(each) for stage in stages[:cut] for each in stage.parameters()}
    if not any(id(each) not in trunk for part in (*stages[cut:], pool) for each in part.parameters()):
        pool = nn.Sequential(pool, Pointwise(dim))
    encoder = EncoderModule(
        input,
        stages,
        pool,
        dim=dim,
        channels=[latent.shape[axis] for latent in kept],
        channel_axis=axis,
        cut=cut,
        ports=sorted({0, round((cut - 1) / 3), round(2 * (cut - 1) / 3), cut - 1})
        if parts.spread
        else range(min(cut, PORTS)),
        mean=mean,
        std=std,
    )
    return encoder.train()
