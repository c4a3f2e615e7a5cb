"""One part of a stream, as a learner sees it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.split import Observed


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One part of the stream, embedded.

    Attributes:
        frames: `(batch, *sample)`.
        observed: What the trunk made of them.
        raw: Vectors before recentring, `(batch, dim)`.
        served: Vectors as they were served, `(batch, dim)`.
        whitened: Drift statistics in units of the source, `(batch, size)`.
        novel: Which of them look unlike those before, `(batch,)`: only these vote.
    """

    frames: NDArray[Any]
    observed: Observed
    raw: NDArray[np.float32]
    served: NDArray[np.float32]
    whitened: NDArray[np.float64]
    novel: NDArray[np.bool_]

    def rows(self, keep: NDArray[np.bool_]) -> Seen:
        """Some of the frames."""
        parts = {name: getattr(self, name)[keep] for name in ("frames", "raw", "served", "whitened", "novel")}
        return Seen(observed=self.observed.rows(keep), **parts)


def parts(start: int, count: int, block: int) -> Iterator[slice]:
    """Cut `count` frames, of which the first has number `start`, where blocks of the whole stream end.

    No decision waits for the end of a long batch then.
    """
    stop = 0
    while stop < count:
        first, stop = stop, min(count, stop + block - (start + stop) % block)
        yield slice(first, stop)
