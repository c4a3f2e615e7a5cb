"""Figure 1: the 15 corruptions one after the other, online, without a reset: how much of what they take comes back.

    EDGESSL_DATA=/path/to/data python benchmarks/adaptation/continual.py --folder /tmp/adapt

Severity 5, standard order, `--count` test images each, in a new random order each time, in batches of 64; every
contender meets the very same batches. Each baseline family enters with its best variant, chosen on the four extra
corruptions with the first seed, as our own settings were chosen on these four. Baselines run in PyTorch in fp32 and are
measured against their own unadapted form and their own clean bank; Tent and CoTTA follow a linear head that was fitted
to labelled clean embeddings, though the score is the neighbours' for all. CoTTA has 4 augmented copies, not the paper's 32.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import numpy as np
from contenders import TORCH, Contender, baselines, levels, unadapted
from corruptions import BENCHMARK, EXTRA
from harness import Report, Trial, chosen, gives_back, options

BOUNDS = {"level0": 0.50, "level1": 0.65, "level2": 0.75}
BATCH = 64
EXTRA_COUNT = 2500  # images per extra corruption


def best_variants(trial: Trial, contenders: list[Contender], report: Report, batch: int) -> list[Contender]:
    """The best of each family on the extra corruptions."""
    none, best = float(np.mean([*_accuracies(trial, unadapted(TORCH), batch)])), []
    for _, variants in groupby(contenders, key=lambda each: each.family):
        scores = {each: float(np.mean([*_accuracies(trial, each, batch)])) for each in variants}
        for each, accuracy in scores.items():
            report.add(
                seed=trial.seed, stream="extra", contender=each.name, accuracy=accuracy, over_none=accuracy - none
            )
        best.append(max(scores, key=lambda each: scores[each]))
    return best


def _accuracies(trial: Trial, contender: Contender, batch: int) -> Iterable[float]:
    return trial.course(contender, trial.legs(EXTRA), batch)[0].values()


def run_seed(trial: Trial, model: str, contenders: list[Contender], report: Report, batch: int) -> None:
    """One model's contenders, its unadapted form first."""
    clean = trial.clean(trial.count)
    at_best = float(trial.bank(model).right(trial.embed(model, clean.frames), clean.labels).mean())
    none = 0.0
    for contender in [unadapted(model), *contenders]:
        found, told = trial.course(contender, trial.legs(BENCHMARK), batch)
        accuracy = float(np.mean([*found.values()]))
        none = accuracy if contender.family == "none" else none
        worst = min(found, key=lambda name: found[name])
        report.add(
            seed=trial.seed,
            stream="benchmark",
            model=model,
            contender=contender.name,
            family=contender.family,
            accuracy=accuracy,
            gives_back=gives_back(accuracy, none, at_best),
            clean=at_best,
            worst=worst,
            **told,
            by_corruption={name: round(value, 4) for name, value in found.items()},
        )


def claims(report: Report, engines: list[str], names: list[str]) -> None:
    """Means over the seeds: each level against its bound, and against the best baseline."""
    others = {row["contender"] for row in report.rows if row.get("model") == TORCH} - {"none"}
    scores = {name: report.mean("gives_back", stream="benchmark", model=TORCH, contender=name) for name in others}
    for engine in engines:
        for name in names:
            got = report.mean("gives_back", stream="benchmark", model=engine, contender=name)
            report.claim(f"{name} in {engine} gives back", got, least=BOUNDS[name])
            if scores:
                best = max(scores, key=lambda other: scores[other])
                report.claim(f"{name} in {engine} against the best baseline, {best}", got, least=scores[best])


def main() -> None:
    parser = options(__doc__, count=10_000, engines=("onnxruntime", "openvino"))
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--baselines", choices=("none", "fast", "all"), default="all")
    given = parser.parse_args()
    report = Report("continual", __doc__ or "", given)
    others = chosen(baselines(given.baselines), given.only)
    for seed in given.seeds:
        if seed == given.seeds[0] and others:
            extra = Trial(Path(given.data), given.folder, seed, min(given.count, EXTRA_COUNT))
            others = best_variants(extra, others, report, given.batch)
        trial = Trial(Path(given.data), given.folder, seed, given.count)
        for engine in given.engine:
            run_seed(trial, engine, chosen(levels(engine), given.only), report, given.batch)
        if others:
            run_seed(trial, TORCH, others, report, given.batch)
    names = [each.name for each in chosen(levels(""), given.only)]
    claims(report, given.engine, names)
    report.write()


if __name__ == "__main__":
    main()
