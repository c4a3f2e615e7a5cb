"""Worlds that drift is judged in, and how to live in them."""

from __future__ import annotations

import numpy as np

from edgessl.runtimes.adapt.drift import Drift, DriftConfig

SIZE, BLOCK, LEAST = 6, 16, 8
# Values that these tests rely on, whatever the defaults are; the threshold is 4.
SET = {
    "block": BLOCK,
    "stretch": 1,
    "least": LEAST,
    "score_clip": 16.0,
    "alarm": 1.0,
    "slow": 4,
    "slow_alarm": 0.15,
    "enter": 0.4,
    "leave": 0.25,
    "order": 0.25,
    "other": 0.5,
    "known": 16,
}
DAY = np.ones(SIZE)
NIGHT, FOG, RAIN = (5.0 * np.array(way) for way in ([1, 1, 1, 1, 1, 1], [1, -1, 1, -1, 1, -1], [1, 1, -1, -1, 0, 0]))


def drift(**options):
    source = {"drift.mean": np.zeros(SIZE), "drift.whiten": np.eye(SIZE), "drift.threshold": np.array([4.0])}
    return Drift(source, DriftConfig(**SET | options))


def frames(count, at, seed=0):
    return at + np.random.default_rng(seed).normal(0, 0.3, (count, SIZE))


def judge(world, seen, *, novel=True):
    return world.judge(seen, np.full(len(seen), novel))


def live(world, at, blocks, seed=0):
    """Blocks as the learner gives them: judged, and voted where they may teach; which shift each was seen in, or None."""
    found = []
    for block in range(blocks):
        seen = frames(BLOCK, at, seed=(seed, block))
        judge(world, seen)
        if world.shifted and world.present:
            world.vote(seen)
        found.append(world.shift if world.shifted else None)
    return found


def same(one, two):
    assert one.values == two.values
    assert one.tensors.keys() == two.tensors.keys()
    for name, value in one.tensors.items():
        np.testing.assert_array_equal(value, two.tensors[name], strict=True)
