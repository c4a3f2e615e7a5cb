"""Figure 3: twenty rounds of the 15 corruptions; nothing may wear off, and the clean world must still be known.

    EDGESSL_DATA=/path/to/data python benchmarks/adaptation/recurring.py --folder /tmp/adapt

Each round shows the same first `--count` test images under each corruption (severity 5), in a new random order, in
batches of 64, never with a reset: the rounds differ in what was learned, not in which images there were. Then come clean
test images, ten times as many and at most all 10,000, past the adapted learner, which goes on learning if it sees fit.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
from contenders import Contender, levels, unadapted
from corruptions import BENCHMARK
from harness import TEST, Leg, Report, Trial, chosen, options

ROUNDS, BATCH = 20, 64
RISE, FALL = 0.5, 1.0  # points


def run(trial: Trial, contender: Contender, rounds: int, report: Report) -> None:
    """One contender through all rounds and the clean pass: a row."""
    stream = (
        leg._replace(name=f"{around} {leg.name}")
        for around in range(1, rounds + 1)
        for leg in trial.legs(BENCHMARK, around=around)
    )
    clean: Leg = trial.clean(min(10 * trial.count, TEST))
    found, told = trial.course(contender, chain(stream, [clean]), BATCH)
    errors = [
        100 * (1 - float(np.mean([found[f"{around} {name}"] for name in BENCHMARK]))) for around in range(1, rounds + 1)
    ]
    report.add(
        seed=trial.seed,
        model=contender.model,
        level=contender.name,
        first=errors[0],
        second=errors[min(1, rounds - 1)],
        last=errors[-1],
        clean=100 * found["clean"],
        **told,
        errors={f"round {index}": round(error, 2) for index, error in enumerate(errors, 1)},
        by_leg={name: round(value, 4) for name, value in found.items()},
    )


def main() -> None:
    parser = options(__doc__, count=1000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    report = Report("recurring", __doc__ or "", given)
    for seed in given.seeds:
        trial = Trial(Path(given.data), given.folder, seed, given.count)
        for engine in given.engine:
            run(trial, unadapted(engine), 1, report)
            for contender in chosen(levels(engine), given.only):
                run(trial, contender, given.rounds, report)
    for name in (each.name for each in chosen(levels(""), given.only)):
        rows = [row for row in report.rows if row["level"] == name]
        rise = max(row["last"] - row["second"] for row in rows)
        report.claim(f"{name}: error of round {given.rounds} less round 2, points, worst seed", rise, most=RISE)
        fall = max(
            report.mean("clean", seed=row["seed"], model=row["model"], level="none") - row["clean"] for row in rows
        )
        report.claim(f"{name}: clean accuracy lost after the stream, points, worst seed", fall, most=FALL)
    report.write()


if __name__ == "__main__":
    main()
