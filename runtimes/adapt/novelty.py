"""Which frames may vote: one that looks like a recent one tells nothing new, however often it comes.

A robot that stands still would otherwise pull every statistic towards the one wall it looks at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.state import State


@dataclass(frozen=True, kw_only=True)
class NoveltyConfig:
    """When a frame votes.

    With these values a parked camera at night (sensor noise only) gave 4 % of its frames, a moving one 64 %.

    Attributes:
        distance: Least distance to every recent voter, in the drift statistic's own units: 1 is the squared distance
            that a source frame has from the source's mean, on average.
        recent: Voters that a frame is compared with.
    """

    distance: float = 0.05
    recent: int = 64


class Novelty:
    """The recent voters, by their whitened statistic."""

    def __init__(self, size: int, config: NoveltyConfig) -> None:
        self._config = config
        self._size = size
        self._held: list[NDArray[np.float64]] = []

    def admit(self, whitened: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of these statistics `(batch, size)` vote; those that do are compared with from now on."""
        votes = np.zeros(len(whitened), dtype=bool)
        for row, point in enumerate(whitened):
            if self._held:
                nearest = float(((np.stack(self._held) - point) ** 2).mean(1).min())
                if not nearest >= self._config.distance:
                    continue
            votes[row] = True
            self._held.append(point)
            del self._held[: -self._config.recent]
        return votes

    def state(self) -> State:
        """A copy."""
        held = np.stack(self._held) if self._held else np.zeros((0, self._size))
        return State(tensors={"held": held})

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        self._held = list(state.tensors["held"].copy())
