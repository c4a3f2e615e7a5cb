"""Random views of series, drawn for a whole batch at once: the sensor's twin of `image_views`.

The order is that of a recording: when it is cut out and how fast it runs, how the sensor is mounted, what it measures of it,
noise. Strengths are shares of each channel's own spread in the batch, so that one setting suits accelerations in m/s² and
rates in rad/s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from edgessl.blocks.draws import Range, chance, log_uniform, normal, uniform
from edgessl.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SeriesViewConfig:
    """How far a view may be from its window.

    The kinds of change are those of Um et al. 2017 (arXiv:1706.00527); the strengths are ours, and mild: what tells sitting
    down from standing up is small beside what a gait does.

    Attributes:
        span: Share of the window that is cut out and stretched to its length.
        flip: Probability that the window runs backwards.
        segments: Up to so many pieces of the window change places; 1 keeps the order.
        turn_deg: Largest turn of the sensor about a random axis. For channels in triples (x, y, z) only; 0 for others.
        scale: Factor on each channel's distance from its mean, drawn evenly on a logarithmic scale.
        drop: Probability that a channel says nothing: it stays at its mean.
        noise: Largest standard deviation of the added noise, as a share of the channel's.
    """

    span: Range = (0.8, 1.0)
    flip: float = 0.0
    segments: int = 1
    turn_deg: float = 0.0
    scale: Range = (0.7, 1.4)
    drop: float = 0.0
    noise: float = 0.05

    def __post_init__(self) -> None:
        for name, most in (("span", 1.0), ("scale", math.inf)):
            low, high = getattr(self, name)
            if not (0 < low <= high <= most and high < math.inf):
                raise InputError(f"{name} must be a range of positive numbers up to {most}, not {low} to {high}")
        for name in ("flip", "drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is a probability, 0 to 1, not {getattr(self, name)}")
        for name in ("turn_deg", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.segments < 1:
            raise InputError(f"segments counts pieces of the window, 1 or more, not {self.segments}")


def random_series_view(series: Tensor, generator: torch.Generator, config: SeriesViewConfig) -> Tensor:
    """One view of each window.

    Args:
        series: float `(batch, channels, time)`.
        generator: Where all chance comes from; it may live on the CPU while the series do not.
        config: How far a view may be from its window.

    Returns:
        float `(batch, channels, time)`.

    Raises:
        InputError: `turn_deg` is set and the channels do not come in triples.
    """
    spread = series.std((0, 2), keepdim=True, correction=0)  # (1, channels, 1)
    x = cut(series, generator, span=config.span, flip=config.flip)
    if config.segments > 1:
        x = shuffled(x, generator, config.segments)
    if config.turn_deg:
        x = turned(x, generator, config.turn_deg)
    middle = x.mean(2, keepdim=True)
    factor = log_uniform(middle, generator, *config.scale)
    factor = torch.where(chance(middle, generator, config.drop), 0, factor)
    x = middle + (x - middle) * factor
    if config.noise:
        level = uniform(x.new_zeros(len(x), 1, 1), generator, 0, config.noise)
        x = x + normal(x, generator) * level * spread
    return x


def cut(series: Tensor, generator: torch.Generator, *, span: Range, flip: float = 0.0) -> Tensor:
    """Cut a part out of each window and stretch it to the window's length, linear between its steps.

    Args:
        series: `(batch, channels, time)`.
        generator: Draws the parts.
        span: Share of the window in the part.
        flip: Probability that the part runs backwards.
    """
    at = series.new_zeros(len(series), 1)
    share = uniform(at, generator, *span)
    start = uniform(at, generator, 0, 1) * (1 - share)
    line = torch.linspace(0, 1, series.shape[2], dtype=series.dtype, device=series.device).expand(len(series), -1)
    line = torch.where(chance(at, generator, flip), 1 - line, line)
    return resampled(series, (start + share * line) * (series.shape[2] - 1))


def resampled(series: Tensor, at: Tensor) -> Tensor:
    """Values at fractional time steps, linear between the steps.

    Args:
        series: `(batch, channels, time)`.
        at: `(batch, new time)` in 0..time - 1.
    """
    low = at.floor().clamp(0, max(series.shape[2] - 2, 0)).long()
    high = (low + 1).clamp(max=series.shape[2] - 1)
    part = (at - low)[:, None]
    return torch.lerp(_steps(series, low), _steps(series, high), part)


def shuffled(series: Tensor, generator: torch.Generator, most: int) -> Tensor:
    """Each window in up to `most` pieces of about equal length, put together in another order."""
    batch, _, time = series.shape
    count = uniform(series.new_zeros(batch, 1), generator, 1, most + 1).floor().clamp(1, most)
    piece = (torch.arange(time, device=series.device) * count / time).floor()  # (batch, time), of 0..count - 1
    order = uniform(series.new_zeros(batch, most), generator, 0, 1)  # where each piece goes
    place = order.gather(1, piece.long())
    return _steps(series, place.argsort(dim=1, stable=True))


def turned(series: Tensor, generator: torch.Generator, turn_deg: float) -> Tensor:
    """Every triple of channels of a window turned about the same random axis, by up to `turn_deg`."""
    batch, channels, time = series.shape
    if channels % 3:
        raise InputError(f"turn_deg turns triples (x, y, z); {channels} channels are no multiple of 3. Set it to 0")
    axis = torch.nn.functional.normalize(normal(series.new_zeros(batch, 3), generator), dim=1)
    angle = uniform(series.new_zeros(batch, 1, 1), generator, -turn_deg, turn_deg).deg2rad()
    cross = torch.linalg.cross(torch.eye(3).to(axis).expand(batch, 3, 3), axis[:, None].expand(batch, 3, 3)).mT
    one = torch.eye(3).to(axis)
    turn = one + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)  # Rodrigues
    triples: Tensor = turn[:, None] @ series.view(batch, channels // 3, 3, time)
    return triples.view_as(series)


def _steps(series: Tensor, at: Tensor) -> Tensor:
    """The steps at `(batch, new time)` of every channel."""
    return series.gather(2, at[:, None].expand(-1, series.shape[1], -1))
