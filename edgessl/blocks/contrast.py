"""Which of these is mine: contrasts by plain products, in groups."""

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


def contrast_of_views(z_1: Tensor, z_2: Tensor) -> Tensor:
    """Of all other rows of its group, in both views, a row shall find its own in the other view (TS2Vec, eq. 1 and 2).

    Args:
        z_1, z_2: `(groups, rows, dim)`.

    Returns:
        Scalar: the mean over rows and views.
    """
    z = torch.cat([z_1, z_2], 1)
    rows = z.shape[1]
    logits = (z @ z.mT).masked_fill(torch.eye(rows, dtype=torch.bool, device=z.device), -torch.inf)
    other = torch.arange(rows, device=z.device).roll(rows // 2).expand(len(z), -1)
    return functional.cross_entropy(logits.flatten(0, 1), other.flatten())
