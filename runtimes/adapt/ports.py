"""Level 1: bring each port's channel mean and spread back to the source's, from statistics that serving reports anyway.

PEA does this with full covariances, two forward passes a frame, and a gate. Per channel there is nothing to invert, and
one pass is enough but for the few votes on which a new position is compared with the present one: a port changes what
the deeper ones see, and the same frames through both positions say by how much. So statistics of thousands of frames
outlive a move, and no position hangs on the last few, which in a stream all show the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.state import State
from edgessl.runtimes.split import Observed, Port

_TINY = 1e-12
Floats64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PortsConfig:
    """How the ports move. Values are ours.

    Attributes:
        window: Votes before a port moves for the first time.
        growth: It moves again when so many times as many votes have come as the last time.
        every: And after so many votes at the latest.
        paired: Votes on which a new position is compared with the present one before it serves.
        horizon: Votes that the statistics remember.
        trust: Independent votes that the source's statistics count for.
        clip: Largest change of a channel's spread, either way.
    """

    window: int = 64
    growth: float = 1.25
    every: int = 2000
    paired: int = 32
    horizon: int = 8000
    trust: float = 16.0
    clip: float = 4.0


class Ports:
    """The ports' positions and the statistics behind them.

    Args:
        means, variances: Of the source, per port `(channels,)`.
        config: How they move.

    Attributes:
        values: Positions to serve with.
        candidate: Positions to be compared with them, if there are any.
    """

    candidate: tuple[Port, ...] | None

    def __init__(
        self, means: list[NDArray[np.floating]], variances: list[NDArray[np.floating]], config: PortsConfig
    ) -> None:
        self._source = [
            (mean.astype(np.float64), variance.astype(np.float64))
            for mean, variance in zip(means, variances, strict=True)
        ]
        self._config = config
        self.reset()

    def reset(self) -> None:
        """Back to the factory: the identity."""
        self._mean = [np.zeros(mean.shape) for mean, _ in self._source]
        self._square = [np.zeros(mean.shape) for mean, _ in self._source]
        self._weight = 0.0  # votes in these statistics, the same for all ports
        self._fitted = [0.0] * len(self._source)  # votes there were when a port moved last
        self._since = [0.0] * len(self._source)  # votes since then
        self.moves = 0
        self.values: tuple[Port, ...] = tuple(
            (np.ones(mean.shape, np.float32), np.zeros(mean.shape, np.float32)) for mean, _ in self._source
        )
        self.withdraw()

    @property
    def port(self) -> int:
        """The port that the candidate moves; -1 is what stands in front of all of them."""
        return self._port

    @property
    def pairs(self) -> int:
        """Votes that the candidate was compared on."""
        return self._pairs

    def observe(self, votes: Observed, *, factor: float = 1.0) -> None:
        """Take in votes that went through `values`; may bring up a candidate.

        Args:
            votes: What the trunk reported of them.
            factor: How many of them are worth one independent vote.
        """
        count, config = len(votes.latents), self._config
        if not count or not self._source:
            return
        kept = min(self._weight, max(config.horizon - count, 0))
        self._weight = kept + count
        for index in range(len(self._source)):
            for held, seen in ((self._mean, votes.means), (self._square, votes.squares)):
                held[index] = (kept * held[index] + seen[index].sum(0, dtype=np.float64)) / self._weight
            self._since[index] += count
        if self.candidate is None:
            due = [index for index in range(len(self._source)) if self._due(index)]
            if due:  # one that never moved before one that may again, shallow before deep
                self._propose(min(due, key=lambda index: self._fitted[index]), factor)

    def compare(self, present: Observed, moved: Observed) -> bool:
        """Take in votes that went through `values` and through `candidate`.

        Returns:
            Whether the candidate serves from now on.
        """
        self._pairs += len(present.latents)
        for index in range(self._port + 1, len(self._source)):
            for place, votes in enumerate((present, moved)):
                self._pair[index][place][0] += votes.means[index].sum(0, dtype=np.float64)
                self._pair[index][place][1] += votes.squares[index].sum(0, dtype=np.float64)
        if self.candidate is None or self._pairs < self._config.paired:
            return False
        for index in range(self._port + 1, len(self._source)):
            self._carry(index)
        if self._port >= 0:
            self.values, self.moves = self.candidate, self.moves + 1
            self._fitted[self._port], self._since[self._port] = self._weight, 0.0
        self.withdraw()
        return True

    def fade(self, kept: float) -> None:
        """Statistics count for so many votes at most from now on: they are of other frames than those to come."""
        if self._weight > kept:
            self._weight, self._fitted = kept, [0.0] * len(self._source)

    def give_way(self) -> None:
        """Something in front of every port is to move: what is compared next says what that does to all of them."""
        self.withdraw()
        self._port, self.candidate = -1, self.values

    def describe(self, port: int) -> dict[str, float]:
        """Where a port stands, in numbers."""
        scale, shift = self.values[port]
        return {
            "port": port,
            "moves": self.moves,
            "scale_median": float(np.median(scale)),
            "scale_largest": float(scale.max()),
            "shift_largest": float(np.abs(shift).max()),
        }

    def state(self) -> State:
        """A copy, the candidate and its pairs included."""
        tensors: dict[str, NDArray[Any]] = {}
        for index, (scale, shift) in enumerate(self.values):
            tensors |= {f"{index}.mean": self._mean[index].copy(), f"{index}.square": self._square[index].copy()}
            tensors |= {f"{index}.scale": scale.copy(), f"{index}.shift": shift.copy()}
        values = {"weight": self._weight, "moves": self.moves, "fitted": [*self._fitted], "since": [*self._since]}
        if self.candidate is not None:
            tensors |= {f"{index}.pair": pair.copy() for index, pair in enumerate(self._pair)}
            if self._port >= 0:
                scale, shift = self.candidate[self._port]
                tensors |= {"candidate.scale": scale.copy(), "candidate.shift": shift.copy()}
        waits = {"compared": self.candidate is not None, "port": self._port, "pairs": self._pairs}
        return State(tensors=tensors, values=values | waits)

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        tensors, values = state.tensors, state.values
        numbers = range(len(self._source))
        self._mean = [tensors[f"{index}.mean"].copy() for index in numbers]
        self._square = [tensors[f"{index}.square"].copy() for index in numbers]
        self.values = tuple((tensors[f"{index}.scale"].copy(), tensors[f"{index}.shift"].copy()) for index in numbers)
        self._weight, self.moves = float(values["weight"]), int(values["moves"])
        self._fitted, self._since = [float(x) for x in values["fitted"]], [float(x) for x in values["since"]]
        self.withdraw()
        if values["compared"]:
            self._port, self._pairs = int(values["port"]), int(values["pairs"])
            self._pair = [tensors[f"{index}.pair"].copy() for index in numbers]
            self.candidate = self.values
            if self._port >= 0:
                moved = tensors["candidate.scale"].copy(), tensors["candidate.shift"].copy()
                self.candidate = (*self.values[: self._port], moved, *self.values[self._port + 1 :])

    def withdraw(self) -> None:
        """No candidate any more."""
        self.candidate = None
        self._port, self._pairs = 0, 0
        self._pair = [np.zeros((2, 2, len(mean))) for mean, _ in self._source]  # present, moved; mean, square

    def _due(self, index: int) -> bool:
        config = self._config
        enough = self._weight >= max(config.window, config.growth * self._fitted[index])
        return enough or self._since[index] >= config.every

    def _propose(self, index: int, factor: float) -> None:
        source_mean, source_variance = self._source[index]
        independent = self._weight / factor
        share = independent / (independent + self._config.trust)
        mean = share * self._mean[index] + (1 - share) * source_mean
        seen = np.maximum(self._square[index] - self._mean[index] ** 2, 0.0)
        variance = share * seen + (1 - share) * source_variance
        # A channel that is constant in the source has no spread to go back to.
        ratio = np.sqrt((source_variance + _TINY) / (variance + _TINY))
        scale = np.clip(ratio, 1 / self._config.clip, self._config.clip)
        value = scale.astype(np.float32), (source_mean - scale * mean).astype(np.float32)
        self.withdraw()
        self._port, self.candidate = index, (*self.values[:index], value, *self.values[index + 1 :])

    def _carry(self, index: int) -> None:
        """Take the statistics of a deeper port over to the candidate, as the same frames through both say."""
        (mean, square), (moved_mean, moved_square) = self._pair[index] / self._pairs
        before, after = (np.maximum(q - m**2, _TINY) for m, q in ((mean, square), (moved_mean, moved_square)))
        variance = np.maximum(self._square[index] - self._mean[index] ** 2, 0.0) * (after / before)
        self._mean[index] = moved_mean + np.sqrt(after / before) * (self._mean[index] - mean)
        self._square[index] = variance + self._mean[index] ** 2
