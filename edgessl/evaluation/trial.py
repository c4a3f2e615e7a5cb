"""One repeat of an evaluation: a bank, queries, what is drawn for them, and the figures that an embedding reaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.evaluation.contenders import Contender
from edgessl.evaluation.corruptions import corruptions
from edgessl.evaluation.fewlabels import few_labels
from edgessl.evaluation.layers import Layers, gated_probe, stage_vectors
from edgessl.evaluation.probes import Labels, probed, standardised
from edgessl.evaluation.results import CORRUPTED, FEW, MEAN
from edgessl.evaluation.views import two_views
from edgessl.metrics import Vectors, alignment, knn_accuracy, lidar, rankme, uniformity
from edgessl.sources import Source
from edgessl.sources.base import Indices

RANKME_SAMPLES = 2048
VIEW_SAMPLES = 1024
LIDAR_DIM = 1024  # eigenvalues of a matrix of this side take a second
CORRUPTED_SAMPLES = 1000
LAYER_SAMPLES = 4000
AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Side:
    """Samples of one side, bank or queries.

    Attributes:
        source: Where they come from.
        indices: `(n,)` their places in the source.
        labels: `(n,)` classes, or None.
    """

    source: Source
    indices: Indices
    labels: Labels | None

    def some(self, most: int, rng: np.random.Generator) -> tuple[NDArray[Any], Labels | None, Indices]:
        """Frames, labels and places of up to `most` samples, drawn, in order."""
        at = np.sort(rng.permutation(len(self.indices))[:most])
        frames = [self.source.read(self.indices[at[s : s + AT_ONCE]])[1] for s in range(0, len(at), AT_ONCE)]
        return np.concatenate(frames), None if self.labels is None else self.labels[at], at


class Trial:
    """What one repeat asks every contender.

    Args:
        bank, queries: The two sides.
        seed: Of the views, the draws of labels and the corruptions.
        corrupt: Draw corrupted samples.
    """

    def __init__(self, bank: Side, queries: Side, *, seed: int, corrupt: bool) -> None:
        self.bank, self.queries, self.seed = bank, queries, seed
        spec, rng = bank.source.spec, np.random.default_rng(seed)
        seen, _, self._seen_at = queries.some(VIEW_SAMPLES, rng)
        self._views = two_views(seen, spec, seed=seed)
        self._corrupted: dict[str, NDArray[Any]] = {}
        if corrupt and queries.labels is not None:
            clean, self._corrupted_labels, _ = queries.some(CORRUPTED_SAMPLES, rng)
            for place, (name, damage) in enumerate(corruptions(spec.kind).items()):
                self._corrupted[name] = damage(clean, np.random.default_rng([seed, place]))

    def steady(self, contender: Contender, bank: Vectors, queries: Vectors, *, linear: bool) -> dict[str, float]:
        """Figures that nothing is drawn for: the same in every repeat with the same two sides and weights.

        Args:
            contender: Whose vectors they are.
            bank, queries: Vectors of the two sides, as embedded.
            linear: Fit the linear probe.
        """
        bank, queries = self._settled(contender, bank, bank), self._settled(contender, bank, queries)
        found = {"rankme": rankme(queries[:RANKME_SAMPLES]), "uniformity": uniformity(queries[self._seen_at])}
        known, labels = self.bank.labels, self.queries.labels
        if known is None or labels is None:
            return found
        if not linear:
            return found | {"knn": knn_accuracy(queries, labels, bank, known)}
        told = probed(bank, known, queries, labels)
        return found | {"knn": told.knn, "linear": told.linear, "macro_f1": told.macro_f1}

    def drawn(self, contender: Contender, bank: Vectors, queries: Vectors, *, few: bool) -> dict[str, float]:
        """Figures from views, draws of a few labels, and corrupted samples.

        Args:
            contender, bank, queries: As in `steady`.
            few: Draw few labels.
        """
        raw_bank = bank
        bank, queries = self._settled(contender, bank, bank), self._settled(contender, bank, queries)
        first, second = (self._settled(contender, raw_bank, _embedded(contender, each)) for each in self._views)
        found = {"alignment": alignment(first, second)}
        if first.shape[1] <= LIDAR_DIM:
            found["lidar"] = lidar(first, second)
        known, labels = self.bank.labels, self.queries.labels
        if few and known is not None and labels is not None:
            curve = few_labels(bank, known, queries, labels, seed=self.seed)
            found |= {f"{FEW}{count}": accuracy for count, accuracy in curve.items()}
        if self._corrupted and known is not None and self._corrupted_labels is not None:
            robust = {}
            for name, frames in self._corrupted.items():
                vectors = self._settled(contender, raw_bank, _embedded(contender, frames))
                robust[name] = knn_accuracy(vectors, self._corrupted_labels, bank, known)
            robust[MEAN] = float(np.mean(list(robust.values())))
            found |= {CORRUPTED + name: accuracy for name, accuracy in robust.items()}
        return found

    def layers(self, contender: Contender) -> Layers | None:
        """What each stage says about the labels; None for what cannot be looked into, or without labels."""
        if contender.encoder is None:
            return None
        embed, rng = stage_vectors(contender.encoder), np.random.default_rng(self.seed)
        sides: list[tuple[list[Vectors], Labels]] = []
        for side in (self.bank, self.queries):
            frames, labels, _ = side.some(LAYER_SAMPLES, rng)
            if labels is None:
                return None
            parts = [embed(frames[start : start + AT_ONCE]) for start in range(0, len(frames), AT_ONCE)]
            sides.append(([np.concatenate(stage) for stage in zip(*parts, strict=True)], labels))
        (bank, bank_labels), (queries, labels) = sides
        return gated_probe(bank, bank_labels, queries, labels)

    def _settled(self, contender: Contender, bank: Vectors, vectors: Vectors) -> Vectors:
        """Raw samples moved to where they are the stronger opponent; any other vectors as they are."""
        if contender.raw == "image":
            # With their mean removed pixels are the stronger opponent: .42 instead of .33 on CIFAR-10.
            return np.asarray(vectors - bank.mean(0))
        return standardised(bank, vectors)[0] if contender.raw else vectors


def _embedded(contender: Contender, frames: NDArray[Any]) -> Vectors:
    parts = [contender.embed(frames[start : start + AT_ONCE]) for start in range(0, len(frames), AT_ONCE)]
    return np.concatenate(parts)
