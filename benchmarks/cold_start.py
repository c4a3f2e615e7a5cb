"""From the start of a process to its first vector: edgessl with onnxruntime from a bundle, and PyTorch from a checkpoint.

    python benchmarks/cold_start.py
    python benchmarks/cold_start.py --no-install

Both in fresh processes of this Python, in turns, on the same small encoder and the same frame; timed from outside, from the
moment the process is asked for until it says that it has a vector. PyTorch's process imports torch, builds the encoder, loads
its weights and embeds; it is given no more to import than that takes. With it: how long importing torch alone takes, and how
large edgessl is with onnxruntime in an empty environment, without pip and setuptools (which needs a package index).

Claims: edgessl takes at most a fifth of PyTorch's time; its site-packages take at most 200 MB (10^6 bytes).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
from wheel_install import build_wheel, install, size_mb

MOST_SHARE, MOST_MB = 0.2, 200.0
SIZE = (64, 64)
RESULT = Path(__file__).parent / "results" / "cold_start.json"

EDGESSL = """
import sys, numpy, edgessl
encoder = edgessl.open(sys.argv[1], engine="onnxruntime", threads=1)
vectors = encoder.embed(numpy.load(sys.argv[3]))
print(vectors.shape, flush=True)
"""
TORCH = """
import pathlib, sys, numpy, torch
from edgessl.checkpoint import read_checkpoint
torch.set_num_threads(1)
encoder, _ = read_checkpoint(pathlib.Path(sys.argv[2]))
with torch.inference_mode():
    vectors = encoder(torch.from_numpy(numpy.load(sys.argv[3])))
print(tuple(vectors.shape), flush=True)
"""
IMPORT = "import torch; print(flush=True)"


def written(folder: Path) -> tuple[Path, Path, Path]:
    """The bundle, the checkpoint it was exported from, and a frame."""
    import torch

    from edgessl.checkpoint import write_checkpoint
    from edgessl.encoders import build_encoder
    from edgessl.export.bundle import export
    from edgessl.export.config import ExportConfig
    from edgessl.files import atomic_folder
    from edgessl.signals import image_spec
    from edgessl.sources.arrays import ArraySource

    torch.manual_seed(0)
    encoder = build_encoder("conv_small", image_spec(*SIZE)).eval()
    with atomic_folder(folder / "run") as temporary:
        write_checkpoint(temporary, encoder, {"made_by": "cold_start"})
    squares = np.random.default_rng(0).integers(0, 255, (64, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    source = ArraySource("squares", squares, encoder.input, [f"square {row}" for row in range(len(squares))])
    export(encoder, {"made_by": "cold_start"}, source, folder / "small.edgessl", config=ExportConfig(precision="fp32"))
    np.save(folder / "frame.npy", squares[:1])
    return folder / "small.edgessl", folder / "run", folder / "frame.npy"


def seconds_to_say(code: str, *words: Path) -> tuple[float, str]:
    """From asking for the process to its first line, and that line; then it may end."""
    begun = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        taken = time.perf_counter() - begun
    if process.returncode:
        raise RuntimeError(f"it left with {process.returncode}")
    return taken, said


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of each, round by round; a first round fills the disk cache and is not counted."""
    contenders = {"edgessl": EDGESSL, "torch": TORCH, "import torch": IMPORT}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        words = written(Path(folder))
        rng, shapes = np.random.default_rng(0), {}
        for _ in range(rounds + 1):
            for name in rng.permutation(list(contenders)):
                taken, shapes[name] = seconds_to_say(contenders[name], *words)
                seconds[name].append(taken)
    if shapes["edgessl"] != shapes["torch"]:
        raise RuntimeError(f"they do not embed the same: {shapes}")
    return {name: values[1:] for name, values in seconds.items()}


def installed_mb() -> float:
    """Size of the wheel and what it brings, in an empty environment."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(build_wheel(folder), folder / "venv")
        return round(size_mb(folder / "venv"), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--install", action=argparse.BooleanOptionalAction, default=True, help="Measure the size too.")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    seconds = {name: np.asarray(values) for name, values in measure(given.rounds).items()}
    share = seconds["edgessl"] / seconds["torch"]
    size = installed_mb() if given.install else None
    held = {"start": bool(np.median(share) <= MOST_SHARE)} | ({} if size is None else {"size": size <= MOST_MB})
    result = {
        "claim": f"first vector in at most {MOST_SHARE:g} of PyTorch's time, and at most {MOST_MB:g} MB installed",
        "held": held,
        "holds": all(held.values()),
        "seconds": {name: round(float(np.median(values)), 3) for name, values in seconds.items()},
        "share_of_torch": round(float(np.median(share)), 4),
        "share_quartiles": [round(float(each), 4) for each in np.quantile(share, (0.25, 0.75))],
        "share_of_import_torch": round(float(np.median(seconds["edgessl"] / seconds["import torch"])), 4),
        "rounds": given.rounds,
        "site_packages_mb": size if size is not None else "not measured",
        "date": date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("edgessl", "onnxruntime", "torch", "numpy")},
    }
    given.result.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
