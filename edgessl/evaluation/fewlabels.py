"""How much an embedding is worth when hardly anything is labelled."""

from __future__ import annotations

import numpy as np

from edgessl.evaluation.probes import Labels, predicted
from edgessl.metrics import Vectors

PER_CLASS = (1, 5, 10)
DRAWS = 5


def few_labels(
    bank: Vectors,
    bank_labels: Labels,
    queries: Vectors,
    labels: Labels,
    *,
    seed: int,
    per_class: tuple[int, ...] = PER_CLASS,
    draws: int = DRAWS,
) -> dict[int, float]:
    """Accuracy of the linear probe when only a few samples of each class have a label: labels per class -> accuracy.

    The mean over several draws of which samples those are. A draw of more labels holds the draw of fewer. Vectors are
    standardised by the whole bank, which needs no labels.

    Args:
        bank, bank_labels: Vectors `(n, dim)` and classes `(n,)` to draw from; a class that has fewer samples gives all.
        queries, labels: Vectors `(m, dim)` and classes `(m,)` to be told.
        seed: Of the draws: two embeddings with the same seed learn from the same samples.
        per_class: Labels per class.
        draws: Draws that are averaged.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    rng = np.random.default_rng(seed)
    found: dict[int, list[float]] = {count: [] for count in per_class}
    for _ in range(draws):
        orders = [rng.permutation(np.flatnonzero(bank_labels == each)) for each in np.unique(bank_labels)]
        for count in per_class:
            drawn = np.concatenate([order[:count] for order in orders])
            told = predicted(bank[drawn], bank_labels[drawn], queries, scale=bank)
            found[count].append(float((told == labels).mean()))
    return {count: float(np.mean(accuracies)) for count, accuracies in found.items()}
