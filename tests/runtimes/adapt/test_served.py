"""A version of the encoder."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgessl.runtimes.adapt.served import Affine, Served

DIM = 4


@pytest.fixture
def affine():
    rng = np.random.default_rng(0)
    return Affine(matrix=rng.normal(size=(DIM, DIM)).astype(np.float32), shift=rng.normal(size=DIM).astype(np.float32))


def test_an_affine_gives_unit_vectors_by_its_formula(affine):
    vectors = np.random.default_rng(1).normal(size=(3, DIM)).astype(np.float32)
    given = vectors.copy()
    for row, found in zip(vectors, affine.apply(vectors), strict=True):
        expected = np.array([row @ affine.matrix[:, axis] + affine.shift[axis] for axis in range(DIM)])
        np.testing.assert_allclose(found, expected / np.sqrt((expected**2).sum()), atol=1e-6)
    assert affine.apply(vectors).dtype == np.float32
    np.testing.assert_array_equal(vectors, given)


def test_no_vectors_give_no_vectors(affine):
    assert affine.apply(np.zeros((0, DIM), np.float32)).shape == (0, DIM)


def test_a_version_starts_as_the_factorys_and_cannot_be_changed():
    served = Served()
    assert (served.number, served.ports, served.affine, served.tail) == (0, None, None, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        served.number = 1
