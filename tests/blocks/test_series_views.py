"""Random views of series: what each change does, against numpy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgessl.blocks.series_views import (
    SeriesViewConfig,
    cut,
    random_series_view,
    resampled,
    shuffled,
    turned,
)
from edgessl.errors import InputError

STILL = SeriesViewConfig(span=(1, 1), scale=(1, 1), drop=0, noise=0)


def _series(batch: int = 5, channels: int = 6, time: int = 31) -> torch.Tensor:
    return torch.randn(batch, channels, time, generator=torch.Generator().manual_seed(0))


def _generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_view_with_everything_switched_off_is_the_window() -> None:
    series = _series()
    torch.testing.assert_close(random_series_view(series, _generator(), STILL), series)


def test_the_same_seed_gives_the_same_view_and_another_does_not() -> None:
    series, config = _series(), SeriesViewConfig(segments=4, flip=0.5, turn_deg=20)
    first, again, other = (random_series_view(series, _generator(seed), config) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.05)


def test_resampling_is_numpys_interpolation() -> None:
    series = _series(3, 2, 11)
    at = torch.rand(3, 17, generator=_generator()) * 10
    found = resampled(series, at).numpy()
    for row in range(3):
        for channel in range(2):
            wanted = np.interp(at[row].numpy(), np.arange(11), series[row, channel].numpy())
            np.testing.assert_allclose(found[row, channel], wanted, atol=1e-5)


def test_a_part_of_a_straight_line_is_a_flatter_line() -> None:
    line = torch.linspace(0, 1, 21).expand(400, 1, -1)
    part = cut(line, _generator(), span=(0.4, 0.6))
    slope = part[:, 0, -1] - part[:, 0, 0]
    assert 0.4 <= slope.min() < 0.45
    assert 0.55 < slope.max() <= 0.6001
    assert part.min() >= 0
    assert part.max() <= 1
    torch.testing.assert_close(part.diff(dim=2), (slope / 20)[:, None, None].expand(-1, 1, 20), atol=1e-5, rtol=0)


def test_a_part_can_run_backwards() -> None:
    line = torch.linspace(0, 1, 21).expand(50, 1, -1)
    falling = cut(line, _generator(), span=(1, 1), flip=0.5)[:, 0].diff(dim=1).mean(1) < 0
    assert 10 < int(falling.sum()) < 40


def test_pieces_change_places_and_nothing_is_lost() -> None:
    series = torch.arange(30.0).expand(40, 2, -1)
    mixed = shuffled(series, _generator(), 5)
    assert torch.equal(mixed.sort(dim=2).values, series)
    assert torch.equal(mixed[:, 0], mixed[:, 1])  # channels stay together
    jumps = (mixed[:, 0].diff(dim=1) != 1).sum(1)
    assert int(jumps.min()) >= 0
    assert int(jumps.max()) == 4


def test_a_turn_keeps_lengths_and_angles_of_every_triple() -> None:
    series = _series()
    mounted = turned(series, _generator(), 40).view(5, 2, 3, 31)
    own = series.view(5, 2, 3, 31)
    torch.testing.assert_close(mounted.norm(dim=2), own.norm(dim=2))
    torch.testing.assert_close((mounted[:, 0] * mounted[:, 1]).sum(1), (own[:, 0] * own[:, 1]).sum(1))
    cosine = torch.nn.functional.cosine_similarity(mounted, own, dim=2)
    assert float(cosine.min()) >= np.cos(np.deg2rad(40)) - 1e-5
    assert not torch.allclose(mounted, own, atol=0.01)


def test_a_turn_wants_triples() -> None:
    with pytest.raises(InputError, match="4 channels are no multiple of 3"):
        turned(_series(channels=4), _generator(), 10)


def test_scale_and_noise_are_of_the_channels_own_spread() -> None:
    series = _series(2000, 2, 8) * torch.tensor([1.0, 100.0]).view(1, 2, 1)
    config = SeriesViewConfig(span=(1, 1), scale=(1, 1), drop=0, noise=0.3)
    change = (random_series_view(series, _generator(), config) - series).std((0, 2))
    assert float(change[1] / change[0]) == pytest.approx(100, rel=0.05)
    assert float(change[0]) == pytest.approx(0.3 / np.sqrt(3), rel=0.05)  # of a level drawn evenly from 0 to 0.3


def test_a_dropped_channel_stays_at_its_mean() -> None:
    series = _series(200, 3, 9) + 5
    view = random_series_view(series, _generator(), SeriesViewConfig(span=(1, 1), scale=(1, 1), drop=0.25, noise=0))
    flat = view.std(2) < 1e-5
    assert 0.2 < float(flat.float().mean()) < 0.3
    torch.testing.assert_close(view.mean(2), series.mean(2))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("span", (0.0, 1.0)),
        ("span", (0.5, 1.1)),
        ("scale", (2.0, 1.0)),
        ("drop", 1.5),
        ("noise", -1.0),
        ("segments", 0),
    ],
)
def test_a_setting_out_of_range_is_named(setting: str, value: object) -> None:
    with pytest.raises(InputError, match=setting):
        SeriesViewConfig(**{setting: value})
