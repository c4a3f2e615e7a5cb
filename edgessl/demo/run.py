"""Make the encoder, ship it, and measure every contender in a process of its own."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgessl
from edgessl.blocks.image_views import ImageViewConfig
from edgessl.checkpoint import read_checkpoint
from edgessl.demo.report import NAMES, Row, draw, row, thumbnail
from edgessl.distill import DistillationConfig, distill
from edgessl.errors import EdgeSSLError, InputError, Interrupted
from edgessl.export.bundle import export
from edgessl.export.config import ExportConfig
from edgessl.files import atomic_folder, write_atomic
from edgessl.pretrain import pretrain
from edgessl.sources import open_source
from edgessl.sources.drive import LAPS, TOLERANCE, drive, redrive
from edgessl.trainer import Run

SIZE = 64
#: A process on the device has none of these, and proves it: importing one fails.
ABSENT = ("torch", "torchvision", "onnx", "timm", "lightly", "lightning", "sklearn", "skimage")
DEVICE = ("int8", "int8_adapted")
_MEASURE = "import sys, pathlib; from edgessl.demo.measure import main; main(sys.argv[1], pathlib.Path(sys.argv[2]))"


def _views() -> ImageViewConfig:
    return ImageViewConfig(
        area=(0.36, 2.0),
        aspect=(0.9, 1.1),
        turn_deg=50.0,
        flip=0.0,  # a mirrored place is another place
        light=1.0,
        contrast=(0.7, 1.2),
        gain=(0.5, 1.4),
        blur_sigma=(0.004, 0.018),
        noise=0.08,  # what a port amplifies at night, the encoder must bear
    )


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Numbers of the demo; ours, found on the demo's own laps.

    Attributes:
        frames: Per lap.
        pretrain_steps, distill_steps, batch: Of the two trainings.
        views: How far a view may be from its frame: as far as another viewpoint and a darker hour are.
    """

    frames: int = 1800
    pretrain_steps: int = 400
    distill_steps: int = 260
    batch: int = 64
    views: ImageViewConfig = field(default_factory=_views)


def run_demo(
    output: Path,
    data: str | None = None,
    *,
    overwrite: bool = False,
    config: DemoConfig | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: bool = True,
) -> dict[str, Any]:
    """Run the demo and write `report.json`, `night.png`, the checkpoints and the bundle into `output`.

    Args:
        output: A folder; whole or absent.
        data: The user's frames; the photographs of scikit-image and scikit-learn when None.
        overwrite: Replace `output`.
        config: Numbers of the demo.
        say: Told about each step.
        progress: Show training's progress bar on stderr.

    Returns:
        The content of `report.json`.
    """
    config = config or DemoConfig()
    try:
        return _run(output, data, overwrite, config, say, progress)
    except Interrupted as error:  # its advice is for a training that keeps its state; the demo's folder is gone
        raise Interrupted("stopped; nothing was written; type the same command to start again") from error


def _run(
    output: Path, data: str | None, overwrite: bool, config: DemoConfig, say: Callable[[str], None], progress: bool
) -> dict[str, Any]:
    began = time.perf_counter()
    with atomic_folder(output, overwrite=overwrite) as folder:
        laps, places = _laps(data, config, say)
        (folder / "laps").mkdir()
        for lap, frames in laps.items():
            np.savez(folder / "laps" / f"{lap}.npz", x=frames)
        _make(folder, config, say, progress)
        rows, vectors = [], {}
        for name in NAMES:
            say(f"measuring: {NAMES[name]}")
            vectors[name] = _measured(name, folder)
            rows.append(row(name, vectors[name], places, TOLERANCE, _size(folder, name)))
        draw(folder / "night.png", laps, vectors, places, TOLERANCE)
        report = {
            "seconds": time.perf_counter() - began,
            "rows": [each.to_json() for each in rows],
            "night": _night(rows),
            "thumbnail": thumbnail(laps, places, TOLERANCE),
            "data": data or "photographs of scikit-image and scikit-learn",
            "machine": {"platform": platform.platform(), "python": platform.python_version()},
            "edgessl": edgessl.__version__,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        write_atomic(folder / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    return report


def _night(rows: list[Row]) -> dict[str, float]:
    """What the night took from the int8 student, and what adaptation gave back of it."""
    found = {each.name: each for each in rows}
    taken = found["int8"].recall_revisit - found["int8"].recall_night
    back = found["int8_adapted"].recall_night - found["int8"].recall_night
    return {"taken": taken, "given_back": back, "share": back / taken if taken > 0 else 0.0}


def _laps(
    data: str | None, config: DemoConfig, say: Callable[[str], None]
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, NDArray[np.float64]]]:
    if data is None:
        say("a simulated camera drives over real photographs: those inside scikit-image's and scikit-learn's wheels")
        made = {lap: drive(lap, config.frames, SIZE) for lap in LAPS}
    else:
        source = open_source(data, size=(SIZE, SIZE))
        indices = np.unique(np.linspace(0, len(source) - 1, min(config.frames, len(source))).round().astype(int))
        _, frames = source.read(indices)
        if len(frames) < 256:
            raise InputError(f"{data} has {len(frames)} readable frames; the demo takes at least 256")
        say(f"{len(frames)} frames of {data} are the day; revisits and nights are made from them")
        made = {lap: redrive(frames, lap) for lap in LAPS}
    return {lap: each[0] for lap, each in made.items()}, {lap: each[1] for lap, each in made.items()}


def _make(folder: Path, config: DemoConfig, say: Callable[[str], None], progress: bool) -> None:
    day = open_source(str(folder / "laps" / "day.npz"))
    say("lap 1, by day: pretraining the teacher on it (SimCLR)")
    pretrain(
        day,
        recipe="simclr",
        encoder="res_small",
        encoder_options={"pool": "flat"},
        recipe_options={"views": config.views, "hidden": 0},
        output=folder / "teacher",
        run=Run(steps=config.pretrain_steps, batch=config.batch, lr=2e-3, progress=progress),
    )
    say("distilling the student")
    distill(
        folder / "teacher",
        day,
        encoder="conv_small",
        encoder_options={"pool": "flat"},
        output=folder / "student",
        config=DistillationConfig(views=config.views, similarity=0.0),
        run=Run(steps=config.distill_steps, batch=config.batch, lr=3e-3, progress=progress),
    )
    say("exporting: int8, parity gate, training step")
    student, facts = read_checkpoint(folder / "student")
    both = ExportConfig(precision="int8")  # without int8 there is nothing to show
    export(student, facts, day, folder / "robot.edgessl", config=both, say=lambda step: say(f"  {step}"))


def _measured(name: str, folder: Path) -> dict[str, NDArray[Any]]:
    """Run a contender in its own process; on the device's side every import of torch or onnx fails there."""
    block = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r})); " if name in DEVICE else ""
    done = subprocess.run(
        [sys.executable, "-c", block + _MEASURE, name, str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise EdgeSSLError(f"measuring {name} failed:\n{done.stderr.strip()}")
    with np.load(folder / "vectors" / f"{name}.npz") as found:
        return dict(found)


def _size(folder: Path, name: str) -> int:
    """Bytes on disk of what a contender needs to embed."""
    bundle = folder / "robot.edgessl"
    files = {
        "raw_pixels": [],
        "untrained": [folder / "student" / "encoder.safetensors"],
        "teacher": [folder / "teacher" / "encoder.safetensors"],
        "student": [folder / "student" / "encoder.safetensors"],
        "int8": [bundle / "encoder.int8.onnx"],
        "int8_adapted": [bundle / "trunk.int8.onnx", bundle / "tail.onnx", bundle / "source.safetensors"],
    }[name]
    return sum(file.stat().st_size for file in files)
