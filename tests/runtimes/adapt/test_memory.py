"""What is held, and what votes."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.errors import InputError
from edgessl.runtimes.adapt.memory import Memory, MemoryConfig
from edgessl.runtimes.adapt.novelty import Novelty, NoveltyConfig

LATENT, DIM = (3, 2, 5), 7
SCALE = np.array([0.1, 0.2, 0.05], np.float32)


def memory(axis=1, **options):
    return Memory(LATENT, DIM, SCALE, axis, MemoryConfig(**options))


def offers(count, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, DIM)).astype(np.float32)
    latents = rng.normal(size=(2, count, *LATENT)).astype(np.float32)
    return zip(latents[0], latents[1], vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True)


def test_the_budget_is_never_passed():
    held = memory(budget_bytes=1000, novelty=0.0)
    for offer in offers(50, 0):
        held.admit(*offer)
        assert held.size_bytes <= 1000
    assert len(held) == 600 // (2 * 30 + 4 * DIM)  # the rest is for the latest votes


def test_a_budget_for_nothing_is_refused():
    with pytest.raises(InputError, match="at least 294"):
        memory(budget_bytes=100)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_that_leaves_one_of_the_two_nothing_is_refused(share):
    with pytest.raises(InputError, match="between 0 and 1"):
        memory(latest=share)


@pytest.mark.parametrize(("axis", "shape"), [(1, (3, 1, 1)), (2, (1, 3, 1))])
def test_latents_come_back_within_half_a_step(axis, shape):
    latent = (3, 2, 5) if axis == 1 else (2, 3, 5)
    held = Memory(latent, DIM, SCALE, axis, MemoryConfig())
    rng = np.random.default_rng(1)
    a, b = rng.uniform(-1, 1, (2, *latent)).astype(np.float32) * 6 * SCALE.min()
    held.admit(a, b, np.ones(DIM, np.float32))
    got_a, got_b, _ = held.sample(1, rng)
    assert (np.abs(got_a[0] - a) <= SCALE.reshape(shape) / 2 + 1e-6).all()
    assert (np.abs(got_b[0] - b) <= SCALE.reshape(shape) / 2 + 1e-6).all()


def test_what_is_held_already_is_not_admitted_again():
    held = memory(novelty=0.02)
    offer = next(offers(1, 0))
    assert held.admit(*offer)
    assert not held.admit(*offer)
    assert len(held) == 1


def test_when_full_one_of_the_closest_pair_makes_room():
    held = memory(entries=3, novelty=0.0)
    latents = np.zeros(LATENT, np.float32)
    eye = np.eye(DIM, dtype=np.float32)
    near = (eye[0] + 0.1 * eye[1]).astype(np.float32)
    for vector in (eye[0], eye[2], near):
        held.admit(latents, latents, vector)
    assert held.admit(latents, latents, eye[4])
    kept = held.references @ np.stack([eye[0], eye[2], eye[4]]).T
    np.testing.assert_allclose(kept.max(0), [near[0] / np.linalg.norm(near), 1, 1], atol=1e-6)
    assert not (held.references == eye[0]).all(1).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_never_held(bad):
    held = memory()
    a, b, vector = next(offers(1, 0))
    a[0, 0, 0] = bad
    assert not held.admit(a, b, vector)


def test_no_image_is_kept():
    held = memory()
    for offer in offers(5, 0):
        held.admit(*offer)
    assert {name: value.dtype.name for name, value in held.state().tensors.items()} == {
        "latents": "int8",
        "references": "float32",
    }


def test_a_sample_repeats_nothing():
    held = memory()
    for offer in offers(9, 0):
        held.admit(*offer)
    _, _, references = held.sample(9, np.random.default_rng(0))
    assert len(np.unique(references, axis=0)) == 9


def test_a_robot_that_stands_still_votes_once():
    novelty = Novelty(4, NoveltyConfig(distance=0.02))
    rng = np.random.default_rng(0)
    wall = 3 + rng.normal(0, 0.01, (500, 4))
    assert novelty.admit(wall).sum() == 1


def test_frames_that_differ_all_vote():
    novelty = Novelty(4, NoveltyConfig(distance=0.02))
    assert novelty.admit(np.random.default_rng(0).normal(0, 3, (20, 4))).all()


def test_novelty_that_is_not_a_number_does_not_vote():
    novelty = Novelty(2, NoveltyConfig())
    assert novelty.admit(np.array([[0.0, 1.0], [np.nan, 0.0]])).tolist() == [True, False]
