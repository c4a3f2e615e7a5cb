"""Figures about embeddings. Numpy only; every function takes `(n, dim)` arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # (n, dim)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows divided by their length; a row of zeros stays zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length == 0, 1, length))


def cosines(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cosine of each row of `a` with the same row of `b`: `(n,)`."""
    return np.asarray((unit(a.astype(np.float64)) * unit(b.astype(np.float64))).sum(1))


def neighbours(queries: NDArray[np.floating], bank: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    """Indices of the `k` rows of `bank` with the largest cosine, best first: `(n, k)`. Ties go to the lower index."""
    similar = unit(queries) @ unit(bank).T
    return np.argsort(-similar, axis=1, kind="stable")[:, :k]


def knn_overlap(a: NDArray[np.floating], b: NDArray[np.floating], k: int = 10) -> float:
    """Share of each row's `k` nearest neighbours in `a` (itself left out) that are so in `b` too, averaged."""
    k = min(k, len(a) - 1)
    if k < 1:
        return 1.0
    near = []
    for vectors in (a, b):
        similar = unit(vectors) @ unit(vectors).T
        np.fill_diagonal(similar, -np.inf)
        near.append(np.argsort(-similar, axis=1, kind="stable")[:, :k])
    return float(np.mean([len(np.intersect1d(x, y)) / k for x, y in zip(*near, strict=True)]))


def knn_accuracy(
    queries: NDArray[np.floating],
    labels: NDArray[np.integer],
    bank: NDArray[np.floating],
    bank_labels: NDArray[np.integer],
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Accuracy of the weighted nearest-neighbour vote of Wu et al. 2018 (arXiv:1805.01978): weight exp(cosine / t)."""
    k = min(k, len(bank))
    classes = int(max(labels.max(), bank_labels.max())) + 1
    bank_units, right = unit(bank), 0
    for start in range(0, len(queries), 1024):
        similar = unit(queries[start : start + 1024]) @ bank_units.T  # (chunk, bank)
        near = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        weight = np.exp(np.take_along_axis(similar, near, 1) / temperature)
        votes = np.zeros((len(similar), classes))
        np.add.at(votes, (np.arange(len(similar))[:, None], bank_labels[near]), weight)
        right += int((votes.argmax(1) == labels[start : start + 1024]).sum())
    return right / len(queries)


def places_found(
    queries: NDArray[np.floating],
    places: NDArray[np.floating],
    bank: NDArray[np.floating],
    bank_places: NDArray[np.floating],
    *,
    tolerance: float,
) -> NDArray[np.bool_]:
    """Which queries' most similar row of `bank` was taken within `tolerance` of the query's place; its mean is recall@1.

    Args:
        queries, bank: Vectors `(n, dim)`, `(m, dim)`.
        places, bank_places: Positions `(n,)`, `(m,)` along the path, or `(n, axes)`, `(m, axes)`; distance is
            Euclidean.
        tolerance: Largest distance that counts as the same place.
    """
    best = neighbours(queries, bank, 1)[:, 0]
    apart = np.linalg.norm((bank_places[best] - places).reshape(len(places), -1), axis=1)
    return np.asarray(apart <= tolerance)


def rankme(vectors: NDArray[np.floating], epsilon: float = 1e-7) -> float:
    """Effective rank: exp of the entropy of the normalised singular values (Garrido et al. 2023, arXiv:2210.02885, eq. 1-2)."""
    singular = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
    share = singular / max(singular.sum(), epsilon) + epsilon
    return float(np.exp(-(share * np.log(share)).sum()))


def lidar(first: NDArray[np.floating], second: NDArray[np.floating], delta: float = 1e-4) -> float:
    """Effective rank of what tells samples apart beside what two views of one sample differ in.

    LiDAR (Thilak et al. 2023, arXiv:2312.04000, eq. 1-4) with two views per surrogate class: RankMe's effective rank, of the
    eigenvalues of linear discriminant analysis. Views that are noise have eigenvalues of 1 where the paper's formula counts
    them as information; here 1 is taken off, so noise counts for nothing.

    Args:
        first, second: Embeddings of two views of the same samples, `(n, dim)` each.
        delta: Added to the diagonal of the scatter within classes, as in the paper.
    """
    a, b = first.astype(np.float64), second.astype(np.float64)
    means, half = (a + b) / 2, (a - b) / 2
    centred = means - means.mean(0)
    between = centred.T @ centred / max(len(means) - 1, 1)
    within = half.T @ half / len(means) + delta * np.eye(a.shape[1])
    values, axes = np.linalg.eigh(within)
    whiten = (axes / np.sqrt(values)) @ axes.T
    spread = np.maximum(np.linalg.eigvalsh(whiten @ between @ whiten) - 1, 0.0)
    share = spread / max(float(spread.sum()), delta) + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))


def macro_f1(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> float:
    """F1 of each class that is predicted or true, averaged with equal weight: a rare class counts as much as a frequent one.

    Args:
        predicted, labels: Classes `(n,)`.
    """
    scores = []
    for each in np.union1d(predicted, labels):
        said, true = predicted == each, labels == each
        scores.append(2 * float((said & true).sum()) / float(said.sum() + true.sum()))
    return float(np.mean(scores))


def alignment(first: NDArray[np.floating], second: NDArray[np.floating], alpha: float = 2) -> float:
    """How far apart two views of one sample lie on the sphere, 0 at best: mean |x - y|^alpha of unit vectors.

    Wang & Isola 2020 (arXiv:2005.10242, section 4.1.1); alpha = 2 is the paper's.

    Args:
        first, second: Embeddings of two views of the same samples, `(n, dim)` each.
        alpha: Power of the distance.
    """
    apart = np.linalg.norm(unit(first.astype(np.float64)) - unit(second.astype(np.float64)), axis=1)
    return float((apart**alpha).mean())


def uniformity(vectors: NDArray[np.floating], t: float = 2) -> float:
    """How evenly unit vectors fill the sphere: log of the mean exp(-t |x - y|^2) over all pairs; 0 when they are one point.

    Wang & Isola 2020 (arXiv:2005.10242, section 4.1.2); t = 2 is the paper's. Lower is more even, -2 t the bound.

    Args:
        vectors: `(n, dim)`, at least two; the cost grows with the square of n.
        t: Sharpness of the potential.
    """
    units = unit(vectors.astype(np.float64))
    cosine = (units @ units.T)[np.triu_indices(len(units), 1)]
    return float(np.log(np.exp(-2 * t * (1 - cosine)).mean()))
