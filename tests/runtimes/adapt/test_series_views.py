"""Views of series: each channel by its own measure."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.runtimes.adapt.views import ViewsConfig, view
from edgessl.signals import series_spec

SPEC = series_spec(3, 80)
STILL = {"gain": 1.0, "noise": 0.0, "shift": 0.0, "blur": 0.0, "mask": 0.0}


def recording() -> np.ndarray:
    """Three channels that differ a thousandfold in size."""
    waves = np.sin(np.linspace(0, 9, 80) * np.array([[1], [2], [3]]))
    return (waves * np.array([[0.01], [1], [10]]))[None].repeat(5, 0).astype(np.float32)


def seen(**options: float) -> np.ndarray:
    return view(recording(), SPEC, ViewsConfig(**(STILL | options)), np.random.default_rng(0))


def test_nothing_changes_where_nothing_may() -> None:
    np.testing.assert_array_equal(seen(), recording())


def test_a_view_is_a_series_of_the_same_kind_and_leaves_the_sample_alone() -> None:
    batch = recording()
    views = view(batch, SPEC, ViewsConfig(), np.random.default_rng(0))
    assert views.dtype == np.float32
    assert views.shape == batch.shape
    assert np.isfinite(views).all()
    assert not np.array_equal(views[0], views[1])
    np.testing.assert_array_equal(batch, recording())


def test_each_channel_has_its_own_gain() -> None:
    gains = (seen(gain=1.5) / np.where(recording() == 0, 1, recording()))[:, :, 1:]
    np.testing.assert_allclose(gains, gains[:, :, :1].repeat(79, 2), rtol=1e-4)
    assert 1 / 1.5 <= gains.min() < gains.max() <= 1.5
    assert np.ptp(gains[0, :, 0]) > 0.01


def test_noise_is_a_share_of_each_channels_spread() -> None:
    noise = (seen(noise=0.1) - recording()).std(2) / recording().std(2)
    assert noise.max() < 0.15
    np.testing.assert_allclose(noise, noise[:, :1].repeat(3, 1), rtol=0.5)


def test_a_gap_holds_every_channel_for_a_share_of_the_time() -> None:
    changed = seen(mask=0.5) != recording()
    length = changed.any(1).sum(1)
    assert 0 < length.max() <= 40
    for each in changed.any(1):
        places = np.flatnonzero(each)
        assert len(places) == 0 or np.ptp(places) <= 40


@pytest.mark.parametrize("time", [1, 2])
def test_the_shortest_series_has_views(time: int) -> None:
    batch = np.ones((2, 3, time), np.float32)
    assert view(batch, series_spec(3, time), ViewsConfig(), np.random.default_rng(0)).shape == batch.shape
