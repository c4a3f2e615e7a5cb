"""Figures against scikit-learn, SciPy, or a closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.linalg import eigh
from scipy.spatial.distance import cdist, pdist
from sklearn.metrics import f1_score
from sklearn.neighbors import NearestNeighbors

from edgessl.metrics import (
    alignment,
    cosines,
    knn_accuracy,
    knn_overlap,
    lidar,
    macro_f1,
    neighbours,
    places_found,
    rankme,
    uniformity,
    unit,
)


def vectors(seed: int, n: int, dim: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def test_unit_rows_have_length_one_and_zeros_stay() -> None:
    rows = unit(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert rows.tolist() == [[0.6, 0.8], [0.0, 0.0]]


def test_cosines_are_those_of_scipy() -> None:
    a, b = vectors(0, 13, 5), vectors(1, 13, 5)
    assert np.allclose(cosines(a, b), 1 - np.diag(cdist(a, b, "cosine")), atol=1e-6)


@settings(max_examples=30)
@given(hnp.arrays(np.float64, (4, 3), elements=st.floats(-10, 10)), st.floats(0.1, 10))
def test_cosines_do_not_mind_scale(a: np.ndarray, scale: float) -> None:
    a[:, 0] += 20  # no row of zeros
    assert np.allclose(cosines(a, a * scale), 1)


def test_neighbours_are_those_of_scikit_learn() -> None:
    queries, bank = vectors(0, 11, 6), vectors(1, 37, 6)
    other = NearestNeighbors(n_neighbors=5, metric="cosine").fit(bank).kneighbors(queries, return_distance=False)
    assert neighbours(queries, bank, 5).tolist() == other.tolist()


def test_ties_go_to_the_lower_index() -> None:
    assert neighbours(np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0]]), 2)[0].tolist() == [1, 2]


def test_overlap_of_a_space_with_itself_is_whole_and_with_noise_is_chance() -> None:
    a = vectors(0, 400, 9)
    assert knn_overlap(a, a, 10) == 1
    assert knn_overlap(a, vectors(1, 400, 9), 10) == pytest.approx(10 / 399, abs=0.01)


def test_overlap_does_not_mind_a_rotation() -> None:
    a = vectors(0, 41, 6)
    rotation, _ = np.linalg.qr(vectors(1, 6, 6).astype(np.float64))
    assert knn_overlap(a, a @ rotation, 7) == 1


@pytest.mark.parametrize("n", [0, 1])
def test_overlap_of_no_neighbours_is_whole(n: int) -> None:
    assert knn_overlap(vectors(0, n, 3), vectors(1, n, 3)) == 1


def test_knn_accuracy_is_the_weighted_vote() -> None:
    queries, bank = vectors(0, 29, 4), vectors(1, 53, 4)
    rng = np.random.default_rng(2)
    labels, bank_labels = rng.integers(0, 3, 29), rng.integers(0, 3, 53)
    right = 0
    for query, label in zip(queries, labels, strict=True):  # Wu et al., written out
        similar = 1 - cdist(query[None], bank, "cosine")[0]
        near = np.argsort(-similar)[:7]
        votes = [np.exp(similar[near][bank_labels[near] == c] / 0.07).sum() for c in range(3)]
        right += int(np.argmax(votes) == label)
    assert knn_accuracy(queries, labels, bank, bank_labels, k=7) == pytest.approx(right / 29)


def test_knn_accuracy_takes_a_bank_smaller_than_k_and_many_queries() -> None:
    bank = np.eye(3, dtype=np.float32)
    labels = np.arange(2500) % 3
    assert knn_accuracy(bank[labels], labels, bank, np.arange(3), k=20) == 1


def test_recall_counts_the_best_row_within_the_tolerance() -> None:
    bank = np.eye(3)
    queries = np.array([[1.0, 0.1, 0.0], [0.0, 1.0, 0.0], [0.1, 0.0, 1.0], [1.0, 0.0, 0.0]])
    places, bank_places = np.array([0.0, 11.0, 23.1, 3.0]), np.array([0.0, 10.0, 20.0])
    assert places_found(queries, places, bank, bank_places, tolerance=3.0).mean() == 0.75


def test_recall_measures_places_of_several_axes_as_one_distance() -> None:
    queries, bank = np.eye(2), np.eye(2)
    places, bank_places = np.array([[0.0, 3.0, 4.0], [0.0, 3.0, 3.0]]), np.zeros((2, 3))
    assert places_found(queries, places, bank, bank_places, tolerance=4.5).mean() == 0.5


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_rankme_of_equal_singular_values_is_their_number(rank: int) -> None:
    left, _ = np.linalg.qr(vectors(0, 50, rank).astype(np.float64))
    right, _ = np.linalg.qr(vectors(1, 8, 8).astype(np.float64))
    assert rankme(left @ right[:rank]) == pytest.approx(rank, rel=1e-4)


def test_rankme_of_collapsed_vectors_is_one() -> None:
    assert rankme(np.ones((17, 5))) == pytest.approx(1, rel=1e-4)


def lidar_views(noise, rank=5, dim=16, samples=400):
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(samples, rank)) @ np.linalg.qr(rng.normal(size=(dim, rank)))[0].T
    return [signal + noise * rng.normal(size=(samples, dim)) for _ in range(2)]


def test_lidar_counts_the_directions_that_tell_samples_apart():
    assert lidar(*lidar_views(0.05)) == pytest.approx(5, rel=0.05)


def test_noise_fills_a_space_for_rankme_but_not_for_lidar():
    views = lidar_views(0.5, rank=2, samples=6000)
    assert rankme(views[0]) > 9
    assert lidar(*views) < 3


def test_lidar_is_the_rank_of_discriminant_analysis():
    a, b = lidar_views(0.3)
    means = (a + b) / 2
    within = ((a - means).T @ (a - means) + (b - means).T @ (b - means)) / (2 * len(a)) + 1e-4 * np.eye(16)
    values = eigh(np.cov(means, rowvar=False), within, eigvals_only=True)  # the generalised problem
    share = np.maximum(values - 1, 0) / np.maximum(values - 1, 0).sum()
    expected = np.exp(-(share[share > 0] * np.log(share[share > 0])).sum())
    assert lidar(a, b) == pytest.approx(expected, rel=1e-3)


def test_macro_f1_is_that_of_scikit_learn_with_classes_that_only_one_side_has():
    rng = np.random.default_rng(0)
    predicted, labels = rng.integers(0, 4, 53), rng.integers(1, 6, 53)
    assert macro_f1(predicted, labels) == pytest.approx(f1_score(labels, predicted, average="macro"))


def test_alignment_is_the_squared_distance_of_unit_vectors():
    a, b = vectors(0, 23, 6), vectors(1, 23, 6)
    assert alignment(a, b) == pytest.approx(np.mean(2 - 2 * cosines(a, b)), rel=1e-6)
    assert alignment(a, 3 * a) == pytest.approx(0, abs=1e-12)
    assert alignment(a, b, alpha=1) == pytest.approx(np.mean(np.sqrt(2 - 2 * cosines(a, b))), rel=1e-6)


def test_uniformity_is_the_gaussian_potential_of_all_pairs():
    a = vectors(0, 23, 6)
    assert uniformity(a) == pytest.approx(np.log(np.mean(np.exp(-2 * pdist(unit(a), "sqeuclidean")))), rel=1e-5)
    assert uniformity(np.ones((7, 3))) == pytest.approx(0)
    assert uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8)  # -2 x 2^2, the least there is
