"""Figure 4: what the tail learns from a video is at least 95 % of what it learns from the same frames shuffled.

    EDGESSL_DATA=/path/to/data python benchmarks/adaptation/video.py --folder /tmp/adapt

Protocol: for each of the 15 corruptions, the first `--count` test images are shown as 30 frames each (`streams.video`:
sway, light, sensor noise) and then corrupted at severity 5, each frame by a draw of its own. A fresh learner meets them
in batches of 8, in order; another one meets the very same frames in a random order. The version that serves after the
last frame is frozen and embeds the last 2,000 test images under the same corruption, which no stream showed, as single
stills; their neighbours in the clean bank vote. The gain is the accuracy above that of the factory's encoder on the same
images, its mean taken over corruptions and seeds before the two streams are compared. Level 1 runs beside it, so that
what the tail adds to the ports is seen by itself.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from contenders import LEVELS, THREADS, levels, plain
from corruptions import BENCHMARK, Frames
from harness import Leg, Report, Trial, Vectors, chosen, options, story, through
from streams import video

import edgessl

STREAMS, COPIES, BATCH, HELD_OUT, KEPT = ("shuffled", "video"), 30, 8, 2000, 0.95


def frozen_after(
    trial: Trial, engine: str, level: str, frames: Frames, stills: Frames
) -> tuple[Vectors, dict[str, int]]:
    """Learn from a stream, then embed stills with the version that serves at its end, which learns no more."""
    from edgessl.runtimes.adapt.serving import Serving

    with (
        edgessl.open(trial.bundle, engine=engine, precision="int8", threads=THREADS) as encoder,
        tempfile.TemporaryDirectory() as folder,
        encoder.learner(Path(folder) / "state", level=LEVELS[level], seed=trial.seed) as learner,
    ):
        through(learner, frames, BATCH)
        with Serving(encoder) as serving:
            serving.use(learner.served)
            return np.concatenate([serving.embed(part) for part in np.array_split(stills, 20)]), story(learner)


def run_corruption(trial: Trial, engine: str, name: str, held_out: Leg, report: Report, names: list[str]) -> None:
    """Every level on the video and on the shuffled frames of one corruption."""
    shown = video(trial.frames, seed=trial.seed, copies=COPIES)[0]
    frames = trial.corrupted(name, shown, "video")
    stills = trial.corrupted(name, held_out.frames, "held_out")
    bank = trial.bank(engine)
    with plain(trial.bundle, engine) as observer:
        none = float(bank.right(through(observer, stills, 250), held_out.labels).mean())
    shuffled = np.random.default_rng(trial.seed).permutation(len(frames))
    for level in names:
        for stream in STREAMS:
            met = frames[shuffled] if stream == "shuffled" else frames
            vectors, told = frozen_after(trial, engine, level, met, stills)
            accuracy = float(bank.right(vectors, held_out.labels).mean())
            row = {"seed": trial.seed, "engine": engine, "corruption": name, "level": level, "stream": stream}
            report.add(**row, none=none, accuracy=accuracy, gain=accuracy - none, **told)


def main() -> None:
    parser = options(__doc__, count=200)
    parser.add_argument("--corruption", nargs="+", default=list(BENCHMARK), choices=BENCHMARK)
    given = parser.parse_args()
    report = Report("video", __doc__ or "", given)
    names = [each.name for each in chosen(levels("", ("level1", "level2")), given.only)]
    for seed in given.seeds:
        trial = Trial(Path(given.data), given.folder, seed, given.count)
        held_out = trial.held_out(HELD_OUT)
        for engine in given.engine:
            for name in given.corruption:
                run_corruption(trial, engine, name, held_out, report, names)
    gains = {level: {stream: report.mean("gain", level=level, stream=stream) for stream in STREAMS} for level in names}
    for level, gain in gains.items():
        print(f"{level}: gain {gain['shuffled']:.4f} shuffled, {gain['video']:.4f} video", flush=True)
    if "level2" in gains:
        gain = gains["level2"]
        kept = gain["video"] / gain["shuffled"] if gain["shuffled"] > 0 else float("nan")
        report.claim("level2: gain on the video, share of that on the shuffled stream", kept, least=KEPT)
    report.write(gains=gains)


if __name__ == "__main__":
    main()
