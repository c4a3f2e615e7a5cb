"""What a body's movement is made of: its band of frequencies, the elements between zero crossings, and where its energy is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgessl.blocks.draws import Range


def slow_and_body(series: Tensor, rate_hz: float | None, band_hz: Range) -> tuple[Tensor, Tensor]:
    """What is slower than a band of frequencies, and what is in it, by leaving bins out of the spectrum.

    Args:
        series: `(batch, channels, time)`.
        rate_hz: Time steps per second; None where it is not known: slow is then the mean, and body all the rest.
        band_hz: Edges of the band. The mean is always slow.

    Returns:
        Two of the shape of `series`.
    """
    spectrum = torch.fft.rfft(series.float())
    cycles = torch.arange(spectrum.shape[2], device=series.device)
    hz = cycles * ((rate_hz or 0) / series.shape[2])
    low = (cycles == 0) | ((hz < band_hz[0]) if rate_hz else torch.zeros_like(cycles, dtype=torch.bool))
    body = ~low & (hz <= band_hz[1])
    slow, moving = (torch.fft.irfft(spectrum * part, series.shape[2]) for part in (low, body))
    return slow.to(series), moving.to(series)


def elements(body: Tensor) -> Tensor:
    """Number each channel's movement elements, the stretches between two zero crossings: 0, 1, ... along time."""
    crossed = torch.signbit(body[..., 1:]) != torch.signbit(body[..., :-1])
    return functional.pad(crossed.long().cumsum(2), (1, 0))


def in_bins(element: Tensor, bins: Tensor) -> Tensor:
    """Elements whose middle lies in a chosen bin of time.

    Args:
        element: Numbers of `elements`, `(batch, channels, time)`.
        bins: bool `(batch, bins)`, over the window in equal parts.

    Returns:
        bool `(batch, channels, time)`: the whole of these elements.
    """
    time = element.shape[2]
    at = torch.arange(time, dtype=torch.float32, device=element.device).expand(element.shape)
    total = torch.zeros_like(at).scatter_add_(2, element, at)
    count = torch.zeros_like(at).scatter_add_(2, element, torch.ones_like(at))
    middle = (total / count.clamp_min(1)).gather(2, element) + 0.5
    bin_ = (middle * bins.shape[1] / time).long()
    return bins[:, None].expand(-1, element.shape[1], -1).gather(2, bin_)


def jerk_energy(series: Tensor, steps: int) -> Tensor:
    """Mean squared difference of neighbouring time steps in each of `steps` equal parts of a window, `(batch, steps)`.

    Channels count alike, whatever their units: each is divided by its spread in the batch.
    """
    spread = series.std((0, 2), keepdim=True, correction=0)
    jerk = (series.diff(dim=2) / torch.where(spread > 0, spread, 1)).square().mean(1)  # (batch, time - 1)
    part = torch.arange(jerk.shape[1], device=series.device) * steps // series.shape[2]
    total = jerk.new_zeros(len(jerk), steps).index_add_(1, part, jerk)
    return total / torch.bincount(part, minlength=steps).clamp_min(1)
