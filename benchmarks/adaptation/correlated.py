"""Figure 2: correlated streams; no level may fall more than half a point below no adaptation.

    EDGESSL_DATA=/path/to/data python benchmarks/adaptation/correlated.py --folder /tmp/adapt

The first `--count` test images pass through the 15 corruptions (severity 5) without a reset, class-sorted or by a
Dirichlet draw of 0.1 and of 0.01 anew for each corruption, in batches of 1, 4, 16 and 64. Reported is the difference to
no adaptation on the same frames in points, its mean over the 15 and the worst of them. Without adaptation a frame's
vector depends neither on the order nor on the batch, so that each frame is embedded once for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from contenders import levels
from corruptions import BENCHMARK
from harness import Labels, Leg, Report, Trial, chosen, options
from streams import class_sorted, dirichlet

ALLOWED = -0.5  # points
BATCHES = (1, 4, 16, 64)
Order = Callable[..., Labels]
ORDERS: dict[str, Order] = {
    "class-sorted": class_sorted,
    "dirichlet 0.1": lambda labels, *, seed: dirichlet(labels, 0.1, seed=seed),
    "dirichlet 0.01": lambda labels, *, seed: dirichlet(labels, 0.01, seed=seed),
}


def legs(trial: Trial, order: Order) -> Iterator[Leg]:
    """The corruptions, each in an order of its own."""
    for index, name in enumerate(BENCHMARK):
        shown = order(trial.labels, seed=100 * trial.seed + index)
        yield Leg(name, trial.corrupted(name)[shown], trial.labels[shown])


def run_seed(trial: Trial, engine: str, only: list[str] | None, batches: list[int], report: Report) -> None:
    """Every level in every order and batch."""
    none = {name: _accuracy_of_none(trial, engine, name) for name in BENCHMARK}
    report.add(seed=trial.seed, engine=engine, level="none", accuracy=float(np.mean([*none.values()])))
    for order, make in ORDERS.items():
        for batch in batches:
            for contender in chosen(levels(engine), only):
                found, told = trial.course(contender, legs(trial, make), batch)
                points = {name: 100 * (found[name] - none[name]) for name in found}
                worst = min(points, key=lambda name: points[name])
                report.add(
                    seed=trial.seed,
                    engine=engine,
                    order=order,
                    batch=batch,
                    level=contender.name,
                    points=float(np.mean([*points.values()])),
                    worst=worst,
                    worst_points=points[worst],
                    **told,
                    by_corruption={name: round(value, 2) for name, value in points.items()},
                )


def _accuracy_of_none(trial: Trial, engine: str, name: str) -> float:
    return float(trial.bank(engine).right(trial.embed(engine, trial.corrupted(name)), trial.labels).mean())


def main() -> None:
    parser = options(__doc__, count=1000)
    parser.add_argument("--batch", type=int, nargs="+", default=list(BATCHES))
    given = parser.parse_args()
    report = Report("correlated", __doc__ or "", given)
    for seed in given.seeds:
        trial = Trial(Path(given.data), given.folder, seed, given.count)
        for engine in given.engine:
            run_seed(trial, engine, given.only, given.batch, report)
    for name in (each.name for each in chosen(levels(""), given.only)):
        rows = [row for row in report.rows if row["level"] == name]
        least = min(rows, key=lambda row: row["points"])
        worst = min(rows, key=lambda row: row["worst_points"])
        where = f"seed {least['seed']}, {least['engine']}, {least['order']}, batch {least['batch']}"
        text = f"{name}, points against none, worst of all orders, batches and seeds ({where})"
        report.claim(text, least["points"], least=ALLOWED)
        print(f"       worst single corruption: {worst['worst']} {worst['worst_points']:.2f}", flush=True)
    report.write()


if __name__ == "__main__":
    main()
