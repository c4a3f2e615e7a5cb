"""The learner on a bundle that `export` wrote: every level, by day and in the dark."""

from __future__ import annotations

import numpy as np
import pytest

import edgessl
from edgessl.runtimes.adapt.config import LEVELS, LearnerConfig
from edgessl.runtimes.adapt.dependence import DependenceConfig
from edgessl.runtimes.adapt.equalize import EqualizeConfig
from edgessl.runtimes.adapt.memory import MemoryConfig
from edgessl.runtimes.adapt.novelty import NoveltyConfig
from edgessl.runtimes.adapt.ports import PortsConfig


@pytest.fixture
def frames(bundle):
    with edgessl.open(bundle, precision="fp32") as encoder:
        samples = encoder.bundle.tensors("golden")["samples"]
    return np.concatenate([samples] * 6)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_day_is_served_by_the_factory_and_the_dark_is_learned(bundle, tmp_path, frames, level, precision):
    # An untrained encoder puts everything close together.
    memory = MemoryConfig(novelty=1e-5)
    config = LearnerConfig(
        observe_every=1,
        confirm_ports=0,
        confirm_tail=0,  # there are few samples
        novelty=NoveltyConfig(distance=0.0),
        ports=PortsConfig(window=20, paired=10),
        memory=memory,
        dependence=DependenceConfig(prior=1.0, weight=0.0),
        equalize=EqualizeConfig(known=20),
    )
    dark = (frames * 0.15).astype(np.uint8)
    with (
        edgessl.open(bundle, precision=precision) as encoder,
        encoder.learner(tmp_path / "state", level=level, steps_per_frame=0.5, config=config) as learner,
    ):
        day = learner.observe(frames)
        assert learner.info()["votes"] == 0
        night = learner.observe(dark)
        info = learner.info()
        cosine = (day * encoder.embed(frames)).sum(1)
    assert cosine.mean() > 0.99
    assert info["votes"] > 0
    assert not info["frozen"], learner.events
    np.testing.assert_allclose(np.linalg.norm(night, axis=1), 1, atol=1e-4)
    if level == "tail":
        assert info["steps"] > 0
