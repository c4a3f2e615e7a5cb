"""The latents of the latest votes, in int8: what another tail makes of the stream, before it has seen any of it.

What is known of the stream's vectors is of the tail that gave them. When another serves, the same latents through both say how
mean and covariance go along: a difference over the same frames, which scatters far less than what it is added to (a control
variate). The memory of what is replayed would not do: it holds what is rare, and its own entries are held still.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.memory import Rounded
from edgessl.runtimes.adapt.state import State

Floats64 = NDArray[np.float64]
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class LatestConfig:
    """How many are held. Values are ours.

    Attributes:
        entries: At most so many.
        enough: With fewer, nothing is said of the covariance.
    """

    entries: int = 1024
    enough: int = 256


class Moved(NamedTuple):
    """How the stream's vectors move when another tail gives them.

    Attributes:
        by: Of their mean, `(dim,)`.
        grown: What their covariance gains, `(dim, dim)`; `None` where too few are known.
    """

    by: Floats64
    grown: Floats64 | None

    def then(self, other: Moved) -> Moved:
        """Both, one after the other."""
        grown = None if self.grown is None or other.grown is None else self.grown + other.grown
        return Moved(self.by + other.by, grown)


class Latest:
    """A ring of latents.

    Args:
        latent: Shape of one.
        scale: One int8 step per channel, in the shape that multiplies a batch of them.
        budget_bytes: All that they may take.
        config: How many are held.
    """

    def __init__(
        self, latent: tuple[int, ...], scale: NDArray[np.float32], budget_bytes: int, config: LatestConfig
    ) -> None:
        self._config, self._scale = config, scale
        self._most = max(min(config.entries, budget_bytes // int(np.prod(latent))), 1)
        self._values = np.zeros((0, *latent), np.int8)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def size_bytes(self) -> int:
        """What they take."""
        return int(self._values.nbytes)

    def add(self, latents: NDArray[np.float32]) -> None:
        """Take in those of votes `(batch, *latent)`; the oldest make room."""
        new = Rounded.of(latents[-self._most :], self._scale).values
        kept = min(len(self), self._most - len(new))
        self._values = np.concatenate([self._values[len(self) - kept :], new])

    def moved(self, before: Run, after: Run) -> Moved:
        """How vectors move from one tail to another; at least one is held."""
        rounded = Rounded(self._values, self._scale)
        old, new = (rounded.through(run).astype(np.float64) for run in (before, after))
        grown = None
        if len(self) >= self._config.enough:
            grown = np.cov(new.T, bias=True) - np.cov(old.T, bias=True)
        return Moved((new - old).mean(0), grown)

    def clear(self) -> None:
        """Forget everything."""
        self._values = self._values[:0]

    def state(self) -> State:
        """A copy."""
        return State(tensors={"values": self._values.copy()})

    def restore(self, state: State) -> None:
        """Go back to a copy, newest ones first when the budget has shrunk since; one of before has none."""
        values = state.tensors.get("values", self._values[:0])
        self._values = values[-self._most :].copy()
