"""How much less than independent frames the frames of a stream are worth.

Neighbouring frames show the same place, and a long stretch the same kind of place. An average over n of them is as
uncertain as one over n / factor independent frames. The factor is had by batch means (Flegal and Jones 2010,
arXiv:0811.1729): the variance of means over stretches of a stream, over what it would be were the frames independent,
for the length at which it is largest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.state import State

Floats64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class DependenceConfig:
    """How it is judged. Values are ours.

    Attributes:
        block: Votes per block, the shortest stretch that is looked at.
        kept: Blocks that are remembered.
        groups: Stretches of one length that there must be at least, to judge by that length.
        prior: The factor that is believed in before anything was seen.
        weight: Blocks that this belief counts for.
    """

    block: int = 32
    kept: int = 512
    groups: int = 6
    prior: float = 4.0
    weight: float = 4.0


class Dependence:
    """The blocks of a stream's vectors `(dim,)`, in segments between which the stream changed."""

    def __init__(self, dim: int, config: DependenceConfig) -> None:
        self._config, self._dim = config, dim
        self._means = np.zeros((0, dim))  # of whole blocks
        self._segments = np.zeros(0, np.int64)  # which segment each block belongs to
        self._within = np.zeros(0)  # sum of the variances inside each block
        self._segment = 0
        self._open = np.zeros((0, dim))  # of the block that is not whole
        self._factor: float | None = None  # `None`: to be worked out when it is asked for

    def update(self, vectors: NDArray[np.floating]) -> None:
        """Take in votes `(votes, dim)` in their order."""
        size = self._config.block
        self._open = np.concatenate([self._open, vectors.astype(np.float64)])
        while len(self._open) >= size:
            block, self._open = self._open[:size], self._open[size:]
            keep = slice(-self._config.kept + 1, None)
            self._means = np.concatenate([self._means[keep], block.mean(0)[None]])
            self._within = np.append(self._within[keep], block.var(0, ddof=1).sum())
            self._segments = np.append(self._segments[keep], self._segment)
            self._factor = None

    def restart(self) -> None:
        """The stream changes here: stretches do not reach over it."""
        self._segment += 1
        self._open = self._open[:0]

    def moved(self, by: NDArray[np.floating]) -> None:
        """From here on vectors lie `by` `(dim,)` further, for a reason that is not the stream's."""
        self._means[self._segments == self._segment] += by
        self._open = self._open + by

    @property
    def factor(self) -> float:
        """How many frames are worth one independent frame, at least 1."""
        if self._factor is None:
            config, blocks, seen = self._config, len(self._means), self._measured()
            share = 0.0 if seen is None else blocks / (blocks + config.weight)
            self._factor = max(1.0, share * (seen or 0.0) + (1 - share) * config.prior)
        return self._factor

    def _measured(self) -> float | None:
        """By the blocks alone; `None` while there are too few."""
        block, length, largest = self._config.block, 1, None
        within = float(self._within.mean()) if len(self._within) else 0.0
        single = self._between(1)
        if single is None or within <= 0:
            return None
        total = within + max(0.0, single - within / block)
        while (between := self._between(length)) is not None:
            largest = max(largest or 0.0, length * block * between / total)
            length *= 2
        return largest

    def _between(self, length: int) -> float | None:
        """Variance of means over `length` blocks, about the means of their segments; `None` when there are too few."""
        squared, freedom, groups = 0.0, 0, 0
        for segment in np.unique(self._segments):
            means = self._means[self._segments == segment]
            count = len(means) // length
            if count < 2:
                continue
            stretches = means[: count * length].reshape(count, length, self._dim).mean(1)
            squared += float(np.square(stretches - stretches.mean(0)).sum())
            freedom += count - 1
            groups += count
        return squared / freedom if groups >= self._config.groups else None

    def state(self) -> State:
        """A copy."""
        tensors = {"means": self._means, "segments": self._segments, "within": self._within, "open": self._open}
        return State(tensors={name: value.copy() for name, value in tensors.items()}, values={"segment": self._segment})

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        self._means, self._segments = state.tensors["means"].copy(), state.tensors["segments"].copy()
        self._within, self._open = state.tensors["within"].copy(), state.tensors["open"].copy()
        self._segment, self._factor = int(state.values["segment"]), None
