"""The frame's spectrum, brought back to the source's in front of the trunk: the near end of every level.

Between two stationary processes of known spectra the linear map that moves a signal least is a filter, of gain
`sqrt(source power / stream power)` at each frequency: the Monge map of Gnassounou, Flamary and Gramfort (Convolutional Monge
Mapping Normalization, NeurIPS 2023), who filter a recording before the network. At levels 0 and 1, which may cost nothing, no
filter runs: of all maps of a patch to a patch, the one is taken that comes closest, over the stream's own statistics, to what
the filter would have put there (least squares, in closed form, since both are known from the spectrum), and it goes into the
constants of the first convolution (`runtimes/stem.py`). At level 2, which has a budget, the filter itself runs
(`runtimes/framefilter.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.served import Front
from edgessl.runtimes.adapt.state import State
from edgessl.runtimes.framefilter import FrameFilter
from edgessl.runtimes.spectrum import Spectrum, frame_spectra, frequencies
from edgessl.runtimes.stem import PatchMap

Floats64 = NDArray[np.float64]
_PATCH, _FILTER = ("blocks", "shift"), ("gain", "mean_gain", "shift")  # of each, what is learned
_TINY = 1e-12
_RIDGE = 1e-5  # of a pixel's variance, so that a patch without noise can be inverted


@dataclass(frozen=True, kw_only=True)
class EqualizeConfig:
    """How the first convolution moves. Values are ours.

    Attributes:
        window: Votes before it moves for the first time.
        growth: It is looked at again when so many times as many votes have come as the last time.
        every: And after so many votes at the latest.
        least: It moves again only if gains change by so much on average, as a logarithm; each move costs recentring its past.
        horizon: Votes that the statistics remember.
        trust: Independent votes that the source's statistics count for.
        floor: Share of the mean power that is added to every frequency, so that what hardly ever comes is not blown up.
        smooth: Of the filter: the logarithm of the powers' ratio is averaged over bands, with normal weights whose standard
            deviation is this much of the logarithm of frequency, along which spectra of pictures are straight lines. Each band
            alone is of few scenes; a map of patches averages anyway.
        clip: Largest gain, either way.
        known: Independent votes that the spectrum must be of before frames are made up by it. A drive shows few scenes, and what
            they hold more of than the source's is structure, not noise.
        kept: Votes that recentring and ports count for when the front has moved: they were of other frames. A drive through
            winter that forgot more lost half a point.
    """

    window: int = 32
    growth: float = 4.0
    every: int = 2000
    least: float = 0.05
    horizon: int = 8000
    trust: float = 16.0
    floor: float = 1e-3
    smooth: float = 0.125
    clip: float = 8.0
    known: float = 128.0
    kept: float = 1000.0


class Equalizer:
    """Running spectrum of the stream, and the map that follows from it.

    Args:
        source: Tensors of the bundle's `source` file.
        kernel: Height and width of a patch of the first convolution, which takes a map in; `None` where the filter runs.
        config: How it moves.
        maps: Whether a map that was learned at another level can be served.

    Attributes:
        front: What to serve with; `None` is the identity.
        candidate: What is to be compared with it, if there is something.
    """

    front: Front | None
    candidate: Front | None

    def __init__(
        self,
        source: Mapping[str, NDArray[Any]],
        kernel: tuple[int, int] | None,
        config: EqualizeConfig,
        *,
        maps: bool = True,
    ) -> None:
        self._axes = source["spectrum.axes"].astype(np.float32)
        self._source = Spectrum.of(source)
        height, width = source["spectrum.size"]
        self._size = int(height), int(width)
        self._scale = source["prepare.mean"], source["prepare.std"]
        self._kernel, self._config, self._maps = kernel, config, maps
        self.reset()

    def reset(self) -> None:
        """Back to the factory: the identity."""
        channels = len(self._source.mean)
        self._mean, self._square = np.zeros(channels), np.zeros(channels)
        self._power = np.zeros_like(self._source.power)
        self._weight = self._fitted = self._since = 0.0
        self._gain = np.ones_like(self._source.power)  # of what was fitted last
        self.moves = 0
        self.front = self.candidate = None

    def observe(self, images: NDArray[np.floating], *, factor: float = 1.0) -> bool:
        """Take in votes; may bring up a candidate, and says so.

        Args:
            images: `(votes, channels, height, width)` as the first convolution reads them.
            factor: How many of them are worth one independent vote.
        """
        count, config = len(images), self._config
        if not count:
            return False
        means, power = frame_spectra(images, self._axes)
        kept = min(self._weight, max(config.horizon - count, 0))
        self._weight, self._since = kept + count, self._since + count
        self._mean = (kept * self._mean + means.sum(0)) / self._weight
        self._square = (kept * self._square + np.square(means).sum(0)) / self._weight
        self._power = (kept * self._power + power) / self._weight
        due = self._weight >= max(config.window, config.growth * self._fitted) or self._since >= config.every
        if self.candidate is not None or not due:
            return False
        stream, self._fitted, self._since = self._seen(factor), self._weight, 0.0
        gain, gain_of_means = self._gains(stream)
        if self.moves and np.abs(np.log(gain / self._gain)).mean() < config.least:
            return False
        self.candidate, self._gain = self._fit(stream, gain, gain_of_means), gain
        return True

    def serve(self) -> dict[str, float]:
        """The candidate serves from now on; the numbers of it."""
        self.front, self.candidate = self.candidate, None
        self.moves += 1
        return {"moves": self.moves, "gain_least": float(self._gain.min()), "gain_largest": float(self._gain.max())}

    def serves(self, state: State) -> bool:
        """Whether what a copy stood in front with can stand there in this engine, too."""
        return self._maps or "front.blocks" not in state.tensors

    def fade(self, kept: float) -> None:
        """Statistics count for so many votes at most from now on: they are of other frames than those to come."""
        if self._weight > kept:
            self._weight, self._fitted = kept, 0.0

    def withdraw(self) -> None:
        """No candidate any more."""
        self.candidate = None

    def stream(self, factor: float) -> Spectrum | None:
        """What the stream looks like; `None` before that is known well enough to make up frames by it."""
        return self._seen(factor) if self._weight >= self._config.known * factor else None

    def state(self) -> State:
        """A copy, the candidate included."""
        tensors: dict[str, NDArray[Any]] = {"mean": self._mean, "square": self._square, "power": self._power}
        tensors["gain"] = self._gain
        for name, front in {"front": self.front, "candidate": self.candidate}.items():
            parts = _PATCH if isinstance(front, PatchMap) else _FILTER if front is not None else ()
            tensors |= {f"{name}.{part}": getattr(front, part) for part in parts}
        return State(
            tensors={name: value.copy() for name, value in tensors.items()},
            values={"weight": self._weight, "fitted": self._fitted, "since": self._since, "moves": self.moves},
        )

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        tensors, values = state.tensors, state.values
        self._mean, self._square, self._power = (tensors[name].copy() for name in ("mean", "square", "power"))
        self._gain, self.moves = tensors["gain"].copy(), int(values["moves"])
        self._weight, self._fitted, self._since = (float(values[name]) for name in ("weight", "fitted", "since"))
        self.front, self.candidate = (self._restored(state.part(name).tensors) for name in ("front", "candidate"))

    def _restored(self, tensors: Mapping[str, NDArray[Any]]) -> Front | None:
        """Of whichever kind was stored: a state may have been learned at another level."""
        kept = {part: value.copy() for part, value in tensors.items()}
        if "blocks" in kept and self._maps:
            return PatchMap(axes=self._axes, **kept)
        return self._filter(**kept) if "gain" in kept else None

    def _filter(self, **parts: NDArray[np.float32]) -> FrameFilter:
        mean, std = self._scale
        return FrameFilter(axes=self._axes, mean=mean, std=std, size=self._size, **parts)

    def _seen(self, factor: float) -> Spectrum:
        """The stream's, as far as it is trusted."""
        independent = self._weight / factor
        share = independent / (independent + self._config.trust)
        source, var = self._source, np.maximum(self._square - self._mean**2, 0.0)
        return Spectrum(
            mean=share * self._mean + (1 - share) * source.mean,
            var=share * var + (1 - share) * source.var,
            power=share * self._power + (1 - share) * source.power,
        )

    def _gains(self, stream: Spectrum) -> tuple[Floats64, Floats64]:
        """Of each channel and band, and of the frames' means per channel."""
        source, config = self._source, self._config
        usual, now = (max(float(each.power.mean()), 1e-12) for each in (source, stream))
        # Each in units of its own: all of a contrast that is gone comes back, and only the shape is held to the floor.
        shape = (source.power / usual + config.floor) / (stream.power / now + config.floor)
        if self._kernel is None:
            shape = np.exp(_smoothed(np.log(shape), config.smooth))
        gain = np.clip(np.sqrt(usual / now * shape), 1 / config.clip, config.clip)
        means = np.sqrt((source.var + config.floor) / (stream.var + config.floor))
        return gain, np.clip(means, 1 / config.clip, config.clip)

    def _fit(self, stream: Spectrum, gain: Floats64, gain_of_means: Floats64) -> Front:
        if self._kernel is not None:
            return self._patch(stream, gain, gain_of_means, self._kernel)
        shift = self._source.mean - gain_of_means * stream.mean
        numbers = {"gain": gain, "mean_gain": gain_of_means, "shift": shift}
        return self._filter(**{part: value.astype(np.float32) for part, value in numbers.items()})

    def _patch(self, stream: Spectrum, gain: Floats64, gain_of_means: Floats64, kernel: tuple[int, int]) -> PatchMap:
        """The patch map that comes closest to the filter: `A = C R^-1`, R of the stream, C of filtered with stream."""
        rows, columns = (_lags(size, length) for size, length in zip(self._size, kernel, strict=True))
        counts = np.outer(*(frequencies(size)[1] for size in self._size)) / np.prod(self._size)
        blocks = []
        for channel, power in enumerate(stream.power * counts):
            apart, mean = stream.var[channel], gain_of_means[channel]
            own = _toeplitz(rows.T @ power @ columns + apart)
            cross = _toeplitz(rows.T @ (power * gain[channel]) @ columns + apart * mean)
            ridge = (_RIDGE * own[0, 0] + 1e-12) * np.eye(len(own))
            blocks.append(np.linalg.solve(own + ridge, cross + ridge))  # both are symmetric
        maps = np.stack(blocks).transpose(0, 2, 1)
        shift = (
            self._source.mean[:, None] - maps.sum(2) * stream.mean[:, None]
        )  # the stream's mean goes to the source's
        return PatchMap(axes=self._axes, blocks=maps.astype(np.float32), shift=shift.astype(np.float32))


def _smoothed(values: Floats64, width: float) -> Floats64:
    """Each of `(channels, bands, bands)` averaged with those near it; the frame's mean, which is looked at apart, is none."""
    known = np.ones(values.shape[1:])
    known[0, 0] = _TINY
    rows, columns = (_weights(count, width) for count in values.shape[1:])
    return np.asarray((rows @ (values * known) @ columns) / (rows @ known @ columns))


def _weights(count: int, width: float) -> Floats64:
    """Normal weights `(count, count)` of each for each."""
    place = np.log1p(np.arange(count))
    return np.asarray(np.exp(-0.5 * np.square((place[:, None] - place) / width)))


def _lags(size: int, length: int) -> Floats64:
    """`(bands, 2 length - 1)`: what each band adds to the covariance of two pixels so far apart."""
    apart = np.arange(-(length - 1), length)
    return np.asarray(np.cos(np.pi * frequencies(size)[0][:, None] * apart / size))


def _toeplitz(covariance: Floats64) -> Floats64:
    """Covariance by lag `(2 height - 1, 2 width - 1)` -> between the positions of a patch, row after row."""
    height, width = ((size + 1) // 2 for size in covariance.shape)
    row, column = np.divmod(np.arange(height * width), width)
    return np.asarray(covariance[row[:, None] - row + height - 1, column[:, None] - column + width - 1])
