"""Level 0: move the embedding's mean and spread back to where the source's were.

NEO (arXiv:2510.05635) subtracts the mean of a supervised net's features; without a class head the target is the
source's own mean, and the spread is brought back too. Nothing in the network changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.metrics import unit
from edgessl.runtimes.adapt.state import State

_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class RecenterConfig:
    """How fast, and how far. Values are ours.

    Behind ports the correction must be slow: at horizon 400 and trust 16 it followed the scene and cost 15 points of
    recall@1 on a drive at night; at these values it gains about one.

    Attributes:
        horizon: Votes that the running statistics remember.
        trust: Votes at which half of the correction is applied; fewer votes, less of it.
        spread_clip: Largest change of a dimension's spread, either way.
        outlier: Votes further out than this many standard deviations, averaged over the dimensions, are pulled in.
        warm_up: Votes before there is a spread to call one an outlier by.
        kept: Votes that the statistics still count for after the ports have moved.
    """

    horizon: int = 2000
    trust: float = 200.0
    spread_clip: float = 2.0
    outlier: float = 3.0
    warm_up: int = 16
    kept: int = 100


class Recenter:
    """Running mean and spread of the embedding.

    Args:
        mean: Of the source, `(dim,)`.
        variance: Of the source, `(dim,)`.
        config: How fast, and how far.
    """

    def __init__(self, mean: NDArray[np.floating], variance: NDArray[np.floating], config: RecenterConfig) -> None:
        self._source_mean = mean.astype(np.float64)
        self._source_variance = np.maximum(variance.astype(np.float64), _TINY)
        self._config = config
        self.reset()

    def reset(self) -> None:
        """Back to the factory: the identity."""
        self.mean = self._source_mean.copy()
        self._moment = np.zeros_like(self.mean)  # sum of squared distances from the running mean
        self._weight = 0  # votes in the running statistics
        self.votes = 0  # votes since the factory, which is what trust follows

    @property
    def variance(self) -> NDArray[np.float64]:
        """Running variance `(dim,)`, with the source's counted for `trust` votes."""
        prior = self._config.trust
        return np.asarray((prior * self._source_variance + self._moment) / (prior + self._weight))

    def update(self, vectors: NDArray[np.floating]) -> None:
        """Take in votes `(batch, dim)` one after the other, so that it does not matter how they were batched."""
        config = self._config
        for vector in vectors.astype(np.float64):
            gap = vector - self.mean
            if self._weight >= config.warm_up:
                size = float(np.sqrt((gap**2 / np.maximum(self.variance, _TINY)).mean()))
                gap *= min(1.0, config.outlier / max(size, _TINY))
            if self._weight == config.horizon:
                self._moment *= 1 - 1 / config.horizon
                self._weight -= 1
            self._weight += 1
            moved = gap / self._weight if self._weight > 1 else gap
            self.mean += moved
            self._moment += gap * (gap - moved)
            self.votes += 1

    def loosen(self) -> None:
        """The embedding's statistics are about to change: keep the present ones as a first guess only."""
        if self._weight > self._config.kept:
            self._moment *= self._config.kept / self._weight
            self._weight = self._config.kept

    def apply(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Correct unit vectors `(batch, dim)` and make them unit again; before the first vote, the identity."""
        if self.votes == 0:
            return vectors
        clip = self._config.spread_clip
        ratio = np.clip(np.sqrt(self._source_variance / np.maximum(self.variance, _TINY)), 1 / clip, clip)
        trust = self.votes / (self.votes + self._config.trust)
        target = (vectors - self.mean) * ratio + self._source_mean
        return np.asarray(unit((1 - trust) * vectors + trust * target), np.float32)

    def state(self) -> State:
        """A copy."""
        return State(
            tensors={"mean": self.mean.copy(), "moment": self._moment.copy()},
            values={"weight": self._weight, "votes": self.votes},
        )

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        self.mean = state.tensors["mean"].copy()
        self._moment = state.tensors["moment"].copy()
        self._weight = int(state.values["weight"])
        self.votes = int(state.values["votes"])
