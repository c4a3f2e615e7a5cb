"""Figure 6: what training the tail costs beside PyTorch: the time of a step, and the memory of the process that adapts.

    python benchmarks/adaptation/step_cost.py
    python benchmarks/adaptation/step_cost.py --only vit_small --threads 1

Time: `step.onnx` in onnxruntime, beside the same step in PyTorch eager: the tail as the encoder has it, autograd, clipping,
the pull and SGD, on the same latents, in turns in one process. Memory: two processes, each with the encoder's trunk and
tail and nothing that it does not need, embed a day and a night of the demo's drive, 16 frames at a time, and train
the tail for `STEPS` steps of 16 frames in two views and 16 anchors; their peak resident memory. The one without torch is
a whole learner, with its memory, its guard and its snapshots. Weights are untrained: what they are costs nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).parents[1] / "results" / "adaptation_step.json"
TIME, MEMORY = 0.45, 1 / 3
STEPS, BATCH, ROUNDS = 40, 16, 15
#: name -> encoder, its options, pixels a side
ENCODERS: dict[str, tuple[str, dict[str, Any], int]] = {
    "conv_small": ("conv_small", {"widths": [32, 64, 128, 256]}, 32),
    "conv_small 64": ("conv_small", {"widths": [32, 64, 128, 256]}, 64),
    "vit_micro": ("vit_micro", {}, 64),
    "vit_small": ("vit_small_patch16_224", {}, 224),
}


def made(name: str) -> Any:
    """The encoder, with the weights of seed 0."""
    import torch

    from edgessl.encoders import build_encoder
    from edgessl.signals import image_spec

    torch.manual_seed(0)
    kind, options, size = ENCODERS[name]
    return build_encoder(kind, image_spec(size, size), **options).eval()


def laps(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A day and a night at the encoder's size."""
    from edgessl.sources.drive import drive

    size = ENCODERS[name][2]
    day, night = (drive(lap, 160, size=size)[0] for lap in ("day", "night"))
    return day, night


def export_to(folder: Path, name: str) -> None:
    """The bundle in int8, and the frames beside it."""
    from edgessl.export.bundle import export
    from edgessl.export.config import ExportConfig
    from edgessl.signals import image_spec
    from edgessl.sources.arrays import ArraySource

    size = ENCODERS[name][2]
    day, night = laps(name)
    np.savez(folder / "laps.npz", day=day, night=night)
    source = ArraySource("day", day, image_spec(size, size), [f"day/{index:03d}" for index in range(len(day))])
    config = ExportConfig(targets=("onnx",), precision="int8")
    export(made(name), {"recipe": "none"}, source, folder / "robot.edgessl", config=config)


def with_edgessl(folder: Path, name: str, threads: int) -> dict[str, Any]:
    """A learner that meets the night until it has trained so often."""
    import edgessl
    from edgessl.runtimes.adapt.config import LearnerConfig
    from edgessl.runtimes.adapt.guard import GuardConfig
    from edgessl.runtimes.adapt.memory import MemoryConfig

    del name
    # To an untrained encoder everything is alike, and what it learns looks like a collapse.
    lenient = GuardConfig(collapse_spread=0.0, collapse_rank=0.0, anchor_cosine=-1.0, anchor_overlap=0.0, lidar=0.0)
    config = LearnerConfig(confirm_tail=1, memory=MemoryConfig(novelty=0.0), guard=lenient)
    with np.load(folder / "laps.npz") as file:
        day, night = file["day"], file["night"]
    with (
        edgessl.open(folder / "robot.edgessl", engine="onnxruntime", threads=threads) as encoder,
        encoder.learner(folder / "state", level="tail", steps_per_frame=0.5, config=config) as learner,
    ):
        for start in range(0, len(day), BATCH):
            learner.observe(day[start : start + BATCH])
        for _ in range(50):
            for start in range(0, len(night), BATCH):
                learner.observe(night[start : start + BATCH])
            if learner.info()["steps"] >= STEPS:
                break
        return {"steps": learner.info()["steps"], "memory_bytes": learner.info()["memory_bytes"]}


def with_torch(folder: Path, name: str, threads: int) -> dict[str, Any]:
    """The same in eager: embed, keep latents of two views, train the tail."""
    import torch

    from edgessl.export.split import split_encoder

    torch.set_num_threads(threads)
    split, rng = split_encoder(made(name)), np.random.default_rng(0)
    ports = split.identity_ports()
    with np.load(folder / "laps.npz") as file:
        day, night = file["day"], file["night"]
    trainer, kept = eager_step(split), []
    with torch.no_grad():
        for lap in (day, night):
            for start in range(0, len(lap), BATCH):
                split.encoder(torch.from_numpy(lap[start : start + BATCH]))
        for start in range(0, len(night), BATCH):
            frames = night[start : start + BATCH]
            views = [np.clip(frames * rng.uniform(0.8, 1.2), 0, 255).astype(np.uint8) for _ in range(2)]
            kept.append([split.trunk(torch.from_numpy(view), *ports)[0] for view in views])
        anchors = split.trunk(torch.from_numpy(day[:BATCH]), *ports)[0]
        reference = split.tail(anchors)
    for step in range(STEPS):
        trainer(*kept[step % len(kept)], anchors, reference)
    return {"steps": STEPS}


def eager_step(split: Any) -> Callable[..., float]:
    """One step of the tail as PyTorch users write it; gives the loss."""
    import torch
    from torch.func import functional_call

    from edgessl.export.objectives import align
    from edgessl.export.train_step import StepConfig

    config, factory = StepConfig(), split.tail_weights()
    weights = {name: value.clone().requires_grad_() for name, value in factory.items()}
    optimizer = torch.optim.SGD(weights.values(), lr=config.lr, momentum=config.momentum)
    source = source_of(split)

    def step(a: torch.Tensor, b: torch.Tensor, anchors: torch.Tensor, reference: torch.Tensor) -> float:
        vectors = functional_call(split.tail, weights, (torch.cat([a, b, anchors]),))
        z_a, z_b, z_anchor = vectors.split([len(a), len(b), len(anchors)])
        loss = sum(align(z_a, z_b, source).values()) + (1 - (z_anchor * reference).sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), config.clip)
        for name, weight in weights.items():
            weight.grad.add_(weight.detach() - factory[name], alpha=config.pull)
        optimizer.step()
        return float(loss.detach())

    return step


def source_of(split: Any) -> Any:
    """Statistics as an untrained encoder may have them."""
    import torch

    from edgessl.export.objectives import Source

    dim = split.encoder.dim
    return Source(mean=torch.zeros(dim), std=torch.full((dim,), dim**-0.5))


def timed(name: str, threads: int) -> dict[str, Any]:
    """Both steps in turns."""
    import torch

    from edgessl.export.split import split_encoder
    from edgessl.export.train_step import Step, StepConfig, write_step
    from edgessl.runtimes.engines import open_engine
    from edgessl.runtimes.timing import compare, interleaved

    torch.set_num_threads(threads)
    split = split_encoder(made(name))
    step = Step(split, StepConfig(), source_of(split))
    example = step.example()
    a, b, anchors, reference = example[2 * len(step.names) : 2 * len(step.names) + 4]
    eager = eager_step(split)
    with tempfile.TemporaryDirectory() as folder:
        write_step(step, Path(folder) / "step.onnx")
        engine = open_engine("onnxruntime", Path(folder) / "step.onnx", threads=threads)
        feeds = dict(zip(step.inputs(), (tensor.numpy() for tensor in example), strict=True))
        first = eager(a, b, anchors, reference), float(engine.run(feeds)["loss"])
        runs = {"eager": lambda: eager(a, b, anchors, reference), "onnxruntime": lambda: engine.run(feeds)}
        times = interleaved(runs, rounds=ROUNDS, budget_s=60)
        engine.close()
    rows = compare(times, baseline="eager")
    if abs(first[0] - first[1]) > 1e-4 * abs(first[0]):
        raise SystemExit(f"{name}: the losses are {first}, so these are two different steps")
    return {
        "eager_ms": round(rows["eager"].median_ms, 3),
        "onnxruntime_ms": round(rows["onnxruntime"].median_ms, 3),
        "ratio": round(rows["onnxruntime"].ratio, 3),
        "quartiles": [round(rows["onnxruntime"].low, 3), round(rows["onnxruntime"].high, 3)],
        "rounds": rows["onnxruntime"].rounds,
    }


def peak_mb() -> float:
    """VmHWM of this process: what getrusage says includes the process that started it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


CHILDREN: dict[str, Callable[[Path, str, int], dict[str, Any]]] = {"edgessl": with_edgessl, "torch": with_torch}


def child(kind: str, folder: Path, name: str, threads: int) -> dict[str, Any]:
    """Run one of `CHILDREN` in a process of its own."""
    words = [sys.executable, __file__, "--child", kind, "--folder", str(folder), "--only", name]
    done = subprocess.run([*words, "--threads", str(threads)], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="What training the tail costs beside PyTorch eager.")
    parser.add_argument(
        "--only", nargs="+", choices=sorted(ENCODERS), metavar="NAME", help="these encoders; default: all"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--child", choices=sorted(CHILDREN), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        facts = CHILDREN[given.child](given.folder, given.only[0], given.threads)
        print(json.dumps(facts | {"peak_mb": round(peak_mb(), 1), "torch": "torch" in sys.modules}))
        return
    rows = []
    for name in given.only or ENCODERS:
        row: dict[str, Any] = {"encoder": name, "side": ENCODERS[name][2], "time": timed(name, given.threads)}
        with tempfile.TemporaryDirectory() as folder:
            export_to(Path(folder), name)
            row["memory"] = {kind: child(kind, Path(folder), name, given.threads) for kind in CHILDREN}
            if row["memory"]["edgessl"]["steps"] < STEPS:
                raise SystemExit(f"{name}: the learner trained {row['memory']['edgessl']['steps']} steps, not {STEPS}")
        row["memory_ratio"] = round(row["memory"]["edgessl"]["peak_mb"] / row["memory"]["torch"]["peak_mb"], 3)
        rows.append(row)
        print(json.dumps(row), flush=True)
    from edgessl.export.pays import machine

    result = {
        "claim": f"a step takes at most {TIME} of PyTorch eager's time, the adapting process at most a third of its memory",
        "holds": {
            "time": {row["encoder"]: row["time"]["ratio"] <= TIME for row in rows},
            "memory": {row["encoder"]: row["memory_ratio"] <= MEMORY for row in rows},
        },
        "date": date.today().isoformat(),
        "machine": {"cpu": machine(), "threads": given.threads, "system": platform.platform()},
        "versions": {name: version(name) for name in ("edgessl", "torch", "onnxruntime", "numpy")},
        "settings": {"steps": STEPS, "batch": BATCH},
        "rows": rows,
    }
    given.result.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
