"""How much faster is what an export writes: PyTorch eager, and every engine in fp32 and int8, side by side.

    EDGESSL_DATA=/path/to/data python benchmarks/export_speed.py
    python benchmarks/export_speed.py --frames /path/to/images

ViT-small and ResNet-18 of timm at 224 pixels, and MobileNetV3-small where int8 gains little: exported with `--precision auto` for
onnxruntime and OpenVINO from real frames, then timed at batch 1 and 16 with two threads each, all contenders of a batch in turns
in one run. The weights are untrained; times do not depend on them.

Claims: the fastest artefact of ViT-small is at least 4.5 times as fast as eager at batch 1; int8 against fp32 in the same engine
at batch 1: ViT-small 2.2 in OpenVINO and 1.7 in onnxruntime, ResNet-18 2.5 in both; no artefact that auto kept is slower than
its fp32 form.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgessl.bundle import open_bundle
from edgessl.export.bundle import export
from edgessl.export.config import ExportConfig
from edgessl.export.pays import machine
from edgessl.load import load_encoder
from edgessl.runtimes.engines import open_engine
from edgessl.runtimes.timing import compare, interleaved
from edgessl.sources import open_source

MODELS = ("vit_small_patch16_224", "resnet18", "mobilenetv3_small_100")
BATCHES, THREADS, ROUNDS = (1, 16), 2, 15
ENGINES = ("onnxruntime", "openvino")
#: (model, faster, slower) at batch 1 -> at least; the first is the fastest of all where it is empty
CLAIMS = {
    ("vit_small_patch16_224", "", "eager fp32"): 4.5,
    ("vit_small_patch16_224", "openvino int8", "openvino fp32"): 2.2,
    ("vit_small_patch16_224", "onnxruntime int8", "onnxruntime fp32"): 1.7,
    ("resnet18", "openvino int8", "openvino fp32"): 2.5,
    ("resnet18", "onnxruntime int8", "onnxruntime fp32"): 2.5,
}
NOISE = 1.05  # a ratio of medians on a shared machine
RESULT = Path(__file__).parent / "results" / "export_speed.json"


def rows_of(name: str, frames: Path, folder: Path) -> list[dict[str, Any]]:
    """A model exported, and every contender timed."""
    torch.manual_seed(0)
    loaded = load_encoder(f"timm:{name}")
    path = folder / f"{name}.edgessl"
    source = open_source(str(frames), spec=loaded.encoder.input)
    config = ExportConfig(targets=("onnx", "openvino"))
    export(loaded.encoder, dict(loaded.facts), source, path, config=config, say=lambda text: print(f"{name}: {text}"))
    samples = np.ascontiguousarray(source.read(range(max(BATCHES)))[1])
    bundle = open_bundle(path)
    graphs = {
        f"{engine} {precision}": (engine, bundle.graph("encoder", precision, engine))
        for engine in ENGINES
        for precision in ("fp32", *(each for each in bundle.precisions("encoder", engine) if each != "fp32"))
    }
    opened = {key: open_engine(engine, graph, threads=THREADS) for key, (engine, graph) in graphs.items()}
    rows = []
    for batch in BATCHES:
        part = samples[:batch]
        runs: dict[str, Callable[[], object]] = {"eager fp32": lambda part=part: _eager(loaded.encoder, part)}
        runs |= {key: lambda engine=engine, part=part: engine.run({"frames": part}) for key, engine in opened.items()}
        times = interleaved(runs, rounds=ROUNDS, budget_s=240)
        over_eager = compare(times, baseline="eager fp32")
        for key, row in over_eager.items():
            base = compare(times, baseline=f"{key.split()[0]} fp32")[key]
            rows.append(
                {
                    "model": name,
                    "batch": batch,
                    "contender": key,
                    "median_ms": round(row.median_ms, 3),
                    "times_as_fast_as_eager": round(1 / row.ratio, 3),
                    "times_as_fast_as_fp32": round(1 / base.ratio, 3),
                    "rounds": row.rounds,
                    "int8_nodes": dict(opened[key].fused()) if key in opened and key.endswith("int8") else {},
                }
            )
            print(rows[-1], flush=True)
    for engine in opened.values():
        engine.close()
    return rows


def _eager(encoder: torch.nn.Module, frames: NDArray[np.uint8]) -> torch.Tensor:
    with torch.inference_mode():
        return encoder(torch.from_numpy(frames))


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every claim beside what was measured."""
    single = {(row["model"], row["contender"]): row for row in rows if row["batch"] == 1}
    claims = []
    for (model, fast, slow), least in CLAIMS.items():
        if (model, slow) not in single:
            continue
        against = "times_as_fast_as_fp32" if fast else "times_as_fast_as_eager"
        found = [row[against] for (name, key), row in single.items() if name == model and fast in ("", key)]
        got = max(found, default=0.0)
        claims.append(
            {"claim": f"{model}: {fast or 'fastest'} over {slow}", "least": least, "got": got, "ok": got >= least}
        )
    worst = min((row["times_as_fast_as_fp32"] for row in single.values()), default=0.0)
    claims.append({"claim": "no artefact slower than fp32", "least": round(1 / NOISE, 3), "got": worst})
    claims[-1]["ok"] = claims[-1]["got"] >= claims[-1]["least"]
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told = os.environ.get("EDGESSL_DATA")
    parser.add_argument("--frames", type=Path, default=Path(told) / "donkeycar" / "frames" if told else None)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    if given.frames is None:
        parser.error("give a folder of images with --frames, or set EDGESSL_DATA")
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for name in given.only for row in rows_of(name, given.frames, Path(folder))]
    claims = judged(rows)
    result = {
        "claims": claims,
        "holds": all(claim["ok"] for claim in claims),
        "date": date.today().isoformat(),
        "machine": {"cpu": machine(), "cores": os.cpu_count(), "system": platform.platform(), "threads": THREADS},
        "versions": {name: version(name) for name in ("edgessl", "torch", "timm", "onnxruntime", "openvino", "numpy")},
        "rows": rows,
    }
    given.result.write_text(json.dumps(result, indent=1) + "\n")
    print(
        *(
            f"{'ok  ' if each['ok'] else 'MISS'} {each['claim']}: {each['got']} (at least {each['least']})"
            for each in claims
        ),
        sep="\n",
    )


if __name__ == "__main__":
    main()
