"""Level 1: bring each port's channels back to the source's, from statistics that serving reports anyway.

PEA does this with full covariances, two forward passes a frame, and a gate. Where a port cannot mix channels, mean and
spread of each come back. Where it can, what they have in common comes back as well, by the linear map that moves them least
(the Monge map between normal distributions, Peyre and Cuturi 2019, remark 2.31), in units of each channel's spread in the
source; with few votes the channels' correlations are the source's, and of that map a gain per channel is left.

One forward pass is enough but for the few votes on which a new position is compared with the present one: a port changes what
the deeper ones see, and the same frames through both positions say by how much. So statistics of thousands of frames
outlive a move, and no position hangs on the last few, which in a stream all show the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.recenter import transport
from edgessl.runtimes.adapt.spreads import Floats64, centred, of_each, squared, times
from edgessl.runtimes.adapt.state import State
from edgessl.runtimes.port import Port, any_mixes, before, plain
from edgessl.runtimes.split import Observed

_TINY = 1e-12


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
        mixed: Independent votes that the source's correlations of channels count for.
        floor: Of a channel's variance in the source, added where channels are mixed: what they hardly have is not blown up.
        clip: Largest change of a spread, either way.
        excess: Variance in units of the source's that a port behind a map of patches may see, as a median over its channels.
            The map is a least-squares fit and adds none to a frame. But at the border it meets the padding's zeros, and where
            contrast is lost and means are not, the step between them becomes the largest edge there is. Ports that brought
            it back to the source's would take everything else too low. It was 1.3 at most where ports helped.
    """

    window: int = 64
    growth: float = 1.25
    every: int = 2000
    paired: int = 32
    horizon: int = 8000
    trust: float = 16.0
    mixed: float = 256.0
    floor: float = 0.01
    clip: float = 4.0
    excess: float = 1.5


class Ports:
    """The ports' positions and the statistics behind them.

    Args:
        means: Of the source, per port `(channels,)`.
        spreads: Of the source, per port the variances `(channels,)`; of one that may mix them the covariance
            `(channels, channels)`.
        config: How they move.
        still: So many of the first do not move: what stands in front of them does.

    Attributes:
        values: Positions to serve with.
        candidate: Positions to be compared with them, if there are any.
    """

    candidate: tuple[Port, ...] | None

    def __init__(
        self,
        means: list[NDArray[np.floating]],
        spreads: list[NDArray[np.floating]],
        config: PortsConfig,
        *,
        still: int = 0,
    ) -> None:
        self._source = [
            (mean.astype(np.float64), spread.astype(np.float64)) for mean, spread in zip(means, spreads, strict=True)
        ]
        self._config, self._still = config, still
        self.reset()

    def reset(self) -> None:
        """Back to the factory: the identity."""
        self._mean = [np.zeros(mean.shape) for mean, _ in self._source]
        self._square = [np.zeros(spread.shape) for _, spread in self._source]  # or the products of channels
        self._weight = 0.0  # votes in these statistics, the same for all ports
        self._fitted = [0.0] * len(self._source)  # votes there were when a port moved last
        self._since = [0.0] * len(self._source)  # votes since then
        self.moves = 0
        self.values: tuple[Port, ...] = tuple(plain(len(mean)) for mean, _ in self._source)
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
            for held, seen in zip((self._mean, self._square), self._before(self.values, votes, index), strict=True):
                held[index] = (kept * held[index] + count * seen) / self._weight
            self._since[index] += count
        if self.candidate is None and self._overdone():
            self._give_up()
        elif self.candidate is None:
            due = [index for index in range(self._still, len(self._source)) if self._due(index)]
            if due:  # one that never moved before one that may again, shallow before deep
                self._propose(min(due, key=lambda index: self._fitted[index]), factor)

    def compare(self, present: Observed, moved: Observed) -> bool:
        """Take in votes that went through `values` and through `candidate`.

        Returns:
            Whether the candidate serves from now on.
        """
        self._pairs += len(present.latents)
        for index in range(self._port + 1, len(self._source)):
            for place, (ports, votes) in enumerate(((self.values, present), (self.candidate or self.values, moved))):
                mean, square = self._before(ports, votes, index)
                self._pair[index][place] += len(votes.latents) * np.stack([mean, of_each(square)])
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
        scale = np.diag(scale) if scale.ndim == 2 else scale
        return {
            "port": port,
            "moves": self.moves,
            "scale_median": float(np.median(scale)),
            "scale_largest": float(scale.max()),
            "shift_largest": float(np.abs(shift).max()),
        }

    def fits(self, state: State) -> bool:
        """Whether a copy is of ports that mix channels where these do."""
        return all(
            f"{index}.square" in state.tensors and state.tensors[f"{index}.square"].shape == spread.shape
            for index, (_, spread) in enumerate(self._source)
        )

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

    def _overdone(self) -> bool:
        """Whether what moves in front adds more variance than a frame has; see `excess`."""
        if not self._still or self._weight < self._config.window:
            return False
        return bool(np.median(of_each(self._seen(0)) / (of_each(self._source[0][1]) + _TINY)) > self._config.excess)

    def _give_up(self) -> None:
        """One port after the other back to the identity, each compared first as any position is."""
        for index, (scale, shift) in enumerate(self.values):
            if scale.ndim == 2 or (scale != 1).any() or shift.any():
                self._wait(index, plain(len(shift)))
                return

    def _due(self, index: int) -> bool:
        config = self._config
        enough = self._weight >= max(config.window, config.growth * self._fitted[index])
        return enough or self._since[index] >= config.every

    def _propose(self, index: int, factor: float) -> None:
        source_mean, source_spread = self._source[index]
        independent = self._weight / factor
        share = independent / (independent + self._config.trust)
        mean = share * self._mean[index] + (1 - share) * source_mean
        seen, usual = self._seen(index), of_each(source_spread)
        variance = share * of_each(seen) + (1 - share) * usual
        # A channel that is constant in the source has no spread to go back to.
        ratio = np.sqrt((usual + _TINY) / (variance + _TINY))
        scale = np.clip(ratio, 1 / self._config.clip, self._config.clip)
        if source_spread.ndim == 2:
            scale = self._mixing(seen, source_spread, scale, independent)
        value = scale.astype(np.float32), (source_mean - times(scale, mean)).astype(np.float32)
        self._wait(index, value)

    def _wait(self, index: int, value: Port) -> None:
        """A port's position to be compared with the present one."""
        self.withdraw()
        self._port, self.candidate = index, (*self.values[:index], value, *self.values[index + 1 :])

    def _mixing(self, present: Floats64, usual: Floats64, scale: Floats64, independent: float) -> Floats64:
        """The map `(channels, channels)` between two covariances of channels whose spreads alone would be scaled so."""
        config = self._config
        spreads = np.sqrt(of_each(usual) + _TINY)
        wanted = usual / np.outer(spreads, spreads)
        units = np.sqrt(of_each(present) + _TINY)
        share = independent / (independent + config.mixed)
        common = share * present / np.outer(units, units) + (1 - share) * wanted
        floor = config.floor * np.eye(len(scale))
        moved = transport(common / np.outer(scale, scale) + floor, wanted + floor)
        values, axes = np.linalg.eigh(moved)
        moved = axes * np.clip(values, 1 / config.clip, config.clip) @ axes.T
        return np.asarray(moved * np.outer(spreads, 1 / spreads))

    def _before(self, ports: tuple[Port, ...], votes: Observed, index: int) -> tuple[Floats64, Floats64]:
        """Averages of votes that went through `ports`, of what comes in at one of them."""
        squares = votes.squares[index] if self._square[index].ndim == 1 else votes.products[index]
        mean, square = (each.mean(0, dtype=np.float64) for each in (votes.means[index], squares))
        return before(ports[index], mean, square) if any_mixes(ports) else (mean, square)

    def _seen(self, index: int) -> Floats64:
        """Of the stream, as the source's."""
        return centred(self._square[index], self._mean[index])

    def _carry(self, index: int) -> None:
        """Take the statistics of a deeper port over to the candidate, as the same frames through both say."""
        (mean, square), (moved_mean, moved_square) = self._pair[index] / self._pairs
        before, after = (np.maximum(q - m**2, _TINY) for m, q in ((mean, square), (moved_mean, moved_square)))
        gain, held, old = np.sqrt(after / before), self._square[index], self._mean[index]
        self._mean[index] = new = moved_mean + gain * (old - mean)
        self._square[index] = centred(held, old) * squared(gain, held.ndim) + squared(new, held.ndim)
