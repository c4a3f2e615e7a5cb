"""What displacements of frames from their nearest source frames say: how far, along what, and whether two are one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TINY = 1e-12
_APART = 5  # source frames before and after one that are not asked for its nearest
_FEW = 64  # source frames below which they say nothing of how displacements scatter
Floats64 = NDArray[np.float64]


def score_of(moved: Floats64) -> float:
    """Squared length of the mean displacement, per dimension."""
    return float((moved.mean(0) ** 2).mean()) if len(moved) else 0.0


def along(moved: Floats64, signature: Floats64) -> float:
    """How far frames have moved along a known shift, 1 for all of its way.

    Scenes move a block anywhere; along one direction they hardly do, so few frames are enough.
    """
    return float(moved.mean(0) @ signature / max(float(signature @ signature), TINY)) if len(moved) else 0.0


def near(here: Floats64, signature: Floats64, noise: float, share: float) -> bool:
    """Whether a mean displacement, squared error `noise`, may be one of a known shift."""
    apart = float(np.square(here - signature).sum()) - noise
    return apart <= share * min(float(here @ here), float(signature @ signature))


def bias(bank: Floats64) -> Floats64:
    """Mean displacement of the source's own frames, each from the nearest that is not beside it in time."""
    if len(bank) < _FEW:
        return np.zeros(bank.shape[1])
    squared = np.square(bank).sum(1)
    distance = squared[:, None] + squared[None] - 2 * bank @ bank.T
    order = np.arange(len(bank))
    distance[np.abs(order[:, None] - order[None]) <= _APART] = np.inf
    return np.asarray((bank - bank[distance.argmin(1)]).mean(0))
