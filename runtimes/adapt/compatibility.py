"""Do vectors that were stored before an adaptation still find what is embedded after it?

A map is not embedded again because the encoder learned something; Shen et al. 2020 (arXiv:2003.11942) call a model whose
new queries do at least as well on the old map as the old queries backward compatible.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.metrics import places_found


@dataclass(frozen=True, kw_only=True)
class Compatibility:
    """Recall@1 on one and the same map.

    Attributes:
        before: Of queries embedded as the map was.
        after: Of the same frames embedded with what was learned.
        queries: How many there were.
    """

    before: float
    after: float
    queries: int

    @property
    def change(self) -> float:
        """What the adaptation brought, or, below 0, cost."""
        return self.after - self.before


def compatibility(
    stored: NDArray[np.floating],
    places: NDArray[np.floating],
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    taken: NDArray[np.floating],
    *,
    tolerance: float,
) -> Compatibility:
    """Look the same frames up in an old map, as they were embedded before and as they are now.

    Args:
        stored: The map's vectors, of before the adaptation, `(m, dim)`.
        places: Where they were taken, `(m,)` along a path or `(m, axes)`.
        before: Queries embedded before the adaptation, `(n, dim)`.
        after: The same frames embedded after it, `(n, dim)`.
        taken: Where they were taken, `(n,)` or `(n, axes)`.
        tolerance: Largest distance that counts as the same place.

    Raises:
        InputError: There is nothing to look up, or the queries are not of the same frames.
    """
    if before.shape != after.shape or len(after) != len(taken) or not len(after) or not len(stored):
        raise InputError(
            f"{before.shape} vectors of before, {after.shape} of after, {len(taken)} places and a map of {len(stored)}: "
            "give the same frames embedded twice, and a map"
        )
    old, new = (places_found(each, taken, stored, places, tolerance=tolerance).mean() for each in (before, after))
    return Compatibility(before=float(old), after=float(new), queries=len(after))


def itself(stored: NDArray[np.floating], after: NDArray[np.floating]) -> Compatibility:
    """Whether each frame's new vector `(n, dim)` is nearest to its own old one among all the old ones `(n, dim)`."""
    places = np.arange(len(stored), dtype=np.float64)
    return compatibility(stored, places, stored, after, places, tolerance=0.0)
