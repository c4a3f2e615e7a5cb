"""A student with a fifth of its teacher's parameters: distilled, and trained by the recipe alone. CIFAR-10, 20-NN.

    EDGESSL_DATA=/path/to/data python benchmarks/distillation.py --folder /tmp/distillation
    python benchmarks/distillation.py /path/to/data --folder /tmp/distillation --only objectives

The teacher is trained by SimCLR, about ten minutes on two cores, and kept in the folder. Both students of a seed learn from the
50,000 training images without labels, in as many steps of the same batch; a step of the recipe looks at two views of each sample
and costs twice as much.

A row goes to `benchmarks/results/distillation.json` as soon as it is there, and a benchmark that was stopped goes on behind the
last row. Rows made with other settings are dropped.

Claim, mean of three seeds: a student with at most a fifth of the teacher's parameters keeps 97 % of its 20-NN accuracy, and
beats the same student trained by the recipe alone with every seed. The objectives are compared with one seed and fewer steps;
the default of `edgessl distill` is the one that is best there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import asdict
from datetime import date
from itertools import chain, product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from cifar import cifar10

from edgessl.blocks.image_views import ImageViewConfig
from edgessl.check import embedded
from edgessl.checkpoint import read_checkpoint
from edgessl.distill import DistillationConfig, distill
from edgessl.errors import InputError
from edgessl.export.pays import machine
from edgessl.files import write_atomic
from edgessl.metrics import knn_accuracy
from edgessl.pretrain import pretrain
from edgessl.sources.arrays import ArraySource
from edgessl.trainer import Run

RESULT = Path(__file__).parent / "results" / "distillation.json"
BANK = 20_000
KEPT, PART = 0.97, 0.2
TEACHER: dict[str, Any] = {"widths": [48, 96, 192, 256], "depth": 2}
STUDENT: dict[str, Any] = {"widths": [32, 64, 128, 192]}
TEACHER_IMAGES, TEACHER_STEPS = 45_000, 1800
ALONE_STEPS, STEPS, SHORT, BATCH, LR = 900, 900, 200, 256, 3e-3
#: crops and colour as SimCLR has them on CIFAR-10
VIEWS = ImageViewConfig(
    area=(0.3, 1.0), turn_deg=0.0, contrast=(0.6, 1.4), saturation=(0.4, 1.6), gain=(0.6, 1.4), blur=0.0, noise=0.0
)
#: crops and flips alone: nothing is to be told apart, so nothing has to be hidden
SMALL = ImageViewConfig(
    area=(0.5, 1.0),
    turn_deg=0.0,
    light=0.0,
    contrast=(1.0, 1.0),
    saturation=(1.0, 1.0),
    tint=0.0,
    gamma=(1.0, 1.0),
    gain=(1.0, 1.0),
    grey=0.0,
    blur=0.0,
    noise=0.0,
)
RECIPE: dict[str, Any] = {"views": VIEWS, "temperature": 0.2}
#: what is compared: settings that differ from these. `sample`: the teacher sees the sample itself, not the view
PLAIN: dict[str, Any] = {
    "feature": 1.0,
    "hidden": 0,
    "similarity": 0.0,
    "relations": 0.0,
    "tokens": 0.0,
    "clean": False,
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "cosine": {},
    "cosine, views of SimCLR": {"views": VIEWS},
    "cosine and relations, views of SimCLR": {"views": VIEWS, "relations": 1.0},
    "sample, cosine": {"clean": True},
    "sample, projector of two layers": {"clean": True, "hidden": 512},
    "sample, cosine and similarity": {"clean": True, "similarity": 0.2},
    "sample, cosine and relations": {"clean": True, "relations": 1.0},
    "cosine and tokens": {"tokens": 1.0},
}
#: of the claim: the cosine alone, and a teacher that need not be asked at every step
CHOSEN: dict[str, Any] = PLAIN | {"clean": True}
ROWS = ("teacher", "alone", "objectives", "distilled")


def main() -> None:
    parser = argparse.ArgumentParser(description="Distil on CIFAR-10, figures to benchmarks/results/.")
    parser.add_argument("data", nargs="?", default=os.environ.get("EDGESSL_DATA"), help="folder with cifar10/")
    parser.add_argument("--folder", type=Path, required=True, help="where the teacher is kept")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, help="these rows; default: all")
    parser.add_argument("--objective", nargs="+", choices=list(OBJECTIVES), default=list(OBJECTIVES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    given = parser.parse_args()
    if given.data is None:
        parser.error("give the data folder, or set EDGESSL_DATA")
    seeds = [str(seed) for seed in given.seeds]
    names = {"teacher": ["0"], "alone": seeds, "objectives": given.objective, "distilled": seeds}
    for group, name in chain.from_iterable(product([group], names[group]) for group in given.only):
        found = _read()["rows"].get(group, {}).get(name, {})
        if found.get("settings") != settings(group, name):
            row = measured(Path(given.data), given.folder / "teacher", group, name)
            keep(group, name, row)
            print(f"{group} {name}: 20-NN {row['knn']}, {row['seconds']} s", flush=True)


def measured(data: Path, teacher: Path, group: str, name: str) -> dict[str, Any]:
    """Train an encoder, and see how many test images are told by their 20 nearest neighbours."""
    started = time.monotonic()
    if not teacher.exists():
        images = cifar10(data, "train", slice(TEACHER_IMAGES))
        _pretrained(images, TEACHER, teacher, _run(TEACHER_STEPS, 0))
    with tempfile.TemporaryDirectory() as folder:
        output, images = Path(folder) / "student", cifar10(data, "train")
        if group == "teacher":
            output = teacher
        elif group == "alone":
            _pretrained(images, STUDENT, output, _run(ALONE_STEPS, int(name)))
        else:
            run = _run(SHORT, 0) if group == "objectives" else _run(STEPS, int(name))
            options: dict[str, Any] = {
                "encoder": "conv_small",
                "encoder_options": STUDENT,
                "config": _config(group, name),
            }
            kept = teacher.parent / "cache" if options["config"].clean else None
            distill(teacher, images, output=output, run=run, cache=kept, **options)
        encoder, facts = read_checkpoint(output)
    if group == "teacher" and (facts["encoder"]["options"], facts["steps"]) != (TEACHER, TEACHER_STEPS):
        raise InputError(f"{teacher} holds another teacher; name another --folder")
    (bank, bank_labels), (queries, labels) = (
        embedded(encoder, part) for part in (cifar10(data, "train", slice(BANK)), cifar10(data, "test"))
    )
    return {
        "knn": round(knn_accuracy(queries, labels, bank, bank_labels), 4),
        "parameters": sum(weight.numel() for weight in encoder.parameters()),
        "loss": facts["loss"],
        "seconds": round(time.monotonic() - started, 1),
        "date": date.today().isoformat(),
        "settings": settings(group, name),
    }


def keep(group: str, name: str, row: dict[str, Any]) -> None:
    """Write the row into the result file, with what all rows show so far."""
    rows = _read()["rows"]
    rows.setdefault(group, {})[name] = row
    result = {
        "claim": "a student of at most a fifth of the parameters keeps 97 % of its teacher's 20-NN accuracy, mean of three "
        "seeds, and beats the same student trained by the recipe alone with every seed",
        **summary(rows),
        "machine": {"cpu": machine(), "threads": torch.get_num_threads(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        "images": {"train": 50_000, "bank": BANK, "test": 10_000},
        "rows": {group: dict(sorted(rows[group].items())) for group in ROWS if group in rows},
    }
    write_atomic(RESULT, (json.dumps(result, indent=2) + "\n").encode())


def summary(rows: dict[str, Any]) -> dict[str, Any]:
    """Means, and whether the claim holds; as far as there are rows."""
    alone, distilled, teacher = (rows.get(group, {}) for group in ("alone", "distilled", "teacher"))
    if not (teacher and distilled and distilled.keys() == alone.keys()):
        return {"holds": False}
    whole, student = teacher["0"], next(iter(distilled.values()))
    kept = fmean(row["knn"] for row in distilled.values()) / whole["knn"]
    part = student["parameters"] / whole["parameters"]
    better = {seed: round(row["knn"] - alone[seed]["knn"], 4) for seed, row in distilled.items()}
    return {
        "holds": len(distilled) >= 3 and kept >= KEPT and part <= PART and min(better.values()) > 0,
        "kept": round(kept, 4),
        "part_of_parameters": round(part, 4),
        "better_than_alone": better,
    }


def settings(group: str, name: str) -> dict[str, Any]:
    """Every number of a training that can change."""
    found: dict[str, Any] = {"batch": BATCH, "lr": LR, "teacher": TEACHER, "teacher_steps": TEACHER_STEPS}
    if group == "teacher":
        return found
    found |= {"student": STUDENT, "steps": {"alone": ALONE_STEPS, "objectives": SHORT, "distilled": STEPS}[group]}
    config = {"views": asdict(VIEWS)} if group == "alone" else asdict(_config(group, name))
    return dict(json.loads(json.dumps(found | {"config": config})))


def _pretrained(images: ArraySource, options: dict[str, Any], output: Path, run: Run) -> None:
    recipe = {"recipe": "simclr", "recipe_options": RECIPE}
    pretrain(images, encoder="conv_small", encoder_options=options, output=output, run=run, **recipe)


def _run(steps: int, seed: int) -> Run:
    return Run(steps=steps, batch=BATCH, lr=LR, seed=seed, log_every=50, accelerator="cpu", progress=False)


def _config(group: str, name: str) -> DistillationConfig:
    return DistillationConfig(**({"views": SMALL} | (PLAIN | OBJECTIVES[name] if group == "objectives" else CHOSEN)))


def _read() -> dict[str, Any]:
    return dict(json.loads(RESULT.read_text())) if RESULT.exists() else {"rows": {}}


if __name__ == "__main__":
    main()
