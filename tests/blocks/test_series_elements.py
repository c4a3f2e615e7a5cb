"""Movement elements against plain loops, and the band against scipy's filter and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from edgessl.blocks.series_elements import elements, in_bins, jerk_energy, slow_and_body


def _walk(batch: int = 3, channels: int = 2, time: int = 200) -> torch.Tensor:
    return torch.randn(batch, channels, time, generator=torch.Generator().manual_seed(0))


def test_posture_and_movement_are_told_apart() -> None:
    at = torch.arange(400) / 50  # eight seconds at 50 Hz
    posture, gait, hum = (
        9.81 + 0.5 * torch.cos(2 * np.pi * 0.25 * at),
        torch.sin(2 * np.pi * 2 * at),
        torch.sin(100 * at),
    )
    slow, body = slow_and_body((posture + gait)[None, None], 50.0, (0.5, 12.0))
    torch.testing.assert_close(slow[0, 0], posture, atol=1e-4, rtol=0)
    torch.testing.assert_close(body[0, 0], gait, atol=1e-4, rtol=0)
    body = slow_and_body((posture + gait + hum)[None, None], 50.0, (0.5, 12.0))[1]
    torch.testing.assert_close(body[0, 0, 50:-50], gait[50:-50], atol=0.05, rtol=0)


def test_the_band_is_about_what_a_butterworth_filter_leaves() -> None:
    series = _walk(1, 1, 1000).cumsum(2)
    body = slow_and_body(series, 50.0, (0.5, 12.0))[1][0, 0].numpy()
    sections = signal.butter(4, (0.5, 12.0), "bandpass", fs=50.0, output="sos")
    wanted = signal.sosfiltfilt(sections, series[0, 0].double().numpy())
    assert np.corrcoef(body[100:-100], wanted[100:-100])[0, 1] > 0.9


def test_without_a_rate_all_but_the_mean_is_movement() -> None:
    series = _walk() + 5
    slow, body = slow_and_body(series, None, (0.5, 12.0))
    torch.testing.assert_close(slow, series.mean(2, keepdim=True).expand_as(series))
    torch.testing.assert_close(slow + body, series)


def test_elements_end_where_the_sign_changes() -> None:
    body = torch.tensor([[[1.0, 2, -1, -1, -2, 3, 0.5, -1]]])
    assert elements(body).tolist() == [[[0, 0, 1, 1, 1, 2, 2, 3]]]


def test_an_element_is_hidden_whole_where_its_middle_is() -> None:
    series, bins = _walk(), torch.rand(3, 7, generator=torch.Generator().manual_seed(1)) < 0.5
    number = elements(series)
    found = in_bins(number, bins)
    for row in range(3):
        for channel in range(2):
            of = number[row, channel].numpy()
            for one in np.unique(of):
                at = np.flatnonzero(of == one)
                middle = (at[0] + at[-1] + 1) / 2
                wanted = bool(bins[row, int(middle * 7 / 200)])
                assert (found[row, channel, at].numpy() == wanted).all()


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_energy_of_the_jerk_is_that_of_numpys_difference(steps: int) -> None:
    series = _walk() * torch.tensor([1.0, 100.0]).view(1, 2, 1)
    x = series.double().numpy()
    jerk = ((np.diff(x) / x.std((0, 2), keepdims=True)) ** 2).mean(1)
    part = np.arange(199) * steps // 200
    wanted = np.stack([jerk[:, part == each].mean(1) for each in range(steps)], 1)
    np.testing.assert_allclose(jerk_energy(series, steps).numpy(), wanted, rtol=1e-4)


def test_a_channel_that_stands_still_has_no_energy() -> None:
    assert jerk_energy(torch.full((2, 3, 20), 9.81), 4).tolist() == [[0.0] * 4] * 2
