"""Install the wheel in an empty virtual environment, as a device does, and look at what came with it.

    python benchmarks/wheel_install.py --bundle robot.edgessl

- torch, onnx and scikit-learn are absent;
- site-packages, without pip and setuptools, is at most 200 MB (10^6 bytes);
- `import edgessl` takes less than a tenth of the time of `import torch`: both in fresh processes, interleaved, medians;
- a bundle is embedded and adapted in a network namespace without any interface (`unshare --net`), and `strace` sees no
  internet socket. Where one of the two is not permitted, the result says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
ABSENT = ("torch", "onnx", "scikit-learn", "torchvision", "timm", "lightly", "scipy")
SIZE_BOUND_MB, TIME_BOUND = 200.0, 0.1
TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def run(*command: object) -> str:
    """Standard output of a command; its standard error goes where ours goes."""
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def build_wheel(folder: Path, *flags: str) -> Path:
    """Build from a copy: what an earlier build left in the repository would go into the wheel. `flags` are pip's."""
    source = folder / "source"
    source.mkdir()
    for name in ("edgessl", "cli", "export", "runtimes"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *flags, "--wheel-dir", folder / "wheel", source)
    (wheel,) = (folder / "wheel").glob("edgessl-*.whl")
    return wheel


def install(wheel: Path, venv: Path) -> Path:
    """Make the environment and install the wheel with the pinned versions; returns its python."""
    run(sys.executable, "-m", "venv", venv)
    python = venv / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    return python


def packages(python: Path) -> dict[str, str]:
    """Installed distributions and their versions."""
    listed = json.loads(run(python, "-m", "pip", "list", "--format", "json"))
    return {entry["name"].lower(): entry["version"] for entry in listed}


def size_mb(venv: Path) -> float:
    """Bytes of site-packages on disk, without pip and setuptools, in 10^6."""
    (site,) = venv.glob("lib/python*/site-packages")
    ours = [
        entry for entry in site.iterdir() if not entry.name.startswith(("pip", "setuptools", "_distutils", "pkg_res"))
    ]
    files = [file for entry in ours for file in ([entry] if entry.is_file() else entry.rglob("*")) if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def import_seconds(device: Path, repeats: int) -> dict[str, float]:
    """Medians; torch comes from the environment that runs this script."""
    contenders = {
        "edgessl": (device, "edgessl"),
        "edgessl_encoder_and_engine": (device, "edgessl.runtimes.encoder, onnxruntime"),
        "torch": (Path(sys.executable), "torch"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats + 1):
        for name, (python, modules) in contenders.items():
            seconds[name].append(float(run(python, "-c", TIMED.format(modules))))
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first filled the disk cache


def isolated() -> list[str]:
    """Command that runs another one without a network; empty where the system does not permit it."""
    command = ["unshare", "--map-root-user", "--net"]
    try:
        allowed = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    return command if allowed else []


def traced(log: Path) -> list[str]:
    """Command that writes another one's network calls to `log`; empty where there is no strace."""
    command = ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(log)]
    try:
        allowed = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    return command if allowed else []


def use(edgessl: Path, bundle: Path, folder: Path) -> dict[str, object]:
    """Embed and adapt without a network; what was called all the same."""
    with np.load(write_frames(bundle, folder / "frames.npz")) as file:
        count = len(file["x"])
    log = folder / "network.log"
    guard, trace = isolated(), traced(log)
    commands = {
        "embed": ["embed", bundle, folder / "frames.npz", "-o", folder / "embed.npz"],
        "adapt": ["adapt", bundle, folder / "frames.npz", "--state", folder / "state", "-o", folder / "adapt.npz"],
    }
    calls: list[str] = []
    for name, words in commands.items():
        run(*guard, *trace, edgessl, *words)
        calls += log.read_text().splitlines() if trace else []
        with np.load(folder / f"{name}.npz") as file:
            if len(file["vectors"]) != count or not np.isfinite(file["vectors"]).all():
                raise RuntimeError(f"edgessl {name} gave {len(file['vectors'])} vectors for {count} frames")
    return {
        "frames": count,
        "without_a_network": bool(guard),
        "calls_watched": bool(trace),
        "internet_calls": [call for call in calls if "AF_INET" in call],
    }


def write_frames(bundle: Path, path: Path) -> Path:
    """Golden samples by day, then in the dark."""
    import edgessl

    with edgessl.open(bundle) as encoder:
        samples = encoder.bundle.tensors("golden")["samples"]
    day = samples[np.arange(200) % len(samples)]
    np.savez(path, x=np.concatenate([day, (day * 0.35).astype(day.dtype)]))
    return path


def measure(bundle: Path | None, repeats: int) -> dict[str, object]:
    """All figures, with what they were measured on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if bundle is None:
            write = runpy.run_path(str(ROOT / "tests" / "runtimes" / "tiny_bundle.py"))["write_tiny_bundle"]
            bundle = write(folder / "tiny.edgessl")
        wheel = build_wheel(folder)
        python = install(wheel, folder / "venv")
        have = packages(python)
        seconds = import_seconds(python, repeats)
        ratio = seconds["edgessl"] / seconds["torch"]
        size = size_mb(folder / "venv")
        used = use(python.with_name("edgessl"), bundle.absolute(), folder)
        unwanted = [package for package in ABSENT if package in have]
        held = {
            "absent": not unwanted,
            "size": size <= SIZE_BOUND_MB,
            "import": ratio < TIME_BOUND,
            "network": not used["internet_calls"] and bool(used["without_a_network"] or used["calls_watched"]),
        }
        return {
            "claim": "the wheel alone embeds and adapts: no torch, at most 200 MB, a quick import, no network",
            "held": held,
            "site_packages_mb": round(size, 1),
            "wheel_kb": round(wheel.stat().st_size / 1e3, 1),
            "import_seconds": {name: round(value, 4) for name, value in seconds.items()},
            "import_ratio": round(ratio, 4),
            "unwanted": unwanted,
            "packages": {name: have[name] for name in sorted(have) if name not in ("pip", "setuptools")},
            "network": used,
            "bundle": bundle.name,
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "date": time.strftime("%Y-%m-%d"),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="default: the small one of the tests")
    parser.add_argument("--repeats", type=int, default=7, help="of each import")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "wheel_install.json")
    given = parser.parse_args()
    facts = measure(given.bundle, given.repeats)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))
    return 0 if all(facts["held"].values()) else 1  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
