"""Chance, one number per sample: every draw comes from a generator that is passed in.

A draw is made where the generator lives, on the CPU for most, and brought to where the samples are: the same seed gives
the same views on every device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Range = tuple[float, float]


def uniform(like: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """Drawn evenly from `low` to `high`, in the shape, dtype and place of `like`."""
    return (torch.rand(like.shape, generator=generator, device=generator.device) * (high - low) + low).to(like)


def log_uniform(like: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """Drawn evenly on a logarithmic scale."""
    return uniform(like, generator, math.log(low), math.log(high)).exp()


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Drawn from the standard normal distribution."""
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like)


def whole(low: int, high: int, generator: torch.Generator) -> int:
    """One number, drawn evenly from `low` to `high`, both among them."""
    return int(torch.randint(low, high + 1, (), generator=generator, device=generator.device))


def chance(like: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    """Whether something happens: bool, in the shape of `like`."""
    return uniform(like, generator, 0, 1) < probability
