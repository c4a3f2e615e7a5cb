"""What frames of a stream are worth, on streams where it is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgessl.runtimes.adapt.dependence import Dependence, DependenceConfig

DIM = 24
SIZES = {"block": 32, "kept": 512, "groups": 6, "prior": 16.0, "weight": 0.0}  # no belief: what is measured


def dependence(**options):
    return Dependence(DIM, DependenceConfig(**SIZES | options))


def independent(blocks, seed=0, block=32):
    return np.random.default_rng(seed).normal(size=(blocks * block, DIM))


def autoregressive(blocks, rho, seed=0):
    noise = independent(blocks, seed) * np.sqrt(1 - rho**2)
    stream = np.zeros_like(noise)
    stream[0] = noise[0] / np.sqrt(1 - rho**2)
    for at in range(1, len(stream)):
        stream[at] = rho * stream[at - 1] + noise[at]
    return stream


def same(one, two):
    assert one.values == two.values
    for name, value in one.tensors.items():
        np.testing.assert_array_equal(value, two.tensors[name], strict=True)


def test_before_anything_was_seen_the_belief_counts():
    judge = dependence(weight=8.0)
    assert judge.factor == 16
    judge.update(independent(5))  # one block less than it takes
    assert judge.factor == 16


def test_independent_frames_are_worth_themselves():
    judge = dependence()
    judge.update(independent(512))
    assert 1 <= judge.factor < 2


@pytest.mark.parametrize("rho", [0.5, 0.8, 0.9])
def test_an_autoregressive_stream_has_its_known_factor(rho):
    judge = dependence()
    judge.update(autoregressive(512, rho))
    assert judge.factor == pytest.approx((1 + rho) / (1 - rho), rel=0.35)


def test_long_stretches_that_are_all_the_same_count_once():
    judge = dependence()
    stretch = 256
    judge.update(np.repeat(independent(2)[:64], stretch, axis=0) + 0.01 * independent(512, 1))
    assert judge.factor == pytest.approx(stretch, rel=0.5)


def test_a_belief_is_one_of_so_many_blocks():
    measured, judge = dependence(), dependence(weight=8.0)
    seen = autoregressive(24, 0.9)
    measured.update(seen)
    judge.update(seen)
    assert judge.factor == pytest.approx((24 * measured.factor + 8 * 16) / 32)


def test_it_is_the_formula_of_batch_means():
    seen, block = autoregressive(48, 0.95), 32
    judge = dependence()
    judge.update(seen)
    within = np.mean([part.var(0, ddof=1).sum() for part in np.split(seen, 48)])
    variances = {}
    for length in (1, 2, 4, 8):  # 48, 24, 12 and 6 stretches
        variances[length] = np.var([part.mean(0) for part in np.split(seen, 48 // length)], axis=0, ddof=1).sum()
    total = within + variances[1] - within / block
    assert judge.factor == pytest.approx(max(length * block * v / total for length, v in variances.items()))


def test_stretches_do_not_reach_over_a_restart():
    """Days and nights in turn: how far they lie apart says nothing of the frames in them."""
    judge, apart, across = dependence(), dependence(), dependence()
    for part in range(8):
        seen = autoregressive(24, 0.8, seed=part)
        far = 10.0 * (part % 2)
        judge.update(seen)
        apart.update(seen + far)
        across.update(seen + far)
        for other in (judge, apart):
            other.restart()
    assert apart.factor == pytest.approx(judge.factor, rel=1e-9)
    assert across.factor > 5 * judge.factor


def test_a_restart_leaves_the_block_that_is_not_whole_behind():
    judge = dependence()
    judge.update(np.full((31, DIM), 1e6))
    judge.restart()
    judge.update(independent(64))
    assert judge.factor < 3


def test_a_move_leaves_the_factor_unchanged():
    """Where the vectors lie is another matter; in the middle of a block too, and after a restart."""
    still, judge = dependence(), dependence()
    by = np.linspace(-3, 5, DIM)
    for part, moved in ((0, 0.0), (1, 1.0), (2, 2.0)):
        seen = autoregressive(40, 0.8, seed=part)[:-7]
        still.update(seen)
        judge.update(seen + moved * by)
        if part == 1:
            for other in (still, judge):
                other.restart()
        judge.moved(by)
    assert judge.factor == pytest.approx(still.factor, rel=1e-9)


def test_only_the_last_blocks_are_remembered():
    judge, other = dependence(kept=16), dependence(kept=16)
    judge.update(np.concatenate([autoregressive(30, 0.99), tail := independent(16)]))
    other.update(tail)
    assert judge.factor == pytest.approx(other.factor)
    assert len(judge.state().tensors["means"]) == 16


def test_a_camera_that_sees_nothing_at_all_is_judged_by_the_belief():
    judge = dependence(weight=8.0)
    judge.update(np.ones((640, DIM)))
    assert judge.factor == 16


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=10))
def test_it_does_not_matter_how_votes_are_batched(sizes):
    seen = independent(1 + sum(sizes) // 32)[: sum(sizes)]
    once, often = dependence(), dependence()
    once.update(seen)
    for part in np.split(seen, np.cumsum(sizes)[:-1]):
        often.update(part)
    same(once.state(), often.state())


def test_a_copy_goes_back_exactly():
    judge, other = dependence(), dependence()
    judge.update(autoregressive(20, 0.5)[:-5])
    judge.restart()
    judge.update(autoregressive(20, 0.5)[:-5])
    other.restore(judge.state())
    for one in (judge, other):
        one.update(independent(9, 3))
        one.moved(np.ones(DIM))
    same(judge.state(), other.state())
    assert judge.factor == other.factor
