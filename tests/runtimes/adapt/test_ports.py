"""Level 1 against its formula."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.runtimes.adapt.ports import Ports, PortsConfig

CHANNELS = (3, 5)


@pytest.fixture
def source():
    rng = np.random.default_rng(0)
    return [rng.normal(0, 1, c) for c in CHANNELS], [rng.uniform(0.5, 2, c) for c in CHANNELS]


def frames(count, seed):
    """Per port, each frame's channel mean and mean square over 11 positions."""
    rng = np.random.default_rng(seed)
    values = [rng.normal(0.4, 0.5, (count, c, 11)) for c in CHANNELS]
    means = tuple(v.mean(2).astype(np.float32) for v in values)
    return means, tuple((v**2).mean(2).astype(np.float32) for v in values), values


def test_starts_at_the_identity(source):
    for scale, shift in Ports(*source, PortsConfig()).values:
        assert (scale == 1).all()
        assert (shift == 0).all()


def test_after_its_window_a_port_brings_mean_and_spread_to_the_sources(source):
    ports = Ports(*source, PortsConfig(window=13))
    means, squares, values = frames(13, 1)
    assert ports.observe(means, squares) == 0
    scale, shift = ports.values[0]
    after = values[0] * scale[None, :, None] + shift[None, :, None]
    np.testing.assert_allclose(after.mean((0, 2)), source[0][0], atol=1e-5)
    np.testing.assert_allclose(after.var((0, 2)), source[1][0], rtol=1e-4)
    assert (ports.values[1][0] == 1).all()


def test_ports_move_one_after_the_other_shallow_first(source):
    ports = Ports(*source, PortsConfig(window=6))
    moved = [ports.observe(*frames(3, seed)[:2]) for seed in range(8)]
    assert moved == [None, 0, None, 1, None, 0, None, 1]
    assert ports.rounds == 2


def test_a_later_round_keeps_a_share_of_the_old_statistics(source):
    ports = Ports(*source, PortsConfig(window=7, keep=0.6, clip=100))
    first, second = frames(7, 1), frames(7, 2)
    for seen in (first, first, second):
        ports.observe(*seen[:2])
    mean, variance = (
        0.6 * statistic(first[2][0]) + 0.4 * statistic(second[2][0])
        for statistic in (lambda v: v.mean((0, 2)), lambda v: v.var((0, 2)))
    )
    scale = np.sqrt(source[1][0] / variance)
    np.testing.assert_allclose(ports.values[0][0], scale, rtol=1e-4)
    np.testing.assert_allclose(ports.values[0][1], source[0][0] - scale * mean, atol=1e-4)


def test_a_channel_that_fell_silent_is_not_blown_up(source):
    ports = Ports(*source, PortsConfig(window=4, clip=3.0))
    silent = tuple(np.zeros((4, c), np.float32) for c in CHANNELS)
    ports.observe(silent, silent)
    assert (ports.values[0][0] == 3).all()


def test_a_copy_goes_back_exactly(source):
    ports, other = Ports(*source, PortsConfig(window=5)), Ports(*source, PortsConfig(window=5))
    for seed in range(3):
        ports.observe(*frames(4, seed)[:2])
    other.restore(ports.state())
    for seed in range(3, 8):
        assert ports.observe(*frames(4, seed)[:2]) == other.observe(*frames(4, seed)[:2])
    for one, two in zip(ports.values, other.values, strict=True):
        np.testing.assert_array_equal(one, two)
