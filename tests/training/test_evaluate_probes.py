"""Probes against scikit-learn, and what they must find."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from edgessl.evaluation.probes import linear_probe, predicted, probed
from edgessl.metrics import knn_accuracy


def blobs(count: int, seed: int, classes: int = 3, dim: int = 5, spread: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return (2 * np.eye(classes, dim)[labels] + spread * rng.normal(size=(count, dim))).astype(np.float32), labels


def test_the_probe_finds_a_plane() -> None:
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(400, 5)).astype(np.float32), rng.normal(size=(101, 5)).astype(np.float32)
    plane = np.array([1.0, -2.0, 0.5, 0.0, 3.0])
    assert linear_probe(queries, (queries @ plane > 0).astype(int), bank, (bank @ plane > 0).astype(int)) > 0.95


def test_figures_are_those_of_scikit_learn() -> None:
    (bank, bank_labels), (queries, labels) = blobs(211, 0), blobs(97, 1)
    found = probed(bank, bank_labels, queries, labels)
    mean, std = bank.mean(0), bank.std(0)
    judge = LogisticRegression(C=0.1, max_iter=500).fit((bank - mean) / std, bank_labels)
    told = judge.predict((queries - mean) / std)
    assert found.linear == (told == labels).mean()
    assert np.isclose(found.macro_f1, f1_score(labels, told, average="macro"))
    assert found.knn == knn_accuracy(queries, labels, bank, bank_labels)


def test_a_bank_of_one_class_knows_no_other() -> None:
    queries, labels = blobs(31, 0)
    assert predicted(queries, np.full(31, 2), queries).tolist() == [2] * 31
    assert probed(queries, np.full(31, 2), queries, labels).linear == (labels == 2).mean()
