"""Level 1 where ports may mix channels: against the closed form, and on a network whose statistics can be taken again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from edgessl.runtimes.adapt.ports import Ports, PortsConfig
from edgessl.runtimes.adapt.state import State
from edgessl.runtimes.port import any_mixes, before, mixes
from edgessl.runtimes.split import Observed

CHANNELS, POSITIONS = (3, 5), 11
SIZES = {"window": 12, "growth": 1.5, "every": 10**9, "paired": 4, "horizon": 10**9, "trust": 0.0, "clip": 100.0}
SIZES |= {"mixed": 0.0, "floor": 0.0}


class Network:
    """Port 0 on `(batch, 3, positions)`, a linear layer to 5 channels, and port 1, which mixes."""

    def __init__(self, seed=5):
        rng = np.random.default_rng(seed)
        self.weight, self.bias = rng.normal(0, 1, (5, 3)), rng.normal(0, 1, 5)

    def deep(self, frames, ports):
        (scale, shift), _ = ports
        inside = frames * scale[:, None] + shift[:, None]
        own = np.random.default_rng(0).normal(0, 0.3, (5, POSITIONS))  # else five channels of three would be degenerate
        return np.einsum("oc,bcp->bop", self.weight, np.tanh(inside)) + self.bias[:, None] + own

    def run(self, frames, ports):
        layers = [frames, self.deep(frames, ports)]
        if any_mixes(ports):  # as a trunk that has them in its constants: what is reported comes behind
            for index, (scale, shift) in enumerate(ports):
                matrix = scale if scale.ndim == 2 else np.diag(scale)
                layers[index] = np.einsum("dc,bcp->bdp", matrix, layers[index]) + shift[:, None]
        return Observed(
            latents=layers[1].astype(np.float32),
            means=tuple(layer.mean(2) for layer in layers),
            squares=tuple((layer**2).mean(2) for layer in layers),
            products={1: np.einsum("bcp,bdp->bcd", layers[1], layers[1]) / POSITIONS},
        )


def night(count, seed):
    rng = np.random.default_rng(seed)
    return 0.4 + rng.normal(0, 0.4, (count, 3, 1)) + rng.normal(0, 0.5, (count, 3, POSITIONS))


@pytest.fixture
def source():
    rng = np.random.default_rng(0)
    factor = rng.normal(0, 1, (5, 5))
    spreads = [rng.uniform(0.5, 2, 3), factor @ factor.T + 0.5 * np.eye(5)]
    return [rng.normal(0, 1, c) for c in CHANNELS], spreads


def ports(source, **options):
    return Ports(*source, PortsConfig(**SIZES | options))


def learned(level, network, frames, **options):
    """The level after both ports have moved on these frames."""
    for _ in range(2):
        seen = network.run(frames, level.values)
        level.observe(seen, **options)
        assert level.candidate is not None
        assert level.compare(seen, network.run(frames, level.candidate))
    return level


def columns(deep):
    return deep.transpose(1, 0, 2).reshape(deep.shape[1], -1)


def test_a_port_that_mixes_brings_mean_and_covariance_to_the_sources(source):
    network, frames = Network(), night(40, 1)
    level = learned(ports(source, paired=40, horizon=40), network, frames)
    matrix, shift = level.values[1]
    assert [mixes(port) for port in level.values] == [False, True]
    after = matrix @ columns(network.deep(frames, level.values)) + shift[:, None]
    np.testing.assert_allclose(after.mean(1), source[0][1], atol=1e-3)
    np.testing.assert_allclose(np.cov(after, bias=True), source[1][1], atol=2e-3)


def test_it_is_the_monge_map_in_units_of_the_sources_spreads(source):
    network, frames = Network(), night(40, 1)
    level = learned(ports(source, paired=40, horizon=40), network, frames)
    spreads = np.sqrt(np.diagonal(source[1][1]))
    now, wanted = np.cov(columns(network.deep(frames, level.values)), bias=True), source[1][1]
    now, wanted = (each / np.outer(spreads, spreads) for each in (now, wanted))
    root = sqrtm(now)
    inverse = np.linalg.inv(root)
    monge = inverse @ sqrtm(root @ wanted @ root) @ inverse  # Peyre and Cuturi 2019, remark 2.31
    np.testing.assert_allclose(level.values[1][0], monge * np.outer(spreads, 1 / spreads), atol=2e-3)


def test_with_few_votes_it_is_a_gain_per_channel(source):
    network, frames = Network(), night(40, 1)
    level = learned(ports(source, mixed=1e12, floor=1e-6), network, frames)
    plainly = learned(ports((source[0], [source[1][0], np.diagonal(source[1][1])])), network, frames)
    np.testing.assert_allclose(level.values[1][0], np.diag(plainly.values[1][0]), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(level.values[1][1], plainly.values[1][1], atol=1e-3)


def test_no_direction_is_blown_up_or_flattened_further_than_allowed(source):
    network, frames = Network(), night(40, 1)
    level = learned(ports(source, clip=1.5), network, frames)
    spreads = np.sqrt(np.diagonal(source[1][1]))
    values = np.linalg.eigvalsh(level.values[1][0] / np.outer(spreads, 1 / spreads))
    assert values.min() > 1 / 1.5 - 1e-3
    assert values.max() < 1.5 + 1e-3


def test_carried_statistics_are_those_of_the_same_frames_through_the_new_port(source):
    """Of the means and spreads exactly; what channels have in common is kept as a correlation."""
    network, frames = Network(), night(40, 1)
    level = ports(source, paired=40)
    seen = network.run(frames, level.values)
    correlations = np.corrcoef(columns(network.deep(frames, level.values)))
    level.observe(seen)
    assert level.compare(seen, network.run(frames, level.candidate))
    tensors = level.state().tensors
    deep = columns(network.deep(frames, level.values))
    covariance = tensors["1.square"] - np.outer(tensors["1.mean"], tensors["1.mean"])
    np.testing.assert_allclose(tensors["1.mean"], deep.mean(1), atol=1e-9)
    np.testing.assert_allclose(np.diagonal(covariance), deep.var(1), rtol=1e-6)
    spreads = np.sqrt(np.diagonal(covariance))
    np.testing.assert_allclose(covariance / np.outer(spreads, spreads), correlations, atol=1e-6)


def test_channels_that_are_silent_on_either_side_stay_finite(source):
    source[1][1][:, 2] = source[1][1][2] = 0.0
    network, frames = Network(), night(40, 1)
    network.weight[3] = 0
    level = learned(ports(source, floor=0.01, clip=4.0, paired=40), network, frames)
    assert all(np.isfinite(part).all() for port in level.values for part in port)


def test_a_copy_goes_back_exactly_and_fits_only_ports_that_mix_alike(source):
    network = Network()
    level, other = ports(source), ports(source)
    for seed in range(3):
        seen = network.run(night(8, seed), level.values)
        level.observe(seen)
        if level.candidate is not None:
            level.compare(seen, network.run(night(8, seed), level.candidate))
    state = level.state()
    other.restore(state)
    for name, value in other.state().tensors.items():
        np.testing.assert_array_equal(value, state.tensors[name], strict=True)
    assert other.fits(state)
    assert not ports((source[0], [source[1][0], np.diagonal(source[1][1])])).fits(state)
    assert not other.fits(State())


@pytest.mark.parametrize(("mixing", "products"), [(False, False), (False, True), (True, True)])
def test_statistics_before_a_port_are_found_from_those_behind_it(mixing, products):
    rng = np.random.default_rng(1)
    values = rng.normal(0.5, 1, (5, 40))
    scale = np.eye(5) + rng.normal(0, 0.2, (5, 5)) if mixing else rng.uniform(0.5, 2, 5)
    shift = rng.normal(0, 1, 5)
    behind = (scale if mixing else np.diag(scale)) @ values + shift[:, None]

    def statistics(layer):
        return layer.mean(1), layer @ layer.T / layer.shape[1] if products else (layer**2).mean(1)

    for found, wanted in zip(before((scale, shift), *statistics(behind)), statistics(values), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-9)
