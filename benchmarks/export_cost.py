"""What a whole export costs: ViT-small at 224 pixels for three engines, in a process of its own, by the command people type.

    EDGESSL_DATA=/path/to/data python benchmarks/export_cost.py
    python benchmarks/export_cost.py --frames /path/to/images

Everything is in it: fp32, int8 for three targets, fp16 for TensorRT, split, step graph, gate, timing and report. Claims: at most
90 seconds, and 3 GB of memory at its peak, on 2 cores. The second run must give the same content digest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from edgessl.encoders.timm_models import create
from edgessl.export.pays import machine

SECONDS, GIGABYTES = 90.0, 3.0
RESULT = Path(__file__).parent / "results" / "export_cost.json"


def write_weights(model: str, file: Path) -> None:
    """Weights that every run shares: random ones, which cost what trained ones cost."""
    torch.manual_seed(0)
    state = create(model, (224, 224)).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, file)


def once(model: str, weights: Path, frames: Path, bundle: Path) -> dict[str, Any]:
    """One export, measured from outside."""
    command = [str(Path(sys.executable).with_name("edgessl")), "export", f"timm:{model}", "--weights", str(weights)]
    command += ["--calibrate", str(frames), "--to", "onnx,openvino,tensorrt", "--overwrite", "-o", str(bundle)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    manifest = json.loads((bundle / "manifest.json").read_text())
    return {
        "seconds": round(seconds, 1),
        # The largest child so far; with one export after the other the first is what counts.
        "peak_gb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9, 3),
        "content_sha256": manifest["content_sha256"],
        "rejected": manifest["rejected"],
        "files": sorted(manifest["artefacts"]),
        "bundle_bytes": sum(each["size_bytes"] for each in manifest["artefacts"].values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told = os.environ.get("EDGESSL_DATA")
    parser.add_argument("--frames", type=Path, default=Path(told) / "donkeycar" / "frames" if told else None)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    if given.frames is None:
        parser.error("give a folder of images with --frames, or set EDGESSL_DATA")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        write_weights(given.model, weights)
        for _ in range(given.runs):
            rows.append(once(given.model, weights, given.frames, Path(folder) / "robot.edgessl"))
            print({key: rows[-1][key] for key in ("seconds", "peak_gb", "content_sha256", "rejected")}, flush=True)
    best, peak = min(row["seconds"] for row in rows), max(row["peak_gb"] for row in rows)
    same = len({row["content_sha256"] for row in rows}) == 1
    result = {
        "claim": f"a whole export takes at most {SECONDS:.0f} s and {GIGABYTES:.0f} GB",
        "holds": best <= SECONDS and peak <= GIGABYTES,
        "seconds_least": best,
        "peak_gb": peak,
        "same_content": same,
        "date": date.today().isoformat(),
        "machine": {"cpu": machine(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {name: version(name) for name in ("edgessl", "torch", "timm", "onnx", "onnxruntime", "openvino")},
        "model": given.model,
        "rows": rows,
    }
    given.result.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{best} s, {peak} GB, same content: {same} -> {given.result}")


if __name__ == "__main__":
    main()
