"""Figure 8: does a learner that runs for ever stay as small as it was?

    EDGESSL_DATA=/path/to/data python benchmarks/adaptation/soak.py --folder /tmp/adapt
    EDGESSL_DATA=/path/to/data python benchmarks/adaptation/soak.py --folder /tmp/adapt --level tail --frames 100000

Days and nights change: stretches of clean test images and of images under one corruption (severity 5) after the other, in
batches of 64, each stretch in a new random order. So the learner meets shifts, new and known ones, goes back to the
factory's encoder, makes new versions and throws old ones away, and writes snapshots. All frames are in memory before the
learner is opened. Resident memory (VmRSS) is read every 10,000 frames; what counts is the largest value after the first
10,000 frames less the one at 10,000.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np
from corruptions import Frames
from harness import Report, Trial, options
from injections import THREADS

import edgessl
from edgessl.runtimes.encoder import Encoder

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


def soak(encoder: Encoder, level: str, batches: Iterator[Frames], frames: int) -> Iterator[tuple[int, float, Any]]:
    """Frames so far, resident memory in MB and the learner, every 10,000 frames."""
    with (
        tempfile.TemporaryDirectory() as folder,
        encoder.learner(Path(folder) / "state", level=level) as learner,
    ):
        seen = 0
        while seen < frames:
            part = next(batches)
            learner.observe(part)
            before, seen = seen, seen + len(part)
            if before // EVERY < seen // EVERY or seen >= frames:
                yield seen, resident_mb(), learner


def main() -> None:
    parser = options(__doc__, count=IMAGES)
    parser.add_argument("--level", default="ports", choices=("recenter", "ports", "tail"))
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.set_defaults(seeds=[0])
    given = parser.parse_args()
    report = Report("soak", __doc__ or "", given)
    for seed in given.seeds:
        trial = Trial(Path(given.data), given.folder, seed, given.count)
        kinds = {"clean": trial.frames.copy()} | {name: trial.corrupted(name) for name in NIGHTS}
        for engine in given.engine:
            with edgessl.open(trial.bundle, engine=engine, precision="int8", threads=THREADS) as encoder:
                began = time.perf_counter()
                for seen, megabytes, learner in soak(encoder, given.level, stream(kinds, seed), given.frames):
                    view = learner.info()
                    report.add(
                        seed=seed,
                        engine=engine,
                        level=given.level,
                        frames=seen,
                        resident_mb=round(megabytes, 2),
                        seconds=round(time.perf_counter() - began, 1),
                        version=view["version"],
                        votes=view["votes"],
                        held=len(learner.events),
                        frozen=view["frozen"],
                        events=dict(Counter(event["kind"] for event in learner.events)),
                    )
    for key in {(row["seed"], row["engine"], row["level"]) for row in report.rows}:
        rows = [row for row in report.rows if (row["seed"], row["engine"], row["level"]) == key]
        growth = max(row["resident_mb"] for row in rows[1:] or rows) - rows[0]["resident_mb"]
        text = f"{key[2]}, {key[1]}: MB that resident memory grew in {rows[-1]['frames']} frames, from {rows[0]['frames']} on"
        report.claim(text, growth, most=GROWTH_MB)
    report.write()


if __name__ == "__main__":
    main()
