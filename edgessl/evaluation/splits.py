"""Which samples are held out where there is no test set."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError


def held_out(count: int, *, seed: int, groups: NDArray[Any] | None = None) -> NDArray[np.bool_]:
    """Which of `count` samples make the held-out fifth: `(count,)`.

    Args:
        count: Samples there are.
        seed: Of the draw.
        groups: `(count,)` who or what each sample is of (subject, speaker, recording): a group is held out whole or not at
            all, in a drawn order until a fifth of the samples is reached, and one group at least is left to learn from.

    Raises:
        InputError: There is only one group.
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        return np.asarray(rng.permutation(count) < count // 5)
    kinds, sizes = np.unique(groups, return_counts=True)
    if len(kinds) < 2:
        raise InputError(
            f"all {count} samples are of one group, {kinds[0]}, so no group can be held out; add --no-by-group to hold "
            "out samples of it, or give --test"
        )
    order = rng.permutation(len(kinds))[:-1]
    # A group is taken while fewer than a fifth of the samples stand before it.
    before = np.cumsum(sizes[order]) - sizes[order]
    return np.isin(groups, kinds[order[before < count / 5]])
