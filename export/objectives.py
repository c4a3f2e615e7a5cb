"""What a tail can learn from on the device: losses on two views of the same frames, no labels.

An objective takes unit vectors `(batch, dim)` of the two views and the source statistics, and gives named terms whose
sum is the loss. A new one is a function and a line in `OBJECTIVES`; the contract test over the table covers it.

lightly has two of these losses. Written with boolean masks, they export to `NonZero` and `ScatterND`, which not every
engine takes; these are the same formulas in plain arithmetic, and the tests hold them to lightly's values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from edgessl.errors import UnknownNameError

Terms = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Statistics of the embedding where the encoder was made: mean and standard deviation, `(dim,)`."""

    mean: Tensor
    std: Tensor


Objective = Callable[[Tensor, Tensor, Source], Terms]


def align(a: Tensor, b: Tensor, source: Source) -> Terms:
    """Move mean and spread of the embedding to the source's, and keep two views together.

    Moments are matched as in ActMAD (Mirza et al. 2023, arXiv:2211.12870, eq. 3), but as squares in units of the
    source's spread: no dimension weighs more for its scale, and no gradient flips its sign at a match, as that of an
    L1 distance does.
    """
    both = torch.cat([a, b])
    # A floor, not a sum: the exporter takes `x + 1e-8` for `x`, and a dimension that never moves divides by zero.
    mean, spread = both.mean(0), both.var(0, unbiased=False).clamp_min(1e-8).sqrt()
    return {
        "invariance": squared_distance(a, b),
        "mean": ((mean - source.mean) / source.std).square().mean(),
        "spread": ((spread - source.std) / source.std).square().mean(),
    }


def vicreg(a: Tensor, b: Tensor, source: Source) -> Terms:
    """VICReg (Bardes et al. 2022, arXiv:2105.04906, eq. 1-5) on embeddings whitened with the source's mean and spread.

    The variance hinge at 1 then asks for the spread of the source, not for a unit cube. Weights are the paper's divided
    by 25, so that a step is of the same size as `align`'s (ours).
    """
    a, b = ((each - source.mean) / source.std for each in (a, b))
    variance = covariance = torch.zeros(())
    for each in (a, b):
        centred = each - each.mean(0)
        matrix = centred.T @ centred / (len(each) - 1)  # (dim, dim)
        variances = centred.square().sum(0) / (len(each) - 1)
        variance = variance + torch.relu(1 - (variances + 1e-4).sqrt()).mean() / 2
        covariance = covariance + (matrix.square().sum() - variances.square().sum()) / each.shape[1]
    return {"invariance": (a - b).square().mean(), "variance": variance, "covariance": covariance / 25}


def ntxent(a: Tensor, b: Tensor, source: Source) -> Terms:
    """SimCLR's normalised temperature-scaled cross entropy (Chen et al. 2020, arXiv:2002.05709, eq. 1), temperature 0.2."""
    del source
    both, count = torch.cat([a, b]), len(a)
    itself = torch.eye(2 * count)
    similar = both @ both.T / 0.2 - 1e4 * itself  # (2 batch, 2 batch)
    partner = (a * b).sum(1) / 0.2
    return {"contrast": torch.logsumexp(similar, 1).mean() - partner.mean()}


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """`1 - cosine` of unit rows, averaged, as half a squared distance: no cancellation when the rows are close."""
    return (a - b).square().sum(1).mean() / 2


OBJECTIVES: dict[str, Objective] = {"align": align, "vicreg": vicreg, "ntxent": ntxent}


def objective(name: str) -> Objective:
    """Look an objective up.

    Raises:
        UnknownNameError: There is none of that name.
    """
    if name not in OBJECTIVES:
        raise UnknownNameError("objective", name, OBJECTIVES)
    return OBJECTIVES[name]
