"""Every recipe beside its untrained encoder and its negative control: CIFAR-10, and windows of phone and watch.

    EDGESSL_DATA=/path/to/data python benchmarks/recipes.py --jobs 2
    python benchmarks/recipes.py /path/to/data --only simclr byol --kind image --seeds 0 1 2 --jobs 2
    python benchmarks/recipes.py --page                                   writes docs/recipes.md from the results

A training is a process with one thread; its row goes to `benchmarks/results/recipes/NAME.json` as soon as it is there, and a
benchmark that was stopped goes on behind the last row. Rows made with other numbers than `recipe_settings.py` and the recipe's
defaults give today are dropped. The untrained encoder of a seed is the one that the training began with; the control is
trained with `Views.unpaired()`.

Claims, per recipe, over three seeds: the linear probe gains 12 points over the untrained encoder (joint embedding), 4
(masked and pretext), the macro-F1 of series 3; every seed gains; the control does not, see `edgessl.check.judged`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from recipe_page import PAGE, RESULTS, page
from recipe_settings import command, goal_of, kinds_of, resolved, settings_of

from edgessl.check import judged
from edgessl.export.pays import machine
from edgessl.files import write_atomic
from edgessl.recipes import RECIPES

_WRITING = threading.Lock()


@dataclass(frozen=True)
class Task:
    """One training."""

    recipe: str
    kind: str
    seed: int
    control: bool

    @property
    def told(self) -> str:
        return f"{self.recipe} {self.kind} seed {self.seed}{' control' * self.control}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and probe the recipes, figures to benchmarks/results/recipes/.")
    parser.add_argument(
        "data", nargs="?", default=os.environ.get("EDGESSL_DATA"), help="folder with cifar10/ and the rest"
    )
    parser.add_argument(
        "--only", nargs="+", choices=sorted(RECIPES), metavar="NAME", help="these recipes; default: all"
    )
    parser.add_argument("--kind", choices=["image", "series"], help="samples of this kind; default: both")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--controls", action="store_true", help="a control for every seed, not for the first alone")
    parser.add_argument("--train", type=int, default=50_000, help="training images")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--again", action="store_true", help="rows that are there already too")
    parser.add_argument("--page", action="store_true", help="write docs/recipes.md and leave")
    given = parser.parse_args()
    if given.page:
        PAGE.write_text(page())
        return
    if given.data is None:
        parser.error("give the data folder, or set EDGESSL_DATA")
    tasks = [
        Task(recipe, kind, seed, control)
        for recipe in given.only or RECIPES
        for kind in kinds_of(recipe)
        if given.kind in (None, kind)
        for control in (False, True)
        for seed in (given.seeds if given.controls or not control else given.seeds[:1])
    ]
    missing = [task for task in tasks if given.again or not is_done(task, given.train)]
    print(f"{len(missing)} trainings to do, {len(tasks) - len(missing)} are there", flush=True)
    with ThreadPoolExecutor(given.jobs) as pool:
        failed = [told for told in pool.map(lambda task: measure(task, given.data, given.train), missing) if told]
    if failed:
        sys.exit("\n".join(["failed:", *failed]))


def measure(task: Task, data: str, train: int) -> str:
    """Train in a process of its own and keep the row; what went wrong, or nothing."""
    words = [str(Path(__file__).parent / "recipe_run.py"), data, task.recipe, task.kind, str(task.seed)]
    words += ["--train", str(train), *(["--control"] if task.control else [])]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], env=os.environ | threads, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        print(f"{task.told}: FAILED: {last}", flush=True)
        return f"{task.told}: {last}"
    row = json.loads(done.stdout.splitlines()[-1])
    with _WRITING:
        told = keep(task, row, train)
    print(f"{task.told}: {row['seconds']:.0f} s, {told}", flush=True)
    return ""


def is_done(task: Task, train: int) -> bool:
    """Whether the row is in the results, made with the settings of today."""
    found = _read(task.recipe)["kinds"].get(task.kind, {})
    rows = found.get("controls" if task.control else "rows", {})
    return found.get("settings") == _settings(task, train) and str(task.seed) in rows


def keep(task: Task, row: dict[str, Any], train: int) -> str:
    """Write the row into the result file of the recipe, and tell what it shows so far."""
    result = _read(task.recipe)
    settings, goal = _settings(task, train), goal_of(task.recipe, task.kind)
    entry = result["kinds"].get(task.kind, {})
    if entry.get("settings") != settings:
        entry = {"rows": {}, "controls": {}}
    rows, controls = entry["rows"], entry["controls"]
    (controls if task.control else rows)[str(task.seed)] = row
    series = task.kind == "series"
    result["kinds"][task.kind] = {
        "data": "phone and watch, other people in the test" if series else "CIFAR-10",
        "measure": "macro_f1" if series else "linear",
        "goal": goal,
        "settings": settings,
        "command": command(task.recipe, settings_of(task.recipe, task.kind)),
        "summary": summary(rows, controls, "macro_f1" if series else "linear", goal),
        "date": date.today().isoformat(),
        "machine": {"cpu": machine(), "threads": 1, "system": platform.system()},
        "python": platform.python_version(),
        "rows": dict(sorted(rows.items())),
        "controls": dict(sorted(controls.items())),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_atomic(RESULTS / f"{task.recipe}.json", (json.dumps(result, indent=2) + "\n").encode())
    found = result["kinds"][task.kind]["summary"]
    return ", ".join(f"{name} {found[name]}" for name in ("gain", "gain_sd", "control_gain") if name in found)


def summary(rows: dict[str, Any], controls: dict[str, Any], measure: str, goal: float) -> dict[str, Any]:
    """Means over the seeds, gains over the untrained encoder of the same seed, and the verdict."""
    if not rows:
        return {"reasons": ["only the control was run"], "passes": False}
    found: dict[str, Any] = {"seeds": sorted(int(seed) for seed in rows)}
    for name in ("untrained", "trained"):
        keys = rows[next(iter(rows))][name]
        found[name] = {key: round(fmean(row[name][key] for row in rows.values()), 4) for key in keys}
    gains = {int(seed): row["trained"][measure] - row["untrained"][measure] for seed, row in rows.items()}
    lost = {
        int(seed): row["control"][measure] - rows[seed]["untrained"][measure]
        for seed, row in controls.items()
        if seed in rows
    }
    found["gains"] = {str(seed): round(gain, 4) for seed, gain in sorted(gains.items())}
    found["gain"] = round(fmean(gains.values()), 4)
    if len(gains) > 1:
        found["gain_sd"] = round(stdev(gains.values()), 4)
    if lost:
        found["control_gain"] = round(fmean(lost.values()), 4)
    found["seconds"] = round(fmean(row["seconds"] for row in rows.values()), 1)
    found["reasons"] = judged(gains, lost, goal)
    found["passes"] = not found["reasons"]
    return found


def _settings(task: Task, train: int) -> dict[str, Any]:
    return resolved(task.recipe, task.kind) | ({"train_images": train} if task.kind == "image" else {})


def _read(recipe: str) -> dict[str, Any]:
    path = RESULTS / f"{recipe}.json"
    if not path.exists():
        return {"recipe": recipe, "kinds": {}}
    return dict(json.loads(path.read_text()))


if __name__ == "__main__":
    main()
