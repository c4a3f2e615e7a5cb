"""How a set of embeddings fills its space: what collapse is seen by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.metrics import rankme


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How a set of embeddings fills its space."""

    spread: float  # total variance
    rank: float  # effective rank of the centred set

    @classmethod
    def of(cls, vectors: NDArray[np.floating]) -> Shape:
        """Of `(n, dim)` vectors."""
        centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
        return cls(spread=float((centred**2).sum(1).mean()), rank=rankme(centred))
