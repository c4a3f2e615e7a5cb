"""Short streams that a learner adapts to."""

from __future__ import annotations

from edgessl.runtimes.adapt.config import LearnerConfig
from edgessl.runtimes.adapt.dependence import DependenceConfig
from edgessl.runtimes.adapt.recenter import RecenterConfig

NIGHT = 0.4  # gain
# The scenes of these streams are independent of each other, and short: what a real stream needs thousands of frames for.
QUICK = LearnerConfig(
    observe_every=1,
    dependence=DependenceConfig(prior=1.0, weight=0.0),
    recenter=RecenterConfig(trust=30.0, prior=30.0, floor=0.02),
)


def kinds(learner):
    return [event["kind"] for event in learner.events]
