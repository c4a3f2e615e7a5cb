"""What an evaluation found: rows of figures, differences to the untrained encoder, and what must be said about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.evaluation.layers import Layers
from edgessl.metrics import Vectors

#: What labels are needed for, and what is compared with the untrained encoder.
ACCURACIES = ("knn", "linear", "macro_f1")
_PLAIN = (*ACCURACIES, "rankme", "lidar", "alignment", "uniformity")
FEW, CORRUPTED, MEAN = "few ", "corrupted ", "mean"


@dataclass(frozen=True, kw_only=True)
class Row:
    """The figures of one embedding, means over the runs.

    Attributes:
        name: The path of the checkpoint or bundle, `untrained NAME`, `raw pixels` (mean removed) or `raw series`
            (standardised).
        dim: Width of the vectors.
        knn: Accuracy of the weighted vote of 20 nearest neighbours; None without labels.
        linear: Accuracy of a linear probe; None without labels.
        macro_f1: F1 of the linear probe, averaged over the classes.
        rankme: Effective rank of the test vectors: how many directions they use.
        lidar: Effective rank of what tells samples apart beside what two views of one differ in; None for very wide vectors.
        alignment: Mean squared distance of two views of a sample; 0 is best, and trivial for a collapsed encoder.
        uniformity: How evenly the vectors fill the sphere; lower is more even.
        few_labels: Labels per class -> accuracy of the linear probe; empty where it was not asked for.
        corruptions: Corruption -> 20-NN accuracy of corrupted samples against a clean bank, and their `mean`.
        layers: What each stage says about the labels, in the first run.
        runs: Repeats that the means are over.
        sd: Figure -> standard deviation over the runs; empty for one run.
    """

    name: str
    dim: int
    knn: float | None
    linear: float | None
    macro_f1: float | None
    rankme: float
    lidar: float | None
    alignment: float
    uniformity: float
    few_labels: dict[int, float] = field(default_factory=dict)
    corruptions: dict[str, float] = field(default_factory=dict)
    layers: Layers | None = None
    runs: int = 1
    sd: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self) | {"layers": None if self.layers is None else self.layers.to_json()}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far subjects of one family stand above the same encoder with the same initial weights, untrained.

    Attributes:
        name: Recipe and encoder.
        runs: Pairs: subjects times repeats.
        mean, sd, least: Figure -> mean, standard deviation (0 for one pair) and smallest of the paired differences.
    """

    name: str
    runs: int
    mean: dict[str, float]
    sd: dict[str, float]
    least: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Map:
    """Vectors in the plane of their two widest directions.

    Attributes:
        name: As the row's.
        points: `(n, 2)`.
        labels: `(n,)` classes, or None.
    """

    name: str
    points: Vectors
    labels: NDArray[np.int64] | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Rows of figures, and what must be said about them.

    Attributes:
        about: What was evaluated on: the sources with their digests, the seeds, the version of edgessl.
        rows: The subjects, then the untrained encoders, then raw samples.
        means: For each family with several subjects (the same recipe and encoder, other seeds): their mean, with the
            spread over subjects.
        differences: For each family, beside itself untrained; empty without labels.
        bank, queries: Samples that neighbours and probe learn from, and samples they are tested on, in the first run.
        classes: Names of the labels; empty without labels.
        notes: Sentences for the reader.
        maps: Pictures to draw; not in the JSON.
    """

    about: dict[str, Any]
    rows: tuple[Row, ...]
    means: tuple[Row, ...]
    differences: tuple[Difference, ...]
    bank: int
    queries: int
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    maps: tuple[Map, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {
            "about": self.about,
            "rows": [row.to_json() for row in self.rows],
            "means": [row.to_json() for row in self.means],
            "differences": [asdict(each) for each in self.differences],
            "bank": self.bank,
            "queries": self.queries,
            "classes": list(self.classes),
            "notes": list(self.notes),
        }

    def tables(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """The same for people: titles, and rows whose cells are ready to print. What nobody measured has no column."""
        rows = [*self.rows, *self.means]
        found = [
            (f"{self.queries} samples to tell, {self.bank} to learn from", _only_used([_cells(row) for row in rows]))
        ]
        found += [("20-NN accuracy, corrupted", [_corrupted(row) for row in rows if row.corruptions])]
        for row in rows:
            if row.layers is not None:
                lines = zip(row.layers.names, row.layers.weights, row.layers.accuracies, strict=True)
                title = f"{row.name}: best at {row.layers.best}; gated probe {row.layers.gated:.3f}"
                found.append((title, [{"layer": at, "weight": round(w, 4), "linear": alone} for at, w, alone in lines]))
        found += [("above the same encoder untrained, pair by pair", [_compared(each) for each in self.differences])]
        return [(title, lines) for title, lines in found if lines]


def row_of(name: str, dim: int, runs: Sequence[Mapping[str, float]], layers: Layers | None = None) -> Row:
    """The means of some runs as a row.

    Args:
        name, dim, layers: As in `Row`.
        runs: The same figures of every run: those of `Row` by their names, `few 5` and so on, `corrupted blur` and so on.
    """
    names = list(runs[0])
    values = np.array([[run[each] for each in names] for run in runs])
    means = dict(zip(names, values.mean(0).tolist(), strict=True))
    sd = dict(zip(names, values.std(0, ddof=1).tolist(), strict=True)) if len(runs) > 1 else {}
    return Row(
        name=name,
        dim=dim,
        **{each: means.get(each) for each in _PLAIN},  # type: ignore[arg-type]  # the last ones are always measured
        few_labels={int(each.removeprefix(FEW)): means[each] for each in names if each.startswith(FEW)},
        corruptions={each.removeprefix(CORRUPTED): means[each] for each in names if each.startswith(CORRUPTED)},
        layers=layers,
        runs=len(runs),
        sd=sd,
    )


def mean_of(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Each figure averaged over runs that have the same figures."""
    rows = list(runs)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def difference_of(name: str, pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> Difference:
    """Paired differences, trained less untrained, of the figures that need labels."""
    names = [each for each in ACCURACIES if each in pairs[0][0]]
    apart = np.array([[trained[each] - untrained[each] for each in names] for trained, untrained in pairs])
    spread = apart.std(0, ddof=1) if len(pairs) > 1 else np.zeros(len(names))
    mean, sd, least = (dict(zip(names, each.tolist(), strict=True)) for each in (apart.mean(0), spread, apart.min(0)))
    return Difference(name=name, runs=len(pairs), mean=mean, sd=sd, least=least)


def _cells(row: Row) -> dict[str, Any]:
    cells: dict[str, Any] = {"name": row.name, "dim": row.dim}
    cells |= {each: _spread(getattr(row, each), row.sd.get(each)) for each in _PLAIN}
    return cells | {
        f"{FEW}{count}": _spread(each, row.sd.get(f"{FEW}{count}")) for count, each in row.few_labels.items()
    }


def _corrupted(row: Row) -> dict[str, Any]:
    found = {each: _spread(value, row.sd.get(CORRUPTED + each)) for each, value in row.corruptions.items()}
    return {"name": row.name, "clean": _spread(row.knn, row.sd.get("knn")), **found}


def _compared(difference: Difference) -> dict[str, Any]:
    cells: dict[str, Any] = {"name": difference.name, "pairs": difference.runs}
    for each, mean in difference.mean.items():
        cells[each] = f"{mean:+.3f}"
        if difference.runs > 1:
            cells[each] += f" ± {difference.sd[each]:.3f}, least {difference.least[each]:+.3f}"
    return cells


def _spread(mean: float | None, sd: float | None) -> Any:
    return mean if mean is None or sd is None else f"{mean:.4g} ± {sd:.2g}"


def _only_used(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the columns that no row has a value in."""
    used = list(dict.fromkeys(head for row in rows for head, value in row.items() if value is not None))
    return [{head: row.get(head) for head in used} for row in rows]
