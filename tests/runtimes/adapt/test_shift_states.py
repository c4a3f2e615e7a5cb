"""Each shift has its own state, and a port's move takes along what is known of the vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgessl.runtimes.adapt.config import LearnerConfig
from edgessl.runtimes.adapt.guard import GuardConfig
from edgessl.runtimes.adapt.latest import Moved
from edgessl.runtimes.adapt.memory import MemoryConfig
from edgessl.runtimes.adapt.ports import PortsConfig
from edgessl.runtimes.adapt.tail import TailConfig

NIGHT, GLARE = 0.4, 1.9  # gain
CONFIG = LearnerConfig(observe_every=1, confirm_ports=1, ports=PortsConfig(window=48, paired=24))


def tensors(learner):
    found = learner._learned.state().part("learned").part("alignment").part("present").tensors
    assert {"recenter.mean", "ports.0.mean"} <= found.keys()
    return found


def observe(learner, frames):
    """A block at a time, so that no decision comes in the middle of one; the state after each."""
    found = []
    for start in range(0, len(frames), 32):
        learner.observe(frames[start : start + 32])
        found.append(tensors(learner))
    return found


@pytest.fixture
def learner(encoder, tmp_path):
    with encoder.learner(tmp_path / "state", level="ports", config=CONFIG) as opened:
        yield opened


def test_each_shift_is_gone_on_with_where_it_was_left(learner, scenes):
    ended = {}
    for number, gain in enumerate((NIGHT, GLARE)):
        ended[gain] = observe(learner, scenes(256, 6 + number, gain))[-1]
        observe(learner, scenes(96, 5))
        assert not learner.info()["shifted"]
    for number, gain in enumerate((NIGHT, GLARE)):
        served = learner.served.number
        learner._learned.learn = lambda seen: ""  # look, and learn nothing
        observe(learner, scenes(64, 8, gain))
        assert learner.info()["shift"] == number
        assert learner.served.number > served
        for name, value in tensors(learner).items():
            np.testing.assert_array_equal(value, ended[gain][name], err_msg=name)
        observe(learner, scenes(96, 5))


@pytest.mark.parametrize(("carried", "left"), [(False, 40), (True, 80)])
def test_another_tail_takes_recentring_along_as_far_as_it_is_known_how(encoder, tmp_path, scenes, carried, left):
    config = replace(CONFIG, tail=TailConfig(kept=40, carried=80))
    with encoder.learner(tmp_path / "state", level="ports", config=config) as learner:
        observe(learner, scenes(256, 6, NIGHT))
        alignment = learner._learned._alignment
        before = alignment.state().part("present").part("recenter")
        assert before.values["weight"] > 100
        by = np.linspace(-1, 1, learner.dim)
        grown = np.diag(np.linspace(0, 0.1, learner.dim)) if carried else np.zeros((learner.dim, learner.dim))
        alignment.moved(Moved(by, grown if carried else None), 1.0)
        after = alignment.state().part("present").part("recenter")
        assert after.values["weight"] == left
        np.testing.assert_allclose(after.tensors["mean"], before.tensors["mean"] + by)
        then, now = (each.tensors["moment"] / each.values["weight"] for each in (before, after))
        np.testing.assert_allclose(now, then + grown, atol=1e-12)  # what is kept counts for less, and says the same


def test_a_new_shift_starts_from_the_factorys_tail_and_an_empty_memory(encoder, tmp_path, scenes):
    easy = GuardConfig(anchor_overlap=0.0, lidar=0.0)
    config = replace(
        CONFIG, confirm_tail=1, guard=easy, tail=TailConfig(steps_per_frame=0.25), memory=MemoryConfig(novelty=0.001)
    )
    with encoder.learner(tmp_path / "state", level="tail", config=config) as learner:
        observe(learner, scenes(256, 6, NIGHT))
        assert learner.info()["steps"] > 20
        assert learner.info()["memory"] > 100
        observe(learner, scenes(96, 5))
        learner._learned.learn = lambda seen: ""  # look, and learn nothing
        observe(learner, scenes(64, 7, GLARE))
        assert learner.info()["shift"] == 1
        assert (learner.info()["steps"], learner.info()["memory"], learner.served.tail) == (0, 0, None)


def test_a_shift_that_is_new_starts_from_the_factory(learner, scenes):
    observe(learner, scenes(256, 6, NIGHT))
    observe(learner, scenes(96, 5))
    learner._learned.learn = lambda seen: ""
    observe(learner, scenes(64, 7, GLARE))
    assert learner.info()["shift"] == 1
    assert (learner.served.ports, learner.served.affine) == (None, None)


def test_a_shift_that_lies_near_goes_on_from_what_serves(learner, scenes):
    """And learns anew: what it knows counts for so many votes."""
    observe(learner, scenes(256, 6, NIGHT))
    alignment, kept = learner._learned._alignment, CONFIG.inherited
    before, was = alignment.state(), (alignment.ports, alignment.front, alignment.affine)
    weights = {"recenter": "weight", "ports": "weight", "front": "weight"}
    assert all(before.part("present").part(part).values[name] > kept for part, name in weights.items())
    alignment.turn(7, {0, 7}, near=True)
    assert was == (alignment.ports, alignment.front, alignment.affine)
    now = alignment.state()
    assert {part: now.part("present").part(part).values[name] for part, name in weights.items()} == dict.fromkeys(
        weights, kept
    )
    assert (now.values["shift"], now.values["aside"]) == (7, [0])
    alignment.turn(0, {0, 7})  # the one that it came from is as it was
    for name, value in before.part("present").tensors.items():
        np.testing.assert_array_equal(alignment.state().part("present").tensors[name], value, err_msg=name)


def test_what_moves_in_the_trunk_takes_the_running_statistics_along(learner, scenes, monkeypatch):
    """By as much as frames of the night move, on average."""
    learned, moves = learner._learned, []
    alignment, night = learned._alignment, scenes(320, 6, NIGHT)

    def vectors():
        ports = alignment.ports or learned._trunks.factory.identity
        return learned._tail.run(learned._trunks.run(alignment.front, night, ports).latents)

    def watched(part):
        moved = part.moved
        return lambda by: (moves.append((part, by.copy(), vectors())), moved(by))[1]

    for part in (alignment._recenter, learned._dependence):
        monkeypatch.setattr(part, "moved", watched(part))
    before = vectors()
    observe(learner, night)
    stem = alignment._equalizer.moves
    assert alignment.moves >= 3
    assert stem >= 1
    assert [part for part, *_ in moves] == [alignment._recenter, learned._dependence] * (alignment.moves + stem)
    for (_, by, after), (_, same, _) in zip(moves[::2], moves[1::2], strict=True):
        np.testing.assert_array_equal(by, same)
        truth = (after - before).mean(0)
        assert np.linalg.norm(by - truth) < 0.25 * np.linalg.norm(truth) + 0.01
        before = after
