"""The encoder that the adaptation benchmarks share: CIFAR-10 without labels, SimCLR, distilled, exported in int8.

    EDGESSL_DATA=/path/to/data python benchmarks/adaptation/encoder.py --output /tmp/adapt --seed 0

One teacher, and per seed a student of about a third of its parameters. What is there already is not made again: the
teacher takes about ten minutes on two quiet cores, a student four.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from edgessl.blocks.image_views import ImageViewConfig
from edgessl.checkpoint import read_checkpoint
from edgessl.distill import DistillationConfig, distill
from edgessl.export.bundle import export
from edgessl.export.config import ExportConfig
from edgessl.pretrain import pretrain
from edgessl.sources import Source
from edgessl.sources.arrays import ArraySource
from edgessl.trainer import Run

TEACHER = {"widths": [48, 96, 192, 256], "depth": 2}
STUDENT = {"widths": [32, 64, 128, 256], "padding": "edge"}
#: crops and colour as SimCLR has them on CIFAR-10; neither blur nor noise, which the corruptions are made of
VIEWS = ImageViewConfig(
    area=(0.3, 1.0), turn_deg=0.0, contrast=(0.6, 1.4), saturation=(0.4, 1.6), gain=(0.6, 1.4), blur=0.0, noise=0.0
)
SPARE = 5000  # training images that no run looks at: calibration and source statistics


def bundle(data: Path, folder: Path, seed: int, *, say: Callable[[str], None] = print) -> Path:
    """The bundle of a seed; made where it is not there yet.

    Args:
        data: Folder with `cifar10/cifar10.npz`.
        folder: Where teacher, students and bundles are kept.
        seed: Of the student's training.
        say: Told what is done.
    """
    path = folder / f"seed{seed}.edgessl"
    if path.exists():
        return path
    source: Source | None = None
    student = folder / f"student{seed}"
    if not student.exists():
        source = images(data, slice(0, -SPARE))
        teacher = folder / "teacher"
        if not teacher.exists():
            say("teacher: SimCLR")
            pretrain(
                source,
                recipe="simclr",
                encoder="conv_small",
                encoder_options=TEACHER,
                recipe_options={"views": VIEWS, "temperature": 0.2},
                output=teacher,
                run=Run(steps=1800, batch=256, lr=3e-3, seed=0, log_every=50),
            )
        say(f"student {seed}: distillation")
        distill(
            teacher,
            source,
            encoder="conv_small",
            encoder_options=STUDENT,
            output=student,
            config=DistillationConfig(views=VIEWS, similarity=0.0),
            run=Run(steps=1800, batch=256, lr=3e-3, seed=seed, log_every=50),
        )
    say(f"bundle {seed}: int8 for onnxruntime and OpenVINO")
    encoder, facts = read_checkpoint(student)
    config = ExportConfig(targets=("onnx", "openvino"), precision="int8")
    export(encoder, facts, images(data, slice(-SPARE, None)), path, config=config, say=say)
    return path


def images(data: Path, part: slice, split: str = "train") -> ArraySource:
    """Some images of CIFAR-10, with their labels; they are shuffled already."""
    sys.path.append(str(Path(__file__).parents[1]))  # a script has only its own folder
    from cifar import cifar10

    source: ArraySource = cifar10(data, split, part)
    return source


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the encoder of the adaptation benchmarks.")
    parser.add_argument("data", nargs="?", type=Path, default=os.environ.get("EDGESSL_DATA"))
    parser.add_argument("--output", type=Path, required=True, help="folder of teacher, students and bundles")
    parser.add_argument("--seed", type=int, action="append", help="of a student; may be repeated")
    given = parser.parse_args()
    if given.data is None:
        parser.error("give the data folder, or set EDGESSL_DATA")
    for seed in given.seed or [0]:
        print(bundle(Path(given.data), given.output, seed))


if __name__ == "__main__":
    main()
