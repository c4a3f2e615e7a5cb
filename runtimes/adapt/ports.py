"""Level 1: bring each port's channel mean and spread back to the source's, from statistics that serving reports anyway.

The ports are set one after the other, shallow first, each from its own window of frames: a port changes what the
deeper ones see, so their statistics are only worth something once it stands. PEA does this with full covariances and
two forward passes; per channel, one pass is enough and there is nothing to invert.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.state import State
from edgessl.runtimes.split import Port

_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class PortsConfig:
    """How the ports move. Values are ours, from a drive past 14 photographs at night.

    Shorter windows see too few scenes (64: 4 points of recall@1 less), longer ones too few rounds.

    Attributes:
        window: Votes that set one port.
        clip: Largest change of a channel's spread, either way.
        keep: Share of the old statistics that stays when a port is set again.
    """

    window: int = 96
    clip: float = 4.0
    keep: float = 0.7


class Ports:
    """The ports' positions and the statistics behind them.

    Args:
        means, variances: Of the source, per port `(channels,)`.
        config: How they move.
    """

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
        self._target: list[tuple[NDArray[np.float64], NDArray[np.float64]] | None] = [None] * len(self._source)
        self._turn = 0  # the port whose window is open
        self.rounds = 0  # times that all ports were set
        self._open()
        self.values: tuple[Port, ...] = tuple(self._value(index) for index in range(len(self._source)))

    def observe(self, means: tuple[NDArray[np.float32], ...], squares: tuple[NDArray[np.float32], ...]) -> int | None:
        """Take in the votes of one forward pass with the present `values`.

        Args:
            means: Per port `(votes, channels)`, as the trunk reports them.
            squares: Mean squares, likewise.

        Returns:
            The port that moved, if one did.
        """
        turn = self._turn
        self._mean += means[turn].astype(np.float64).sum(0)
        self._square += squares[turn].astype(np.float64).sum(0)
        self._count += len(means[turn])
        if self._count < self._config.window:
            return None
        mean = self._mean / self._count
        variance = np.maximum(self._square / self._count - mean**2, 0.0)
        before = self._target[turn]
        if before is not None:
            keep = self._config.keep
            mean = keep * before[0] + (1 - keep) * mean
            variance = keep * before[1] + (1 - keep) * variance
        self._target[turn] = (mean, variance)
        self.values = (*self.values[:turn], self._value(turn), *self.values[turn + 1 :])
        self._turn = (turn + 1) % len(self._source)
        self.rounds += self._turn == 0
        self._open()
        return turn

    def describe(self, port: int) -> dict[str, float]:
        """Where a port stands, in numbers."""
        scale, shift = self.values[port]
        return {
            "port": port,
            "round": self.rounds,
            "scale_median": float(np.median(scale)),
            "scale_largest": float(scale.max()),
            "shift_largest": float(np.abs(shift).max()),
        }

    def state(self) -> State:
        """A copy."""
        tensors = {"mean": self._mean.copy(), "square": self._square.copy()}
        for index, target in enumerate(self._target):
            if target is not None:
                tensors |= {f"{index}.mean": target[0].copy(), f"{index}.variance": target[1].copy()}
        return State(tensors=tensors, values={"turn": self._turn, "rounds": self.rounds, "count": self._count})

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        self._turn, self.rounds = int(state.values["turn"]), int(state.values["rounds"])
        self._count = int(state.values["count"])
        self._mean, self._square = state.tensors["mean"].copy(), state.tensors["square"].copy()
        self._target = [
            (state.tensors[f"{index}.mean"].copy(), state.tensors[f"{index}.variance"].copy())
            if f"{index}.mean" in state.tensors
            else None
            for index in range(len(self._source))
        ]
        self.values = tuple(self._value(index) for index in range(len(self._source)))

    def _open(self) -> None:
        channels = self._source[self._turn][0].shape
        self._mean, self._square, self._count = np.zeros(channels), np.zeros(channels), 0

    def _value(self, index: int) -> Port:
        source_mean, source_variance = self._source[index]
        target = self._target[index]
        if target is None:
            return np.ones(source_mean.shape, np.float32), np.zeros(source_mean.shape, np.float32)
        mean, variance = target
        clip = self._config.clip
        # A channel that is constant in the source has no spread to go back to.
        ratio = np.sqrt((source_variance + _TINY) / (variance + _TINY))
        scale = np.clip(ratio, 1 / clip, clip)
        return scale.astype(np.float32), (source_mean - scale * mean).astype(np.float32)
