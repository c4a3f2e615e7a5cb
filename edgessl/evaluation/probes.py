"""Classifiers on frozen vectors: what labels can be read from an embedding. The fit is scikit-learn's."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import MissingExtraError
from edgessl.metrics import Vectors, knn_accuracy, macro_f1

Labels = NDArray[np.integer]  # (n,)

PROBE_SAMPLES = 10_000
PROBE_C = 0.1


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What classifiers find in an embedding.

    Attributes:
        knn: Accuracy of the weighted vote of 20 nearest neighbours.
        linear: Accuracy of the linear probe.
        macro_f1: Its F1, averaged over the classes.
    """

    knn: float
    linear: float
    macro_f1: float


def probed(bank: Vectors, bank_labels: Labels, queries: Vectors, labels: Labels) -> Probed:
    """20-NN and the linear probe, learned from the bank and tested on the queries.

    Args:
        bank, bank_labels: Vectors `(n, dim)` and classes `(n,)` to learn from.
        queries, labels: Vectors `(m, dim)` and classes `(m,)` to be told.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    told = predicted(bank, bank_labels, queries)
    return Probed(
        knn=knn_accuracy(queries, labels, bank, bank_labels),
        linear=float((told == labels).mean()),
        macro_f1=macro_f1(told, labels),
    )


def linear_probe(queries: Vectors, labels: Labels, bank: Vectors, bank_labels: Labels) -> float:
    """Accuracy of the linear probe, see `predicted`."""
    return float((predicted(bank, bank_labels, queries) == labels).mean())


def predicted(
    bank: Vectors, bank_labels: Labels, queries: Vectors, *, scale: Vectors | None = None
) -> NDArray[np.int64]:
    """Classes `(m,)` of the queries by logistic regression on the standardised bank, L2 with C = 0.1.

    The settings are ours. Of a larger bank 10,000 rows are drawn, always the same.

    Args:
        bank, bank_labels: Vectors `(n, dim)` and classes `(n,)` to learn from.
        queries: Vectors `(m, dim)`.
        scale: Vectors whose mean and standard deviation are taken for all; the bank's own when None.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "train") from error
    if len(bank) > PROBE_SAMPLES:
        drawn = np.random.default_rng(0).permutation(len(bank))[:PROBE_SAMPLES]
        bank, bank_labels = bank[drawn], bank_labels[drawn]
    if len(np.unique(bank_labels)) < 2:
        return np.full(len(queries), bank_labels[0], np.int64)
    bank, queries = standardised(bank if scale is None else scale, bank, queries)
    probe = LogisticRegression(C=PROBE_C, max_iter=200)
    with warnings.catch_warnings():
        # 200 iterations are enough to compare; wide raw samples may want more.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(bank, bank_labels)
    return np.asarray(probe.predict(queries), np.int64)


def standardised(scale: Vectors, *vectors: Vectors) -> tuple[Vectors, ...]:
    """Each of `vectors` with the mean of `scale` taken off, divided by its standard deviation where that is not 0."""
    mean, deviation = scale.mean(0, np.float64), scale.std(0, dtype=np.float64)
    deviation[deviation <= 1e-12 * np.abs(mean)] = 1.0  # constant up to rounding, or 0
    return tuple(np.asarray((each - mean) / deviation, np.float32) for each in vectors)
