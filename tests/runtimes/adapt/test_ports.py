"""Level 1 against its formula, and on a network of two ports whose statistics can be taken again from scratch."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.runtimes.adapt.ports import Ports, PortsConfig
from edgessl.runtimes.split import Observed

CHANNELS, POSITIONS = (3, 5), 11
SIZES = {"window": 12, "growth": 1.5, "every": 10**9, "paired": 4, "horizon": 10**9, "trust": 0.0, "clip": 100.0}


class Network:
    """Port 0 on `(batch, 3, positions)`, a ReLU or none, a linear layer to 5 channels, and port 1."""

    def __init__(self, *, relu, seed=5):
        rng = np.random.default_rng(seed)
        self.weight, self.bias, self.relu = rng.normal(0, 1, (5, 3)), rng.normal(0, 1, 5), relu

    def run(self, frames, ports):
        (scale, shift), _ = ports
        inside = frames * scale[:, None] + shift[:, None]
        inside = np.maximum(inside, 0) if self.relu else inside
        deep = np.einsum("oc,bcp->bop", self.weight, inside) + self.bias[:, None]
        layers = (frames, deep)
        return Observed(
            latents=deep.astype(np.float32),
            means=tuple(layer.mean(2) for layer in layers),
            squares=tuple((layer**2).mean(2) for layer in layers),
        )


def night(count, seed):
    rng = np.random.default_rng(seed)
    return 0.4 + rng.normal(0, 0.4, (count, 3, 1)) + rng.normal(0, 0.5, (count, 3, POSITIONS))


@pytest.fixture
def source():
    rng = np.random.default_rng(0)
    return [rng.normal(0, 1, c) for c in CHANNELS], [rng.uniform(0.5, 2, c) for c in CHANNELS]


def ports(source, **options):
    return Ports(*source, PortsConfig(**SIZES | options))


def statistics(observed, index):
    """Of all frames and positions: mean and variance per channel."""
    mean = observed.means[index].mean(0, dtype=float)
    return mean, observed.squares[index].mean(0, dtype=float) - mean**2


def held(level, index):
    tensors = level.state().tensors
    mean = tensors[f"{index}.mean"]
    return mean, tensors[f"{index}.square"] - mean**2


def step(level, network, frames, **options):
    """Votes as the learner gives them: through the present position, and through the candidate if there is one."""
    seen = network.run(frames, level.values)
    level.observe(seen, **options)
    return level.candidate is not None and level.compare(seen, network.run(frames, level.candidate))


def same(one, two):
    assert one.values == two.values
    for name, value in one.tensors.items():
        np.testing.assert_array_equal(value, two.tensors[name], strict=True)


def test_starts_at_the_identity(source):
    level = ports(source)
    assert (level.candidate, level.moves) == (None, 0)
    for scale, shift in level.values:
        assert (scale == 1).all()
        assert (shift == 0).all()


def test_a_candidate_appears_after_its_window_and_serves_after_its_pairs(source):
    level, network = ports(source, window=12, paired=4), Network(relu=True)
    came, served = [], []
    for vote in range(20):
        served.append(step(level, network, night(1, vote)))
        came.append(level.candidate is not None)
        if served[-1]:
            break
    assert came == [False] * 11 + [True] * 3 + [False]
    assert served == [False] * 14 + [True]
    assert level.moves == 1


def test_the_first_port_stays_where_something_in_front_of_it_moves(source):
    level, network = Ports(*source, PortsConfig(**SIZES), still=1), Network(relu=True)
    for vote in range(100):
        step(level, network, night(1, vote))
    assert level.moves > 2
    for part, identity in zip(level.values[0], (1, 0), strict=True):
        assert (part == identity).all()
    assert (level.values[1][0] != 1).all()


@pytest.mark.parametrize(("spread", "moved"), [(1.0, True), (3.0, False)])
def test_ports_stay_where_what_moves_in_front_adds_more_than_frames_have(source, spread, moved):
    """Variance at the first port, in units of the source's, is 1 and 9 times what `excess` is set to over."""
    means, variances = source
    network, own = Network(relu=True), variances[0][:, None]
    level = Ports(means, variances, PortsConfig(**SIZES, excess=2.0), still=1)

    def seen(vote):
        return np.random.default_rng(vote).normal(0, spread, (1, 3, POSITIONS)) * np.sqrt(own)

    for vote in range(100):
        step(level, network, seen(vote))
    assert (level.moves > 0) == moved


def test_ports_that_moved_go_back_one_by_one_each_compared_first(source):
    means, variances = source
    network, own = Network(relu=True), variances[0][:, None]
    level = Ports(means, variances, PortsConfig(**SIZES, excess=2.0), still=1)

    def seen(vote, spread):
        return np.random.default_rng(vote).normal(0, spread, (1, 3, POSITIONS)) * np.sqrt(own)

    for vote in range(40):
        step(level, network, seen(vote, 1.0))
    while level.candidate is not None:
        step(level, network, seen(40, 1.0))
    before = level.moves
    assert before > 0
    assert (level.values[1][0] != 1).any()
    for vote in range(200):
        step(level, network, seen(vote, 100.0))
    assert level.moves == before + 1
    assert level.candidate is None
    for scale, shift in level.values:
        assert (scale == 1).all()
        assert (shift == 0).all()
    again = Ports(means, variances, PortsConfig(**SIZES, excess=2.0), still=1)
    again.restore(level.state())
    same(again.state(), level.state())


def test_a_candidate_does_not_serve_before_it_was_compared(source):
    level, network = ports(source), Network(relu=True)
    level.observe(network.run(night(12, 1), level.values))
    assert level.candidate is not None
    for scale, shift in level.values:
        assert (scale == 1).all()
        assert (shift == 0).all()


def test_a_port_brings_mean_and_spread_to_the_sources(source):
    level, network = ports(source), Network(relu=True)
    frames = night(12, 1)
    assert step(level, network, frames)
    scale, shift = level.values[0]
    after = frames * scale[:, None] + shift[:, None]
    np.testing.assert_allclose(after.mean((0, 2)), source[0][0], atol=1e-5)
    np.testing.assert_allclose(after.var((0, 2)), source[1][0], rtol=1e-4)
    assert (level.values[1][0] == 1).all()


@pytest.mark.parametrize("factor", [1.0, 6.0])
def test_few_independent_votes_leave_part_of_the_way(source, factor):
    level, network = ports(source, trust=5.0), Network(relu=True)
    frames = night(12, 1)
    step(level, network, frames, factor=factor)
    share = (12 / factor) / (12 / factor + 5)
    mean = share * frames.mean((0, 2)) + (1 - share) * source[0][0]
    scale = np.sqrt(source[1][0] / (share * frames.var((0, 2)) + (1 - share) * source[1][0]))
    np.testing.assert_allclose(level.values[0][0], scale, rtol=1e-5)
    np.testing.assert_allclose(level.values[0][1], source[0][0] - scale * mean, atol=1e-5)


@pytest.mark.parametrize("relu", [False, True])
def test_carried_statistics_are_those_of_the_same_frames_through_the_new_port(source, relu):
    """The pairs are the frames that the statistics were taken of: the carried ones must be exact."""
    level, network, frames = ports(source, paired=24), Network(relu=relu), night(12, 1)
    assert not step(level, network, frames)
    assert step(level, network, frames)
    again = network.run(frames, level.values)
    for index in range(2):
        for carried, fresh in zip(held(level, index), statistics(again, index), strict=True):
            np.testing.assert_allclose(carried, fresh, rtol=1e-9, atol=1e-9)
    assert not np.allclose(again.means[1], network.run(frames, Ports(*source, PortsConfig()).values).means[1], atol=0.1)


def test_of_a_linear_layer_any_pairs_carry_a_shift_exactly(source):
    """A port that only shifts (`clip=1`) moves all frames of a linear network alike: four pairs say it all."""
    level, network = ports(source, clip=1.0, window=60, paired=4), Network(relu=False)
    frames = night(63, 1)
    for start in range(63):
        served = step(level, network, frames[start : start + 1])
    assert served
    again = network.run(frames, level.values)
    for carried, fresh in zip(held(level, 1), statistics(again, 1), strict=True):
        np.testing.assert_allclose(carried, fresh, rtol=1e-6, atol=1e-6)


def test_carried_statistics_of_other_frames_are_much_nearer_than_the_pairs_own(source):
    """All that a port's move used to leave the deeper ones was what came after it."""
    carried, alone = [], []
    for seed in range(8):
        level, network = ports(source, window=400, paired=32), Network(relu=True, seed=seed)
        frames = night(431, seed)
        for start in range(431):
            served = step(level, network, frames[start : start + 1])
        assert served
        mean, variance = statistics(network.run(frames, level.values), 1)
        pairs, _ = statistics(network.run(frames[-32:], level.values), 1)
        carried.append(np.abs(held(level, 1)[0] - mean) / np.sqrt(variance))
        alone.append(np.abs(pairs - mean) / np.sqrt(variance))
    assert np.mean(carried) < 0.6 * np.mean(alone)


def test_moving_a_deep_port_leaves_the_shallow_ones_statistics_alone(source):
    level, network, frames = ports(source, paired=12, growth=4.0), Network(relu=True), night(12, 1)
    step(level, network, frames)
    before = held(level, 0)
    level.observe(network.run(frames, level.values))
    assert level.port == 1
    level.compare(network.run(frames, level.values), network.run(frames, level.candidate))
    for now, then in zip(held(level, 0), before, strict=True):
        np.testing.assert_allclose(now, then, atol=1e-12)


def test_ports_move_shallow_first_and_each_again_when_there_is_enough_new(source):
    level, network = ports(source, window=8, growth=2.0, paired=4), Network(relu=True)
    moved = []
    for vote in range(11):
        shallow = level.values[0]
        if step(level, network, night(4, vote)):
            moved.append((4 * (vote + 1), 1 if level.values[0] is shallow else 0))
    assert moved == [(8, 0), (12, 1), (16, 0), (24, 1), (32, 0)]


def test_at_the_horizon_a_port_still_moves_now_and_then(source):
    level, network = ports(source, window=8, horizon=16, every=40, growth=10.0, paired=4), Network(relu=True)
    moves = [step(level, network, night(4, vote)) for vote in range(30)]
    assert level.state().values["weight"] == 16
    #                                                        ports 0 and 1, each 40 votes after it moved last
    assert [4 * (at + 1) for at, moved in enumerate(moves) if moved] == [8, 12, 48, 52, 88, 92]


def test_old_votes_are_forgotten(source):
    level, network = ports(source, window=10**6, horizon=20, every=10**6), Network(relu=True)
    step(level, network, night(12, 1) + 50)
    for seed in range(2, 60):
        step(level, network, frames := night(4, seed))
    assert (np.abs(held(level, 0)[0] - frames.mean((0, 2))) < 1).all()


def test_a_channel_that_fell_silent_is_not_blown_up(source):
    level, network = ports(source, clip=3.0), Network(relu=True)
    step(level, network, np.zeros((12, 3, POSITIONS)))
    assert (level.values[0][0] == 3).all()


def test_a_channel_that_is_silent_in_the_source_stays_finite(source):
    source[1][0][1] = 0.0
    level, network = ports(source, clip=3.0), Network(relu=True)
    step(level, network, night(12, 1))
    assert all(np.isfinite(part).all() for port in level.values for part in port)
    assert level.values[0][0][1] == np.float32(1 / 3)


def test_no_votes_change_nothing(source):
    level, network = ports(source), Network(relu=True)
    step(level, network, night(5, 1))
    before = level.state()
    step(level, network, night(0, 1))
    same(level.state(), before)


def test_without_ports_there_is_nothing_to_do():
    level = Ports([], [], PortsConfig())
    level.observe(Observed(latents=np.zeros((3, 2), np.float32), means=(), squares=()))
    assert level.candidate is None
    assert level.values == ()


def test_a_copy_goes_back_exactly(source):
    level, other, network = ports(source), ports(source), Network(relu=True)
    for seed in range(3):
        step(level, network, night(4, seed))
    assert level.candidate is None
    assert level.moves == 1
    other.restore(level.state())
    for seed in range(3, 12):
        assert step(level, network, night(4, seed)) == step(other, network, night(4, seed))
    same(level.state(), other.state())
    for one, two in zip(level.values, other.values, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_copy_in_the_middle_of_a_comparison_goes_back_exactly(source):
    level, other, network = ports(source, paired=8), ports(source, paired=8), Network(relu=True)
    for seed in range(3):
        step(level, network, night(4, seed))
    assert level.candidate is not None
    other.restore(level.state())
    for seed in range(3, 8):
        assert step(level, network, night(4, seed)) == step(other, network, night(4, seed))
    same(level.state(), other.state())


def test_what_moves_in_front_carries_the_statistics_of_every_port(source):
    """A gain in front of a linear network: 16 pairs carry all that was seen of 200 frames."""
    level, network = ports(source, window=10**9), Network(relu=False)
    frames = night(200, 1)
    level.observe(network.run(frames, level.values))
    level.give_way()
    assert level.port == -1
    middle = ports(source, window=10**9)
    middle.restore(level.state())
    for one in (level, middle):
        assert one.candidate is one.values
        pairs = night(16, 2)
        assert one.compare(network.run(pairs, one.values), network.run(1.7 * pairs, one.values))
        assert (one.candidate, one.moves) == (None, 0)
        again = network.run(1.7 * frames, one.values)
        for index in range(2):
            mean, variance = held(one, index)
            wanted, spread = statistics(again, index)
            np.testing.assert_allclose(mean, wanted, atol=0.25)
            np.testing.assert_allclose(variance, spread, rtol=0.25)
    same(level.state(), middle.state())


def test_faded_statistics_count_for_so_many_votes(source):
    level, network = ports(source, window=10**9), Network(relu=True)
    level.observe(network.run(night(200, 1), level.values))
    before = held(level, 0)[0]
    level.fade(50)
    np.testing.assert_array_equal(held(level, 0)[0], before)
    seen = network.run(night(50, 2) + 3, level.values)
    level.observe(seen)
    np.testing.assert_allclose(held(level, 0)[0], (before + seen.means[0].mean(0)) / 2)


def test_reset_is_the_factory(source):
    level, network = ports(source), Network(relu=True)
    fresh = level.state()
    for seed in range(3):
        step(level, network, night(4, seed))
    level.reset()
    same(level.state(), fresh)
    assert level.candidate is None
