"""Level 0: move the embedding's mean and covariance back to where the source's were. Nothing in the network changes.

NEO (arXiv:2510.05635) subtracts the mean of a supervised net's features; CORAL (arXiv:1612.01939) brings covariances together.
Without a class head the target is the source's own mean and covariance. Of all linear maps that take one covariance to
the other this takes the one that moves vectors least (the optimal transport between two normal distributions, Dowson and
Landau 1982), so that stored vectors stay comparable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.served import Affine
from edgessl.runtimes.adapt.state import State

_TINY = 1e-12
Floats64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RecenterConfig:
    """How fast, and how far. Values are ours.

    Attributes:
        block: Votes that are taken in together.
        horizon: Votes that the running statistics remember.
        trust: Independent votes at which half of the mean's correction is applied; fewer votes, less of it.
        prior: Independent votes that the source's covariance counts for.
        floor: Share of the mean variance that is added to every direction, so that what hardly varies is not blown up.
        outlier: Votes further out than this many standard deviations, averaged over the dimensions, are pulled in.
        growth: The correction is worked out anew when so many times as many votes have come as the last time.
        every: And after so many votes at the latest.
    """

    block: int = 32
    horizon: int = 8000
    trust: float = 32.0
    prior: float = 64.0
    floor: float = 0.1
    outlier: float = 3.0
    growth: float = 1.25
    every: int = 1000


class Recenter:
    """Running mean and covariance of the embedding.

    Args:
        mean: Of the source, `(dim,)`.
        covariance: Of the source, `(dim, dim)`.
        config: How fast, and how far.
    """

    def __init__(self, mean: NDArray[np.floating], covariance: NDArray[np.floating], config: RecenterConfig) -> None:
        self._source_mean, self._config = mean.astype(np.float64), config
        self._source = covariance.astype(np.float64)
        self._floor = max(config.floor * float(np.trace(self._source)) / len(mean), _TINY) * np.eye(len(mean))
        self.reset()

    def reset(self) -> None:
        """Back to the factory: the identity."""
        dim = len(self._source_mean)
        self.mean = self._source_mean.copy()
        self._moment = np.zeros((dim, dim))  # sum of outer products of distances from the running mean
        self._weight = 0.0  # votes in the running statistics
        self._open = np.zeros((0, dim), np.float32)  # votes of the block that is not whole
        self._fitted = 0.0  # votes in the statistics that the present correction was made of
        self._since = 0.0  # votes since then
        self.affine: Affine | None = None

    def update(self, vectors: NDArray[np.float32], *, factor: float = 1.0) -> bool:
        """Take in votes `(batch, dim)`; it does not matter how they were batched.

        Args:
            vectors: As the tail gave them.
            factor: How many of them are worth one independent vote.

        Returns:
            Whether the correction changed.
        """
        config, changed = self._config, False
        self._open = np.concatenate([self._open, vectors])
        while len(self._open) >= config.block:
            block, self._open = self._open[: config.block].astype(np.float64), self._open[config.block :]
            self._take(block)
            due = self._weight >= config.growth * self._fitted or self._since >= config.every
            if due:
                self.fit(factor)
                changed = True
        return changed

    def moved(self, by: NDArray[np.floating], grown: NDArray[np.floating] | None = None) -> None:
        """What gives the vectors was changed: the statistics go along, and the correction as far as the mean goes.

        Args:
            by: How far vectors moved on average, `(dim,)`.
            grown: What their covariance gained, `(dim, dim)`; `None` where that is not known.
        """
        self.mean = self.mean + by
        if grown is not None:
            self._moment = self._moment + self._weight * grown
        self._open = (self._open + by).astype(np.float32)
        if self.affine is not None:
            shift = self.affine.shift - np.asarray(by, np.float32) @ self.affine.matrix
            self.affine = Affine(matrix=self.affine.matrix, shift=shift)

    def fade(self, kept: float) -> None:
        """Covariance and mean count for so many votes at most from now on: they are of other vectors than those to come."""
        if self._weight > kept:
            self._moment = self._moment * (kept / self._weight)
            self._weight = self._fitted = kept

    def fit(self, factor: float) -> None:
        """Work the correction out anew, from votes of which `factor` are worth an independent one."""
        config, independent = self._config, self._weight / factor
        share = independent / (independent + config.prior)
        covariance = share * self._moment / self._weight + (1 - share) * self._source
        matrix = transport(covariance + self._floor, self._source + self._floor)
        trust = independent / (independent + config.trust)
        # A vector at the stream's mean goes to the source's mean, as far as the mean is trusted.
        centre = self._source_mean + trust * (self.mean - self._source_mean)
        self.affine = Affine(
            matrix=matrix.astype(np.float32), shift=(self._source_mean - centre @ matrix).astype(np.float32)
        )
        self._fitted, self._since = self._weight, 0.0

    def state(self) -> State:
        """A copy."""
        tensors = {"mean": self.mean, "moment": self._moment, "open": self._open}
        if self.affine is not None:
            tensors |= {"affine.matrix": self.affine.matrix, "affine.shift": self.affine.shift}
        return State(
            tensors={name: value.copy() for name, value in tensors.items()},
            values={"weight": self._weight, "fitted": self._fitted, "since": self._since},
        )

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        tensors, values = state.tensors, state.values
        self.mean, self._moment, self._open = (tensors[name].copy() for name in ("mean", "moment", "open"))
        self._weight, self._fitted, self._since = (float(values[name]) for name in ("weight", "fitted", "since"))
        self.affine = None
        if "affine.matrix" in tensors:
            self.affine = Affine(matrix=tensors["affine.matrix"].copy(), shift=tensors["affine.shift"].copy())

    def _take(self, block: Floats64) -> None:
        config, count = self._config, len(block)
        if self._weight:
            gap = block - self.mean
            size = np.sqrt((gap**2).mean(1, keepdims=True) / max(np.trace(self._source) / len(self.mean), _TINY))
            block = self.mean + gap * np.minimum(1.0, config.outlier / np.maximum(size, _TINY))
        if self._weight + count > config.horizon:
            kept = max(config.horizon - count, 0) / self._weight
            self._weight, self._moment = self._weight * kept, self._moment * kept
        gap = block - block.mean(0)
        apart = block.mean(0) - self.mean if self._weight else np.zeros_like(self.mean)
        total = self._weight + count
        self._moment = self._moment + gap.T @ gap + np.outer(apart, apart) * (self._weight * count / total)
        self.mean = self.mean + apart * (count / total) if self._weight else block.mean(0)
        self._weight, self._since = total, self._since + count


def transport(start: Floats64, end: Floats64) -> Floats64:
    """The symmetric matrix `T` with `T start T = end`, both positive definite `(dim, dim)`."""
    root, inverse = _power(start, 0.5), _power(start, -0.5)
    return np.asarray(inverse @ _power(root @ end @ root, 0.5) @ inverse)


def _power(matrix: Floats64, exponent: float) -> Floats64:
    values, axes = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((axes * np.maximum(values, _TINY) ** exponent) @ axes.T)
