"""Level 0 against its formula."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.runtimes.adapt.recenter import Recenter, RecenterConfig

DIM = 5


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def source():
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.3, DIM), rng.uniform(0.02, 0.08, DIM)


@pytest.fixture
def votes():
    return unit(np.random.default_rng(1).normal(0.4, 0.2, (37, DIM))).astype(np.float32)


def test_before_the_first_vote_it_is_the_identity(source, votes):
    assert Recenter(*source, RecenterConfig()).apply(votes) is votes


def test_is_the_closed_form(source, votes):
    config = RecenterConfig(outlier=1e9)
    recenter = Recenter(*source, config)
    recenter.update(votes)
    mean, variance, n, prior = votes.mean(0, dtype=float), votes.var(0, dtype=float), len(votes), config.trust
    blended = (prior * source[1] + n * variance) / (prior + n)
    ratio = np.clip(np.sqrt(source[1] / blended), 0.5, 2)
    trust = n / (n + prior)
    expected = unit((1 - trust) * votes + trust * ((votes - mean) * ratio + source[0]))
    np.testing.assert_allclose(recenter.mean, mean, atol=1e-12)
    np.testing.assert_allclose(recenter.apply(votes), expected, atol=1e-6)


def test_it_does_not_matter_how_votes_are_batched(source, votes):
    once, often = (Recenter(*source, RecenterConfig()) for _ in range(2))
    once.update(votes)
    for vote in votes:
        often.update(vote[None])
    np.testing.assert_array_equal(once.apply(votes), often.apply(votes))


def test_an_outlier_moves_the_mean_no_further_than_its_bound(source, votes):
    recenter = Recenter(*source, RecenterConfig(outlier=3.0))
    recenter.update(votes)
    before, bound = recenter.mean.copy(), 3.0 * np.sqrt(recenter.variance * DIM).max()
    recenter.update(np.full((1, DIM), 1e6, np.float32))
    assert np.linalg.norm(recenter.mean - before) <= bound / (len(votes) + 1)


def test_old_votes_are_forgotten(source, votes):
    recenter = Recenter(*source, RecenterConfig(horizon=20, outlier=1e9))
    recenter.update(votes)
    recenter.update(np.tile(votes[:1], (400, 1)))
    np.testing.assert_allclose(recenter.mean, votes[0], atol=1e-3)


def test_a_copy_goes_back_exactly(source, votes):
    recenter, other = Recenter(*source, RecenterConfig()), Recenter(*source, RecenterConfig())
    recenter.update(votes[:20])
    other.restore(recenter.state())
    recenter.update(votes[20:])
    other.update(votes[20:])
    np.testing.assert_array_equal(recenter.apply(votes), other.apply(votes))


def test_reset_is_the_factory(source, votes):
    recenter = Recenter(*source, RecenterConfig())
    recenter.update(votes)
    recenter.reset()
    assert recenter.apply(votes) is votes
