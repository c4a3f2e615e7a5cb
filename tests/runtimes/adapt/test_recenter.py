"""Level 0 against numpy, scipy and its own formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from edgessl.runtimes.adapt.recenter import Recenter, RecenterConfig, transport

DIM = 5
FREE = {"outlier": 1e9, "growth": 1.0, "horizon": 10**9}  # nothing is pulled in or forgotten, each block counts at once


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def spread(seed, dim=DIM):
    """A covariance `(dim, dim)`, axes at an angle to the coordinates."""
    axes = np.random.default_rng(seed).normal(size=(dim, 3 * dim))
    return axes @ axes.T / (100 * dim)


def votes(count, seed=1, at=0.4):
    rng = np.random.default_rng(seed)
    return (at + rng.normal(0, 0.2, (count, DIM)) @ rng.normal(0, 1, (DIM, DIM))).astype(np.float32)


def recenter(**options):
    mean = np.random.default_rng(0).normal(0, 0.3, DIM)
    return Recenter(mean, spread(0), RecenterConfig(**FREE | {"block": 8} | options)), mean, spread(0)


def same(one, two):
    assert one.values == two.values
    assert one.tensors.keys() == two.tensors.keys()
    for name, value in one.tensors.items():
        np.testing.assert_array_equal(value, two.tensors[name], strict=True)


@pytest.mark.parametrize("seed", range(5))
def test_the_transport_takes_one_covariance_to_the_other(seed):
    start, end = spread(seed), spread(seed + 50)
    matrix = transport(start, end)
    np.testing.assert_allclose(matrix @ start @ matrix, end, atol=1e-12)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert (np.linalg.eigvalsh(matrix) > 0).all()


def test_the_transport_is_the_closed_form():
    start, end = spread(1), spread(2)
    root = sqrtm(start)
    inverse = np.linalg.inv(root)
    np.testing.assert_allclose(transport(start, end), inverse @ sqrtm(root @ end @ root) @ inverse, rtol=1e-8)


def test_the_transport_moves_no_further_than_any_other_map():
    """Among maps that give the same covariance, `Q T` for orthogonal `Q` about the end's root, it moves least."""
    start, end = spread(3), spread(4)

    def cost(matrix):
        gap = matrix - np.eye(DIM)
        return np.trace(gap @ start @ gap.T)

    inverse = np.linalg.inv(sqrtm(start))
    least = cost(transport(start, end))
    for seed in range(20):
        turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(DIM, DIM)))
        other = sqrtm(end) @ turn @ inverse
        np.testing.assert_allclose(other @ start @ other.T, end, atol=1e-12)
        assert cost(other) > least


def test_from_a_covariance_to_itself_is_the_identity():
    np.testing.assert_allclose(transport(spread(1), spread(1)), np.eye(DIM), atol=1e-9)


def test_before_a_whole_block_it_is_the_identity():
    level, *_ = recenter(block=8)
    assert not level.update(votes(7))
    assert level.affine is None


def test_the_running_statistics_are_numpys():
    level, *_ = recenter(block=8)
    seen = votes(40)
    level.update(seen)
    state = level.state()
    np.testing.assert_allclose(level.mean, seen.mean(0, dtype=float), atol=1e-12)
    np.testing.assert_allclose(
        state.tensors["moment"] / state.values["weight"],
        np.cov(seen.astype(float), rowvar=False, bias=True),
        atol=1e-12,
    )


@pytest.mark.parametrize("factor", [1.0, 5.0])
def test_the_correction_is_the_closed_form(factor):
    level, mean, covariance = recenter(block=8, trust=30.0, prior=50.0, floor=0.2)
    seen = votes(40)
    assert level.update(seen, factor=factor)
    independent = 40 / factor
    trust, share = independent / (independent + 30), independent / (independent + 50)
    floor = 0.2 * np.trace(covariance) / DIM * np.eye(DIM)
    start = share * np.cov(seen.astype(float), rowvar=False, bias=True) + (1 - share) * covariance + floor
    matrix = np.linalg.inv(sqrtm(start)) @ sqrtm(sqrtm(start) @ (covariance + floor) @ sqrtm(start))
    matrix = matrix @ np.linalg.inv(sqrtm(start))
    centre = (1 - trust) * mean + trust * seen.mean(0, dtype=float)
    np.testing.assert_allclose(level.affine.matrix, matrix, atol=1e-5)
    np.testing.assert_allclose(level.affine.shift, mean - centre @ matrix, atol=1e-5)


def test_with_full_trust_the_stream_gets_the_sources_mean_and_covariance():
    level, mean, covariance = recenter(trust=0.0, prior=0.0, floor=0.0)
    seen = votes(400)
    level.update(seen)
    after = seen @ level.affine.matrix + level.affine.shift
    np.testing.assert_allclose(after.mean(0), mean, atol=1e-4)
    np.testing.assert_allclose(np.cov(after, rowvar=False, bias=True), covariance, atol=1e-4)


def test_a_direction_that_never_varied_is_not_blown_up():
    level, _, covariance = recenter(trust=0.0, prior=0.0, floor=0.1)
    flat = votes(400)
    flat[:, 0] = 0.4
    level.update(flat)
    floor = 0.1 * np.trace(covariance) / DIM
    largest = np.linalg.norm(covariance, 2) + floor
    # The matrix is the geometric mean of the end and the inverse of the start, whose norms bound its own.
    assert np.linalg.norm(level.affine.matrix, 2) <= np.sqrt(largest / floor) * (1 + 1e-6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_it_does_not_matter_how_votes_are_batched(sizes):
    seen = votes(sum(sizes))
    once, *_ = recenter(growth=1.25, horizon=100, outlier=1.0)
    often, *_ = recenter(growth=1.25, horizon=100, outlier=1.0)
    once.update(seen, factor=3.0)
    for part in np.split(seen, np.cumsum(sizes)[:-1]):
        often.update(part, factor=3.0)
    same(once.state(), often.state())


@pytest.mark.parametrize("before", [0, 3, 8, 21])
def test_moved_vectors_leave_the_statistics_as_if_they_had_always_been_there(before):
    """A move in the middle of a block included."""
    by = np.linspace(-0.3, 0.4, DIM)
    level, *_ = recenter(trust=0.0)
    other, *_ = recenter(trust=0.0)
    first, rest = votes(before, 1), votes(48, 2)
    level.update(first)
    level.moved(by)
    other.update((first + by).astype(np.float32))
    if before >= 8:
        np.testing.assert_allclose(level.affine.matrix, other.affine.matrix, atol=1e-5)
        np.testing.assert_allclose(level.affine.shift, other.affine.shift, atol=1e-5)
    level.update(rest)
    other.update(rest)
    np.testing.assert_allclose(level.mean, other.mean, atol=1e-6)
    np.testing.assert_allclose(level.affine.matrix, other.affine.matrix, atol=1e-4)
    np.testing.assert_allclose(level.affine.shift, other.affine.shift, atol=1e-4)


def test_a_move_alone_changes_no_corrected_vector():
    """However much of the mean is trusted: that the vectors moved is known, not estimated."""
    level, *_ = recenter(trust=100.0)
    seen, by = votes(16), np.linspace(-0.3, 0.4, DIM)
    level.update(seen)
    before = level.affine.apply(seen)
    level.moved(by)
    np.testing.assert_allclose(level.affine.apply((seen + by).astype(np.float32)), before, atol=1e-5)


def test_outliers_move_the_mean_no_further_than_their_bound():
    level, _, covariance = recenter(block=8, outlier=3.0)
    level.update(votes(64))
    before = level.mean.copy()
    level.update(np.full((8, DIM), 1e6, np.float32))
    assert np.linalg.norm(level.mean - before) <= 3.0 * np.sqrt(np.trace(covariance)) * 8 / 72 * (1 + 1e-9)


def test_old_votes_are_forgotten():
    level, *_ = recenter(block=8, horizon=24, trust=0.0, prior=0.0)
    level.update(votes(80, 1, at=4.0))
    level.update(late := votes(400, 2, at=-4.0))
    np.testing.assert_allclose(level.mean, late[-24:].mean(0), atol=1.0)
    assert level.state().values["weight"] == 24


def test_it_is_worked_out_anew_only_when_there_is_enough_new():
    level, *_ = recenter(block=8, growth=2.0, every=40)
    changed = [level.update(votes(8, seed)) for seed in range(16)]
    #                                8, 16, 32, 64 votes, and 40 after
    assert [8 * (at + 1) for at, new in enumerate(changed) if new] == [8, 16, 32, 64, 104]


def test_a_copy_goes_back_exactly():
    level, *_ = recenter()
    other, *_ = recenter()
    level.update(votes(21))
    other.restore(level.state())
    level.update(votes(30, 2))
    other.update(votes(30, 2))
    same(level.state(), other.state())


def test_a_copy_does_not_change_afterwards():
    level, *_ = recenter()
    level.update(votes(21))
    copy = level.state()
    kept = {name: value.copy() for name, value in copy.tensors.items()}
    level.update(votes(30, 2))
    level.moved(np.ones(DIM))
    for name, value in kept.items():
        np.testing.assert_array_equal(copy.tensors[name], value)


def test_reset_is_the_factory():
    level, *_ = recenter()
    fresh = level.state()
    level.update(votes(21))
    level.reset()
    assert level.affine is None
    same(level.state(), fresh)


def test_faded_statistics_count_for_so_many_votes():
    level, *_ = recenter(block=50)
    level.update(votes(200, at=0.4))
    before = level.mean.copy()
    level.fade(50)
    np.testing.assert_array_equal(level.mean, before)
    fresh = votes(50, seed=2, at=5.0)
    level.update(fresh)
    np.testing.assert_allclose(level.mean, (before + fresh.mean(0)) / 2, rtol=1e-5)
