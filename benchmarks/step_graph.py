"""Is the exported training step the step that PyTorch takes, and how long does it take?

For each objective, with a convolutional and a ViT tail: 20 consecutive steps of step.onnx in onnxruntime and of PyTorch eager on
the same batches; the largest difference of a weight and of a loss; and the time of a step as a ratio, both measured in turns in
one process. The encoders are trained for a moment on the demo's day, since an untrained one maps every frame to one place.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch.func import functional_call

import edgessl
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.export.objectives import OBJECTIVES, Source
from edgessl.export.split import Split, split_encoder
from edgessl.export.train_step import SCALARS, Step, StepConfig, write_step
from edgessl.runtimes.engines import open_engine
from edgessl.signals import image_spec
from edgessl.sources.drive import drive

STEPS, ENCODERS = 20, ("conv_small", "vit_micro")
RESULT = Path(__file__).parent / "results" / "step_graph.json"


def trained(name: str, frames: torch.Tensor) -> EncoderModule:
    """Uniformity on the sphere (Wang & Isola 2020, eq. 2) for 60 steps."""
    torch.manual_seed(0)
    encoder = build_encoder(name, image_spec(64, 64)).train()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        vectors = encoder(frames[torch.randperm(len(frames), generator=generator)[:64]])
        loss = torch.pdist(vectors).square().mul(-2).exp().mean().log()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder.eval()


def compare(split: Split, step: Step, day: torch.Tensor, night: torch.Tensor, path: Path) -> dict[str, float]:
    """20 steps by both; worst differences, and the median of the ratio of times."""
    write_step(step, path)
    engine = open_engine("onnxruntime", path, threads=torch.get_num_threads())
    config, names = step.config, step.names
    weights = {key: value.clone().requires_grad_() for key, value in step.factory.items()}
    optimizer = torch.optim.SGD(weights.values(), lr=config.lr, momentum=config.momentum)
    state = {key: value.numpy() for key, value in zip(step.inputs()[: 2 * len(names)], step.example(), strict=False)}
    scalars = {key: np.asarray(getattr(config, key), np.float32) for key in SCALARS}
    generator = torch.Generator().manual_seed(1)
    loss_off, ratios = 0.0, []
    for _ in range(STEPS):
        rows = torch.randperm(len(night), generator=generator)
        with torch.no_grad():
            parts = (
                night[rows[: config.batch]],
                night[(rows[: config.batch] + 1) % len(night)],
                day[rows[-config.anchors :]],
            )
            a, b, anchors = (split.trunk(part, *split.identity_ports())[0] for part in parts)
            reference = split.tail(anchors)
        began = time.perf_counter()
        z = [functional_call(split.tail, weights, (latents,)) for latents in (a, b, anchors)]
        terms = OBJECTIVES[config.objective](z[0], z[1], step.source)
        loss = sum(terms.values()) + (1 - torch.nn.functional.cosine_similarity(z[2], reference)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), config.clip)
        for key, weight in weights.items():
            weight.grad += config.pull * (weight.detach() - step.factory[key])
        optimizer.step()
        eager = time.perf_counter() - began
        views = {"a": a.numpy(), "b": b.numpy(), "anchors": anchors.numpy(), "reference": reference.numpy()}
        began = time.perf_counter()
        mine = engine.run(state | scalars | views)
        ratios.append((time.perf_counter() - began) / eager)
        state = {key.removeprefix("new."): value for key, value in mine.items() if key.startswith("new.")}
        loss_off = max(loss_off, abs(float(mine["loss"]) / float(loss.detach()) - 1))
    weight_off = max(
        float(np.abs(state[f"weight.{key}"] - value.detach().numpy()).max()) for key, value in weights.items()
    )
    moved = max(float((value.detach() - step.factory[key]).abs().max()) for key, value in weights.items())
    return {
        "largest_weight_difference": weight_off,
        "largest_relative_loss_difference": loss_off,
        "largest_weight_movement": moved,
        "time_onnxruntime_over_eager": float(np.median(ratios[2:])),
    }


def main() -> None:
    """Compare, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--result", type=Path, default=RESULT)
    arguments = parser.parse_args()
    day, night = (torch.from_numpy(drive(lap, 600)[0]) for lap in ("day", "night"))
    rows = []
    for name in ENCODERS:
        split = split_encoder(trained(name, day))
        with torch.no_grad():
            vectors = torch.cat([split.encoder(part) for part in day.split(64)])
        source = Source(mean=vectors.mean(0), std=vectors.std(0))
        for objective in OBJECTIVES:
            step = Step(split, StepConfig(objective=objective), source)
            with tempfile.TemporaryDirectory() as folder:
                figures = compare(split, step, day, night, Path(folder) / "step.onnx")
            rows.append({"encoder": name, "objective": objective} | figures)
            print(rows[-1])
    result = {
        "claim": f"{STEPS} steps: every weight within 1e-5, every loss within 1e-5 of its value",
        "holds": all(
            row["largest_weight_difference"] <= 1e-5 and row["largest_relative_loss_difference"] <= 1e-5 for row in rows
        ),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": {"system": platform.platform(), "threads": torch.get_num_threads()},
        "versions": {
            "edgessl": edgessl.__version__,
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "rows": rows,
    }
    arguments.result.write_text(json.dumps(result, indent=2) + "\n")
    print("holds:", result["holds"], "->", arguments.result)


if __name__ == "__main__":
    main()
