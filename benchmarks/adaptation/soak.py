"""Figure 8: does a learner that runs for ever stay as small as it was?

    EDGESSL_DATA=/path/to/data python benchmarks/adaptation/soak.py --folder /tmp/adapt
    EDGESSL_DATA=/path/to/data python benchmarks/adaptation/soak.py --folder /tmp/adapt --level tail --frames 100000

Days and nights change: stretches of clean test images and of images under one corruption (severity 5) after the other, in
batches of 64, each stretch in a new random order. So the learner meets shifts, new and known ones, goes back to the
factory's encoder, makes new versions and throws old ones away, and writes snapshots. It has a process of its own,
without torch and with all frames in memory before it opens the encoder, so that no memory which something else gave back
hides what it takes. Resident memory (VmRSS) is read every 10,000 frames; what counts is the largest value after the first
10,000 frames less the one at 10,000.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgessl

Frames = NDArray[np.uint8]  # (n, 32, 32, 3)

BATCH, STRETCH, EVERY, FRAMES = 64, 2560, 10_000, 1_000_000
NIGHTS = ("gaussian_noise", "contrast", "fog", "brightness")
GROWTH_MB = 5.0
IMAGES = 2000  # of each kind


def resident_mb() -> float:
    """VmRSS of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def stream(kinds: dict[str, Frames], seed: int) -> Iterator[Frames]:
    """Batches without end: a day, a night, a day, the next night."""
    rng = np.random.default_rng(seed)
    nights = cycle([name for name in kinds if name != "clean"])
    for stretch in count():
        frames = kinds["clean" if stretch % 2 == 0 else next(nights)]
        for _ in range(STRETCH // BATCH):
            yield frames[rng.integers(0, len(frames), BATCH)]


def soak(bundle: str, folder: str, engine: str, level: str, frames: str, seed: str) -> None:
    """Print a line of JSON every 10,000 frames; `folder` holds frames, a file for each kind."""
    kinds = {file.stem: np.load(file) for file in sorted(Path(folder).glob("*.npy"))}
    batches, seen, wanted = stream(kinds, int(seed)), 0, int(frames)
    with (
        tempfile.TemporaryDirectory() as state,
        edgessl.open(bundle, engine=engine, precision="int8", threads=1) as encoder,
        encoder.learner(Path(state) / "state", level=level) as learner,
    ):
        began = time.perf_counter()
        while seen < wanted:
            part = next(batches)
            learner.observe(part)
            before, seen = seen, seen + len(part)
            if before // EVERY < seen // EVERY or seen >= wanted:
                view = learner.info()
                row: dict[str, Any] = {"frames": seen, "resident_mb": round(resident_mb(), 2)}
                row |= {"seconds": round(time.perf_counter() - began, 1), "held": len(learner.events)}
                row |= {name: view[name] for name in ("version", "votes", "frozen")}
                row |= {"events": dict(Counter(event["kind"] for event in learner.events))}
                print(json.dumps(row), flush=True)


def main() -> None:
    from harness import Report, Trial, options  # with torch, which the other process does without

    parser = options(__doc__, count=IMAGES)
    parser.add_argument("--level", default="ports", choices=("recenter", "ports", "tail"))
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.set_defaults(seeds=[0])
    given = parser.parse_args()
    report = Report("soak", __doc__ or "", given)
    for seed in given.seeds:
        trial = Trial(Path(given.data), given.folder, seed, given.count)
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "clean.npy", trial.frames)
            for name in NIGHTS:
                np.save(Path(folder) / f"{name}.npy", trial.corrupted(name))
            for engine in given.engine:
                told = (str(trial.bundle), folder, engine, given.level, str(given.frames), str(seed))
                command = [sys.executable, __file__, "--soak", *told]
                with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                    for line in process.stdout or ():
                        report.add(seed=seed, engine=engine, level=given.level, **json.loads(line))
                if process.returncode:
                    raise RuntimeError(f"the soak ended with {process.returncode}")
    for key in sorted({(row["seed"], row["engine"], row["level"]) for row in report.rows}):
        rows = [row for row in report.rows if (row["seed"], row["engine"], row["level"]) == key]
        growth = max(row["resident_mb"] for row in rows) - rows[0]["resident_mb"]
        text = (
            f"{key[2]}, {key[1]}: MB that resident memory grew from frame {rows[0]['frames']} to {rows[-1]['frames']}"
        )
        report.claim(text, growth, most=GROWTH_MB)
    report.write()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--soak"]:
        soak(*sys.argv[2:])
    else:
        main()
