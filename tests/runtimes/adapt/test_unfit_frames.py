"""Frames that there is nothing to learn from: not finite, or of nothing."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.runtimes.adapt.config import LEVELS, LearnerConfig
from edgessl.signals import InputSpec
from tests.runtimes.adapt.nights import NIGHT, QUICK, kinds


class Casting:
    """A trunk that takes floats."""

    def __init__(self, trunk):
        self._trunk, self.identity, self.seen = trunk, trunk.identity, []

    def run(self, frames, ports):
        self.seen.append(frames)
        return self._trunk.run(frames.astype(np.uint8), ports)

    def close(self):
        self._trunk.close()


@pytest.mark.parametrize("observe_every", [1, 16])
def test_frames_that_are_not_finite_are_counted_and_never_learned_from(encoder, tmp_path, scenes, observe_every):
    night = scenes(100, 6, NIGHT).astype(np.float32)
    bad = night.copy()
    bad[3, 2, 1, 0], bad[57] = np.nan, np.inf
    config = LearnerConfig(observe_every=observe_every)
    with encoder.learner(tmp_path / "state", config=config) as learner:
        learner.input = InputSpec(kind="series", shape=(12, 10, 3), dtype="float32", units="steps")
        learner._learned._trunks.factory = trunk = Casting(learner._learned._trunks.factory)
        serve = learner._serve
        learner._serve = lambda frames: (trunk.seen.append(frames), serve(frames.astype(np.uint8)))[1]
        vectors = learner.observe(bad)
        assert learner.info()["quarantined"] == 2
    assert np.flatnonzero(np.isnan(vectors).any(1)).tolist() == [3, 57]
    assert all(np.isfinite(frames).all() for frames in trunk.seen)
    assert [event["frames"] for event in learner.events if event["kind"] == "quarantined"] == [1, 1]


@pytest.mark.parametrize("level", LEVELS)
def test_frames_that_show_nothing_are_served_and_never_learned_from(encoder, tmp_path, scenes, level):
    night = scenes(320, 6, NIGHT)
    covered = np.random.default_rng(0).integers(0, 3, night[:96].shape, np.uint8)
    folders = tmp_path / "with", tmp_path / "without"
    first, second = (encoder.learner(folder, level=level, config=QUICK) for folder in folders)
    with first as learner, second as other:
        for each in (learner, other):
            each.observe(night[:200])
        before = {**learner.info()}
        assert np.isfinite(learner.observe(covered)).all()
        assert {**learner.info(), "frames": 0} == {**before, "frames": 0}
        assert [event["frames"] for event in learner.events if event["kind"] == "blank"] == [24]  # said once
        # What comes then is met as if there had been nothing between.
        np.testing.assert_array_equal(learner.observe(night[200:]), other.observe(night[200:]))
        learner.observe(covered[:32])
        assert kinds(learner).count("blank") == 2


def test_statistics_that_are_not_finite_are_never_learned_from(encoder, tmp_path, scenes):
    with encoder.learner(tmp_path / "state") as learner:
        learner.observe(scenes(64, 6, NIGHT))
        votes, trunks = learner.info()["votes"], learner._learned._trunks
        run = trunks.run

        def broken(front, frames, ports):
            seen = run(front, frames, ports)
            seen.means[0][:] = np.nan
            return seen

        trunks.run = broken
        assert np.isfinite(learner.observe(scenes(32, 7, NIGHT))).all()
        assert learner.info()["votes"] == votes
        assert learner.info()["quarantined"] == 32
