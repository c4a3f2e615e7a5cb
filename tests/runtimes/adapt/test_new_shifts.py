"""The first frames of a shift: how soon it is seen, and how soon what it teaches serves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgessl.runtimes.adapt.config import LEVELS, LearnerConfig
from edgessl.runtimes.adapt.displacement import alike
from edgessl.runtimes.adapt.drift import DriftConfig
from tests.runtimes.adapt.nights import NIGHT, QUICK, kinds
from tests.runtimes.adapt.worlds import BLOCK, DAY, FOG, SIZE, drift, frames, judge, live
from tests.runtimes.adapt.worlds import NIGHT as DARK

GLARE = 2.5  # gain


def test_both_halves_of_one_place_are_alike_and_those_of_two_are_not():
    rng = np.random.default_rng(0)
    one, two = (5 * way + rng.normal(0, 1, (16, SIZE)) for way in np.eye(SIZE)[:2])
    assert alike(one, 1.0, 0.5)
    assert alike(one[:5], 1.0, 0.5)
    assert not alike(np.concatenate([one, two]), 1.0, 0.5)
    assert alike(np.concatenate([one, two]), 1000.0, 0.5)  # frames of a video: each half is one scene
    assert not alike(one[:3], 1.0, 0.5)  # halves of which nothing can be said


def test_one_shift_follows_another_in_the_block_that_shows_it():
    world = drift()
    assert live(world, DARK, 3)[-1] == 0
    assert judge(world, frames(BLOCK, FOG))
    assert (world.shifted, world.shift) == (True, 1)
    assert judge(world, frames(BLOCK, DARK))
    assert (world.shifted, world.shift) == (True, 0)  # which is known
    assert judge(world, frames(BLOCK, DAY * 0))
    assert not world.shifted


def test_a_block_that_is_half_of_each_says_only_that_the_old_one_is_over():
    world = drift(leave=0.7)
    live(world, DARK, 3)
    assert judge(world, frames(BLOCK // 2, FOG))
    assert not world.shifted
    assert not world.settled
    assert world.known == (0,)  # no third one is made of both
    assert judge(world, frames(BLOCK // 2, FOG))
    assert world.settled
    assert world.shift == 1


def test_where_one_frame_says_that_something_is_new_the_others_of_its_part_are_looked_at(encoder, tmp_path, scenes):
    """One frame in 16 is looked at; the shift is there with the first block all the same."""
    with encoder.learner(tmp_path / "state") as learner:
        learner.observe(scenes(320, 5))
        learner.observe(scenes(32, 6, 0.1))
        assert [event["frame"] for event in learner.events if event["kind"] == "shift"] == [352]


@pytest.mark.parametrize("level", LEVELS)
def test_a_block_that_shows_a_new_shift_is_served_by_what_it_teaches(encoder, tmp_path, scenes, level):
    night = scenes(32, 6, NIGHT)
    with encoder.learner(tmp_path / "state", level=level, config=QUICK) as learner:
        learner.observe(scenes(32, 5))
        vectors = learner.observe(night)
        assert kinds(learner)[:2] == ["open", "shift"]
        assert learner.info()["votes"] > 16
        assert set(learner.versions) == {learner.served.number}
        factory = encoder.embed(night)
        assert np.abs(vectors - factory).max() > 1e-3
        # The last of the stream: it is embedded again, and nothing has changed since.
        np.testing.assert_allclose((learner.observe(night[:1]) * vectors[:1]).sum(), 1, atol=0.01)


def test_one_shift_after_another_is_told_as_that(encoder, tmp_path, scenes):
    config = replace(QUICK, drift=DriftConfig(stretch=1))
    with encoder.learner(tmp_path / "state", config=config) as learner:
        learner.observe(scenes(96, 6, NIGHT))
        learner.observe(scenes(64, 7, GLARE))
        told = [kind for kind in kinds(learner) if kind in ("shift", "another_shift", "return")]
        assert told[:2] == ["shift", "another_shift"]
        assert learner.info()["shift"] == 1


def test_later_on_no_frame_is_embedded_twice(encoder, tmp_path, scenes):
    config = replace(QUICK, young=0)
    with encoder.learner(tmp_path / "state", config=config) as learner:
        learner.observe(scenes(64, 6, NIGHT))
        before = learner.served.number
        learner.observe(scenes(32, 7, NIGHT))
        assert set(learner.versions) == {before}
        assert learner.served.number > before


def test_half_a_block_of_night_teaches_nothing(encoder, tmp_path, scenes):
    config = LearnerConfig(observe_every=1, drift=DriftConfig(alarm=0.5))
    with encoder.learner(tmp_path / "state", config=config) as learner:
        learner.observe(np.concatenate([scenes(48, 5), scenes(16, 6, NIGHT)]))
        assert kinds(learner) == ["open", "shift"]
        assert learner.info()["votes"] == 0
