"""Which of these is mine: the contrast of a guess with what is there."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def infonce(guesses: Tensor, wanted: Tensor) -> Tensor:
    """Of all rows of its group, a guess shall find its own (CPC, arXiv:1807.03748, eq. 4, without a temperature).

    Args:
        guesses, wanted: `(..., rows, dim)`, compared by their plain products.

    Returns:
        Scalar: the mean over rows of `-log(exp(guess . own) / sum over the group of exp(guess . each))`.
    """
    logits = guesses @ wanted.mT  # (..., rows, rows)
    own = torch.arange(logits.shape[-1], device=logits.device).expand(logits.shape[:-1])
    return functional.cross_entropy(logits.flatten(0, -2), own.flatten())
