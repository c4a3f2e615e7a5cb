"""What `Encoder.embed` costs over the engine's own call, one frame at a time, and what watching the engine costs over that.

    python benchmarks/embed_overhead.py

A small CNN for frames of 64 pixels, where every microsecond shows, and one that takes a camera's frame of 480 x 640 in at its own
size. The bare call is the quickest that each library has: onnxruntime's `session.run`, and OpenVINO's `infer` on tensors that are
bound already, into which not even the frame is copied. All contenders of a model run in turns.

Claim: over the bare call, embed costs at most 3 % or 50 microseconds, whichever is more, in both engines.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgessl.bundle import open_bundle
from edgessl.encoders import build_encoder
from edgessl.export.bundle import export
from edgessl.export.config import ExportConfig
from edgessl.export.pays import machine
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.engines import EngineSettings
from edgessl.runtimes.timing import interleaved
from edgessl.runtimes.watchdog import open_watched
from edgessl.signals import image_spec
from edgessl.sources.arrays import ArraySource

SIZES = {"64 x 64": (64, 64), "480 x 640": (480, 640)}
ENGINES, THREADS = ("onnxruntime", "openvino"), 2
MOST_SHARE, MOST_US = 0.03, 50.0
RESULT = Path(__file__).parent / "results" / "embed_overhead.json"


def written(size: tuple[int, int], folder: Path) -> Path:
    """A bundle in fp32; weights do not change what a call costs."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    encoder = build_encoder("conv_small", image_spec(*size)).eval()
    coarse = rng.integers(0, 255, (48, size[0] // 16, size[1] // 16, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    path = folder / f"{size[0]}.edgessl"
    source = ArraySource("squares", coarse, encoder.input, [f"square {row}" for row in range(len(coarse))])
    export(
        encoder, {"made_by": "embed_overhead"}, source, path, config=ExportConfig(precision="fp32", golden=8, anchors=8)
    )
    return path


def row_of(name: str, path: Path, engine: str, rounds: int) -> dict[str, Any]:
    """Microseconds of the three, and the two differences, each the median over the rounds."""
    settings = EngineSettings(threads=THREADS)
    bundle = open_bundle(path)
    frame = np.random.default_rng(1).integers(0, 255, (1, *bundle.input.shape), np.uint8)
    with (
        Encoder(bundle, engine=engine, precision="fp32", settings=settings) as encoder,
        open_watched(bundle, engine=engine, precision="fp32", settings=settings) as watched,
    ):
        opened: Any = encoder._graph
        if engine == "onnxruntime":
            runs = {"bare": lambda: opened._session.run(["vectors"], {"frames": frame})}
        else:
            encoder.embed(frame)
            runs = {"bare": opened._single._request.infer}
        runs |= {"embed": lambda: encoder.embed(frame), "watched": lambda: watched.embed(frame)}
        times = {
            key: np.asarray(each) * 1e6 for key, each in interleaved(runs, rounds=rounds, calls=5, budget_s=120).items()
        }
    bare, over = float(np.median(times["bare"])), times["embed"] - times["bare"]
    bound = max(MOST_SHARE * bare, MOST_US)
    return {
        "frame": name,
        "engine": engine,
        "bare_us": round(bare, 1),
        "embed_over_bare_us": round(float(np.median(over)), 1),
        "quartiles_us": [round(float(each), 1) for each in np.quantile(over, (0.25, 0.75))],
        "at_most_us": round(bound, 1),
        "watched_over_embed_us": round(float(np.median(times["watched"] - times["embed"])), 1),
        "rounds": len(over),
        "ok": bool(np.median(over) <= bound),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            path = written(size, Path(folder))
            for engine in ENGINES:
                rows.append(row_of(name, path, engine, given.rounds))
                print(rows[-1], flush=True)
    result = {
        "claim": f"embed costs at most {MOST_SHARE:.0%} or {MOST_US:g} us over the engine's own call, whichever is more",
        "holds": all(row["ok"] for row in rows),
        "date": date.today().isoformat(),
        "machine": {"cpu": machine(), "cores": os.cpu_count(), "system": platform.platform(), "threads": THREADS},
        "versions": {name: version(name) for name in ("edgessl", "onnxruntime", "openvino", "numpy")},
        "rows": rows,
    }
    given.result.write_text(json.dumps(result, indent=1) + "\n")
    print("holds" if result["holds"] else "MISSED")


if __name__ == "__main__":
    main()
