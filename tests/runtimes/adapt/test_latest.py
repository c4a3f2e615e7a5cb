"""The ring of latents that says how the stream's vectors move with the tail."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.runtimes.adapt.latest import Latest, LatestConfig, Moved
from edgessl.runtimes.adapt.recenter import Recenter, RecenterConfig

LATENT, DIM = (3, 2, 5), 4
SCALE = np.array([0.01, 0.02, 0.03], np.float32).reshape(1, 3, 1, 1)


def ring(budget_bytes=2**20, **options):
    return Latest(LATENT, SCALE, budget_bytes, LatestConfig(**options))


def latents(count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, *LATENT)).astype(np.float32)


def linear(seed):
    rng = np.random.default_rng(seed)
    matrix, shift = rng.normal(size=(30, DIM)), rng.normal(size=DIM)
    return lambda x: (x.reshape(len(x), -1) @ matrix + shift).astype(np.float32)


@pytest.mark.parametrize("parts", [[60], [1, 7, 30, 22], [59, 1]])
def test_it_holds_the_latest_within_its_budget(parts):
    held, seen = ring(budget_bytes=1000, enough=2), latents(60)
    for part in np.split(seen, np.cumsum(parts)[:-1]):
        held.add(part)
        assert held.size_bytes <= 1000
    assert len(held) == 33
    exact = linear(1)(seen[-33:]).mean(0) - linear(2)(seen[-33:]).mean(0)
    np.testing.assert_allclose(held.moved(linear(2), linear(1)).by, exact, atol=0.02)


def test_mean_and_covariance_move_as_those_of_the_same_latents():
    held, seen = ring(), latents(300)
    held.add(seen)
    rounded = np.rint(seen / SCALE) * SCALE
    old, new = linear(1)(rounded), linear(2)(rounded)
    moved = held.moved(linear(1), linear(2))
    np.testing.assert_allclose(moved.by, new.mean(0) - old.mean(0), atol=1e-5)
    np.testing.assert_allclose(moved.grown, np.cov(new.T, bias=True) - np.cov(old.T, bias=True), atol=1e-5)


def test_of_few_the_covariance_says_nothing():
    held = ring(enough=100)
    held.add(latents(99))
    assert held.moved(linear(1), linear(2)).grown is None
    held.add(latents(1))
    assert held.moved(linear(1), linear(2)).grown is not None


def test_two_moves_are_one():
    held = ring()
    held.add(latents(300))
    first, second, both = (held.moved(linear(a), linear(b)) for a, b in ((1, 2), (2, 3), (1, 3)))
    np.testing.assert_allclose(first.then(second).by, both.by, atol=1e-6)
    np.testing.assert_allclose(first.then(second).grown, both.grown, atol=1e-6)
    assert first.then(Moved(second.by, None)).grown is None


def test_recentring_that_is_told_of_a_move_stands_where_it_would_had_it_seen_nothing_else():
    """The other tail gave all the votes, and nothing was forgotten."""
    seen, held, config = latents(320), ring(), RecenterConfig(outlier=1e9)
    held.add(seen)
    told, other = (Recenter(np.zeros(DIM), np.eye(DIM), config) for _ in range(2))
    told.update(linear(1)(seen))
    other.update(linear(2)(seen))
    moved = held.moved(linear(1), linear(2))
    told.moved(moved.by, moved.grown)
    told.fit(1.0)
    other.fit(1.0)
    # Rounding of latents to int8 is all that is between them.
    np.testing.assert_allclose(told.affine.matrix, other.affine.matrix, atol=0.01)
    np.testing.assert_allclose(told.affine.shift, other.affine.shift, atol=0.02)


def test_a_copy_goes_back_and_one_of_before_is_empty():
    held, other = ring(), ring(entries=10)
    held.add(latents(30))
    copy = held.state()
    held.add(latents(5, seed=1))
    other.restore(copy)
    assert len(other) == 10
    np.testing.assert_array_equal(other.state().tensors["values"], copy.tensors["values"][-10:])
    other.restore(type(copy)())
    assert len(other) == 0
