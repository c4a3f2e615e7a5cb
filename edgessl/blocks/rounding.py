"""Values rounded to 256 steps and back, as QuantizeLinear and DequantizeLinear do, with gradients that pass the rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_LEAST = 1e-6  #: smallest spread of a range: a value that never moved still gets a scale above zero
_FINEST = 1e-30  #: below it a step is that of a dead channel


def rounded_activation(x: Tensor, low: Tensor, high: Tensor, *, symmetric: bool) -> Tensor:
    """One scale for the whole tensor.

    Asymmetric: uint8 over `low` (0 or below) to `high` (0 or above), with a zero point. Symmetric: int8 without one,
    over `-high` to `high` in 254 steps; the step below it exists, too, and is used. Rounding is half to even. The
    gradient is LSQ's (Esser et al. 2020, arXiv:1902.08153, equation 3): inside the range it reaches `x`, and its
    rounding error the scale; outside it reaches the bound alone.
    """
    if symmetric:
        scale = high.clamp_min(_LEAST) / 127
        return _even(x / scale).clamp(-128, 127) * scale
    scale = (high - low).clamp_min(_LEAST) / 255
    zero = _even(-low / scale)
    return ((_even(x / scale) + zero).clamp(0, 255) - zero) * scale


def rounded_weight(weight: Tensor) -> Tensor:
    """int8 with one scale per output channel (axis 0): its largest magnitude is 127. The gradient passes unchanged."""
    scale = _channel_scale(weight).view(-1, *[1] * (weight.ndim - 1))
    return _even(weight / scale) * scale


def rounded_bias(bias: Tensor, weight: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """int32 in steps of the product's two scales: small, and yet it decides what falls to which side of a half."""
    step = ((high - low).detach().clamp_min(_LEAST) / 255) * _channel_scale(weight)
    return torch.where(step > _FINEST, _even(bias / step.clamp_min(_FINEST)) * step, bias)


def _channel_scale(weight: Tensor) -> Tensor:
    return (weight.detach().flatten(1).abs().amax(1) / 127).clamp_min(torch.finfo(weight.dtype).tiny)


def _even(x: Tensor) -> Tensor:
    rounded: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return rounded


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()  # torch rounds halves to even

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]
