"""How good embeddings are, always beside the same encoder untrained and beside raw samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgessl
from edgessl.errors import InputError
from edgessl.evaluation.contenders import Contender, Contenders, Embed, contenders, module_embed, raw_pixels
from edgessl.evaluation.layers import Layers
from edgessl.evaluation.probes import linear_probe
from edgessl.evaluation.results import Difference, Evaluation, Map, Row, difference_of, mean_of, row_of
from edgessl.evaluation.splits import held_out
from edgessl.evaluation.trial import Side, Trial
from edgessl.metrics import Vectors
from edgessl.sources import Source
from edgessl.sources.base import Indices, finite_rows

__all__ = ["Difference", "Evaluation", "Row", "evaluate", "linear_probe", "module_embed", "raw_pixels"]

MAP_SAMPLES = 1000

#: (name, seed of the weights): who is measured
Key = tuple[str, int]


def evaluate(
    subjects: Sequence[Path],
    train: Source,
    test: Source | None = None,
    *,
    linear: bool = True,
    few_labels: bool = False,
    layers: bool = False,
    corruptions: bool = False,
    maps: bool = False,
    by_group: bool = True,
    seeds: int = 1,
    seed: int = 0,
) -> Evaluation:
    """Embed samples with checkpoints and bundles, and compare with labels where there are any.

    Args:
        subjects: Checkpoint or bundle folders, all for samples of this shape; those that differ in nothing but the seed of
            their training are summed up too.
        train: Bank of the nearest neighbours, and training samples of the linear probe.
        test: Samples to classify; without it a fifth of `train`, drawn by `seed`, is held out.
        linear: Fit the linear probe.
        few_labels: Draw the curve over 1, 5 and 10 labels per class.
        layers: Probe every stage of the checkpoints.
        corruptions: Classify corrupted samples.
        maps: Project the vectors to a plane, for `pictures`.
        by_group: Where the source knows groups (subjects, speakers), hold out whole ones.
        seeds: Repeats, each with other initial weights of the untrained encoders, other draws, views and corruptions, and
            another held-out part.
        seed: Of the first repeat. Untrained weights have the seed of the subject's training where that is known.

    Raises:
        InputError: The samples do not fit a subject, the two sources differ in their classes, or one has no labels.
        IntegrityError: A checkpoint or bundle is damaged.
        MissingExtraError: scikit-learn is not installed.
    """
    if seeds < 1:
        raise InputError(f"seeds counts repeats, 1 or more, not {seeds}")
    found = _Found()
    with ExitStack() as opened:
        everyone = contenders(subjects, train.spec, seeds=seeds, seed=seed, opened=opened)
        embedders = {_key(one): one.embed for one in (*everyone.subjects, *everyone.untrained.values(), everyone.raw)}
        bank, kept = _embed(embedders, train)
        queries, kept_queries = (bank, kept) if test is None else _embed(embedders, test)
        labels = _labels(train, kept, test or train, kept_queries)
        groups = _groups(train, kept) if by_group and test is None else None
        for repeat in range(seeds):
            rows = np.arange(len(kept)), np.arange(len(kept_queries))
            if test is None:
                out = held_out(len(kept), seed=seed + repeat, groups=groups)
                rows = np.flatnonzero(~out), np.flatnonzero(out)
            if min(len(rows[0]), len(rows[1])) < 2:
                raise InputError(f"{train.name} has {len(kept)} samples that can be read, too few to evaluate on")
            known = (None, None) if labels is None else (labels[0][rows[0]], labels[1][rows[1]])
            if labels is not None and not repeat:
                found.notes = _beside(labels[0][rows[0]], labels[1][rows[1]], train.classes, grouped=groups is not None)
            trial = Trial(
                Side(source=train, indices=kept[rows[0]], labels=known[0]),
                Side(source=test or train, indices=kept_queries[rows[1]], labels=known[1]),
                seed=seed + repeat,
                corrupt=corruptions,
            )
            for contender in _taking_part(everyone, repeat):
                key = _key(contender)
                pair = bank[key][rows[0]], queries[key][rows[1]]
                same = key, repeat if test is None else 0  # with a test set nothing else changes between repeats
                if same not in found.steady:
                    found.steady[same] = trial.steady(contender, *pair, linear=linear)
                found.figures[key][repeat] = found.steady[same] | trial.drawn(contender, *pair, few=few_labels)
                found.dims[key] = pair[0].shape[1]
                if layers and contender.name not in found.layers:
                    found.layers[contender.name] = trial.layers(contender)
                if maps and contender.name not in found.maps:
                    found.maps[contender.name] = _map(contender.name, pair[1], known[1])
            found.sizes.append((len(rows[0]), len(rows[1])))
    sides = [(train, kept)] if test is None else [(train, kept), (test, kept_queries)]
    notes = [*everyone.notes, *found.notes, *_notes(train, test, groups, seeds, labelled=labels is not None)]
    notes += [
        f"{count} samples of {side.name} are left out" for side, rows in sides if (count := _left_out(side, rows))
    ]
    if layers and any(found.layers.get(one.name) is None for one in everyone.subjects):
        notes.append("layers are probed in checkpoints with labels only; a bundle's graph cannot be looked into")
    about: dict[str, Any] = {"data": _about(train), "test": None if test is None else _about(test)}
    about |= {"by_group": groups is not None, "seeds": seeds, "seed": seed, "version": edgessl.__version__}
    return found.summed(everyone, seeds, about, tuple(notes), tuple(train.classes) if labels is not None else ())


class _Found:
    """What the repeats have measured so far, by contender and repeat."""

    def __init__(self) -> None:
        self.steady: dict[tuple[Key, int], dict[str, float]] = {}
        self.figures: dict[Key, dict[int, dict[str, float]]] = defaultdict(dict)
        self.dims: dict[Key, int] = {}
        self.layers: dict[str, Layers | None] = {}
        self.maps: dict[str, Map] = {}
        self.sizes: list[tuple[int, int]] = []
        self.notes: list[str] = []

    def summed(
        self, everyone: Contenders, seeds: int, about: dict[str, Any], notes: tuple[str, ...], classes: tuple[str, ...]
    ) -> Evaluation:
        """Means over the repeats; untrained encoders of one architecture, whatever their seed, are one row."""
        together: dict[str, list[Contender]] = defaultdict(list)
        for one in (*everyone.subjects, *everyone.untrained.values(), everyone.raw):
            together[one.name].append(one)
        rows = []
        for name, each in together.items():
            runs = [run for one in each for run in self.figures[_key(one)].values()]
            rows.append(row_of(name, self.dims[_key(each[0])], runs, self.layers.get(name)))
        families: dict[str, list[Contender]] = defaultdict(list)
        for one in everyone.subjects:
            families[one.family].append(one)
        means, differences = [], []
        for family, each in families.items():
            if len(each) > 1:
                runs = [mean_of(self.figures[_key(one)].values()) for one in each]
                means.append(row_of(f"mean of {len(each)}: {family}", self.dims[_key(each[0])], runs))
            pairs = [
                (self.figures[_key(one)][repeat], self.figures[_key(rival)][repeat])
                for one in each
                for repeat in range(seeds)
                if (rival := everyone.rival(one, repeat)) is not None
            ]
            if pairs and classes:
                differences.append(difference_of(family, pairs))
        return Evaluation(
            about=about,
            rows=tuple(rows),
            means=tuple(means),
            differences=tuple(differences),
            bank=self.sizes[0][0],
            queries=self.sizes[0][1],
            classes=classes,
            notes=notes,
            maps=tuple(self.maps.values()),
        )


def _key(contender: Contender) -> Key:
    return contender.name, contender.seed


def _taking_part(everyone: Contenders, repeat: int) -> list[Contender]:
    """Subjects, each once with its own initial weights, or those of a later repeat, untrained; and raw samples."""
    rivals = {(rival.name, rival.seed): rival for one in everyone.subjects if (rival := everyone.rival(one, repeat))}
    return [*everyone.subjects, *rivals.values(), everyone.raw]


def _embed(embedders: dict[Key, Embed], source: Source) -> tuple[dict[Key, Vectors], Indices]:
    """Vectors of every readable sample without NaN and infinity by every embedder, in one pass, and the samples' indices."""
    vectors: dict[Key, list[Vectors]] = {key: [] for key in embedders}
    kept: list[Indices] = []
    for batch in source.batches(256):
        good = finite_rows(batch.frames)
        if good.any():
            kept.append(batch.indices[good])
            for key, embed in embedders.items():
                vectors[key].append(embed(batch.frames[good]))
    if not kept:
        raise InputError(f"no sample of {source.name} can be read, or all hold NaN or infinity")
    return {key: np.concatenate(parts) for key, parts in vectors.items()}, np.concatenate(kept)


def _labels(
    train: Source, kept: Indices, test: Source, kept_queries: Indices
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Labels of the kept samples, both in the classes of `train`."""
    if train.labels is None and test.labels is None:
        return None
    if train.labels is None or test.labels is None:
        has, lacks = (test, train) if train.labels is None else (train, test)
        raise InputError(f"{has.name} has labels and {lacks.name} has none; give both with labels, or both without")
    strange = sorted(set(test.classes) - set(train.classes))
    if strange:
        raise InputError(f"{test.name} has classes that {train.name} lacks: {', '.join(strange[:5])}")
    place = np.array([train.classes.index(name) for name in test.classes])
    return train.labels[kept], place[test.labels[kept_queries]]


def _groups(source: Source, kept: Indices) -> NDArray[np.str_] | None:
    groups = getattr(source, "groups", None)
    return None if groups is None else np.asarray(groups)[kept]


def _about(source: Source) -> dict[str, Any]:
    return {"name": source.name, "digest": source.digest(), "samples": len(source)}


def _beside(known: NDArray[np.int64], labels: NDArray[np.int64], classes: Sequence[str], *, grouped: bool) -> list[str]:
    """What an accuracy must be read beside: one answer for all, the chance of the draw, classes nobody could learn."""
    count = np.bincount(labels)
    usual, share = classes[int(count.argmax())], count.max() / len(labels)
    notes = [
        f"one answer for all, {usual!r}, is right for {share:.3f} of the "
        f"{len(labels)} test samples; with so many an accuracy has a standard error of up to {0.5 / len(labels) ** 0.5:.3f}, "
        "and more where samples belong together"
    ]
    if len(strange := np.setdiff1d(labels, known)):
        names = ", ".join(classes[each] for each in strange[:5])
        hint = "; add --no-by-group to hold out samples instead of groups" if grouped else ""
        notes.append(f"no sample to learn from is of class {names}, so nothing can tell it{hint}")
    return notes


def _map(name: str, vectors: Vectors, labels: NDArray[np.int64] | None) -> Map:
    """The plane of the two widest directions (principal components) of up to 1000 vectors, drawn."""
    drawn = np.random.default_rng(0).permutation(len(vectors))[:MAP_SAMPLES]
    centred = vectors[drawn] - vectors[drawn].mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return Map(name=name, points=centred @ axes[:2].T, labels=None if labels is None else labels[drawn])


def _notes(
    train: Source, test: Source | None, groups: NDArray[np.str_] | None, seeds: int, *, labelled: bool
) -> list[str]:
    notes = []
    if test is None and groups is not None:
        notes.append(f"a fifth of the samples is held out, whole groups of {len(np.unique(groups))}")
    elif test is None:
        notes.append("a fifth of the samples is held out; frames of one recording may lie on both sides")
    elif test is not None and len(both := _in_both(train, test)):
        notes.append(f"{len(both)} groups have samples on both sides, such as {both[0]}")
    if not labelled:
        notes.append("there are no labels, so there is no accuracy; RankMe says how many directions the vectors use")
    if seeds > 1:
        notes.append(
            f"means and standard deviations are over {seeds} repeats; rows of untrained encoders over all weights"
        )
    return notes


def _left_out(source: Source, kept: Indices) -> int:
    """Samples that could not be made or read, and those that hold NaN or infinity."""
    skipped = {each.name for each in source.skipped}
    return len(skipped | set(source.names)) - len(kept)


def _in_both(train: Source, test: Source) -> NDArray[np.str_]:
    """Groups that have samples in both sources; none where a source does not know its groups."""
    one, other = (_groups(source, np.arange(len(source))) for source in (train, test))
    return np.array([], str) if one is None or other is None else np.intersect1d(one, other)
