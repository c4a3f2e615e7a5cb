"""One contender embeds every lap in a process of its own, so that its time and its memory are its own.

Run as `python -m edgessl.demo.measure`, or, for the device, behind a line that makes every import of torch and onnx
fail. Imports numpy; whatever else a contender needs is imported inside its function.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Vectors = NDArray[np.float32]
Embed = Callable[[Frames], Vectors]

TIMED = 200  # single frames that the time is the median of
WARM = 20  # single frames before them
STREAM = 8  # frames that arrive together at an adapting encoder


def raw_pixels(folder: Path, laps: dict[str, Frames]) -> dict[str, Any]:
    """Pixels with the frame's own mean removed: cosine then ignores brightness and contrast, which suits the night."""
    del folder

    def embed(frames: Frames) -> Vectors:
        flat = frames.reshape(len(frames), -1).astype(np.float32)
        return np.asarray(flat - flat.mean(1, keepdims=True), np.float32)

    return _embedded(embed, laps)


def untrained(folder: Path, laps: dict[str, Frames]) -> dict[str, Any]:
    """The student's architecture with the weights it started from."""
    import torch

    from edgessl.checkpoint import read_checkpoint
    from edgessl.encoders import build_encoder

    student, _ = read_checkpoint(folder / "student")
    torch.manual_seed(0)
    return _embedded(_torch(build_encoder(student.name, student.input, **student.options).eval()), laps)


def teacher(folder: Path, laps: dict[str, Frames]) -> dict[str, Any]:
    """The pretrained teacher, in torch."""
    from edgessl.checkpoint import read_checkpoint

    return _embedded(_torch(read_checkpoint(folder / "teacher")[0]), laps)


def student(folder: Path, laps: dict[str, Frames]) -> dict[str, Any]:
    """The distilled student, in torch."""
    from edgessl.checkpoint import read_checkpoint

    return _embedded(_torch(read_checkpoint(folder / "student")[0]), laps)


def int8(folder: Path, laps: dict[str, Frames]) -> dict[str, Any]:
    """The bundle, as it was shipped."""
    import edgessl

    with edgessl.open(folder / "robot.edgessl") as encoder:
        return _embedded(encoder.embed, laps)


def int8_adapted(folder: Path, laps: dict[str, Frames]) -> dict[str, Any]:
    """The bundle, adapting: it meets the night, then another night lap, then the day again, in this order.

    The day's vectors are those of the shipped encoder: the map was made before the night. Vectors of the night the
    learner has seen are kept for the picture; the table takes the other night lap, of which every frame is embedded
    before anything is learned from it.
    """
    import edgessl

    found: dict[str, Any] = {}
    with edgessl.open(folder / "robot.edgessl") as encoder:
        found["day"] = encoder.embed(laps["day"])
        with encoder.learner(folder / "state") as learner:
            for lap in ("night", "night_unseen", "revisit"):
                frames = laps[lap]
                parts = [learner.observe(frames[start : start + STREAM]) for start in range(0, len(frames), STREAM)]
                found[lap] = np.concatenate(parts)
                if lap == "night_unseen":
                    found["ms_per_frame"] = _milliseconds(learner.observe, frames)
            found["events"] = json.dumps(learner.events)
    return found


CONTENDERS = {each.__name__: each for each in (raw_pixels, untrained, teacher, student, int8, int8_adapted)}


def _torch(encoder: Any) -> Embed:
    import torch

    def embed(frames: Frames) -> Vectors:
        with torch.inference_mode():
            vectors: Vectors = encoder(torch.from_numpy(frames)).numpy()
        return vectors

    return embed


def _embedded(embed: Embed, laps: dict[str, Frames], chunk: int = 64) -> dict[str, Any]:
    found: dict[str, Any] = {
        lap: np.concatenate([embed(frames[start : start + chunk]) for start in range(0, len(frames), chunk)])
        for lap, frames in laps.items()
    }
    return found | {"ms_per_frame": _milliseconds(embed, laps["revisit"])}


def _milliseconds(embed: Embed, frames: Frames) -> float:
    """Median time of one frame, embedded alone."""
    taken = []
    for index in range(WARM + TIMED):
        frame = frames[index % len(frames)][None]
        start = time.perf_counter()
        embed(frame)
        taken.append(time.perf_counter() - start)
    return 1e3 * float(np.median(taken[WARM:]))


def peak_mb() -> float:
    """Largest memory that this process has held, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would give the parent's peak if that is larger: it survives fork and exec
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # macOS, in bytes


def main(contender: str, folder: Path) -> None:
    """Embed the laps in `folder/laps` and write `folder/vectors/CONTENDER.npz`."""
    laps = {path.stem: np.load(path)["x"] for path in sorted((folder / "laps").glob("*.npz"))}
    found = CONTENDERS[contender](folder, laps)
    (folder / "vectors").mkdir(exist_ok=True)
    np.savez(folder / "vectors" / f"{contender}.npz", peak_mb=peak_mb(), **found)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
