"""Export the zoo: every family of encoders that we name, each as a bundle for three engines, with what the gate found.

    EDGESSL_DATA=/path/to/data python benchmarks/export_zoo.py
    python benchmarks/export_zoo.py --data /path/to/data --only resnet18 tcn_small

The folder holds `cifar10/cifar10.npz` (as `pretrain_cifar10.py` reads it) and `imu_sp_sw_har/imu_100hz_w128.npz`. Each
encoder is exported in a process of its own, one at a time, and its row is written to
`benchmarks/results/export_zoo.json` at once. With --only the rows of the others stay.

Claims: all export; fp32 has a minimum cosine of 0.9999 with PyTorch on the golden samples in onnxruntime and OpenVINO; the
lint finds no error for TensorRT 10.3. Of those trained for a moment (SimCLR; quantizing random weights proves little):
int8 has a mean cosine of 0.995 with fp32 on frames that calibration did not see, and a 20-NN accuracy at most half a point
lower. Where int8 is right and no faster on this machine it is not in the bundle, and measured from a second export.

The others are untrained: their int8 column says only that a graph is found, and how it does.
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
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from zoo_models import QUICK, ZOO, Model
from zoo_row import ENGINES, FP32_COSINE, INT8_COSINE, KNN_POINTS, Options, row_of

from edgessl.export.pays import machine

RESULT = Path(__file__).parent / "results" / "export_zoo.json"
PACKAGES = ("edgessl", "torch", "timm", "onnx", "onnxruntime", "openvino", "numpy")
LIMIT_S = 1200  # an encoder that takes longer hangs


def in_process(model: Model, options: Options, arguments: Sequence[str]) -> dict[str, Any]:
    """The row of an encoder, made in a process of its own; whatever happens to it is a row."""
    row, log = options.cache / f"{model.name}.row.json", options.cache / f"{model.name}.log"
    row.unlink(missing_ok=True)
    began = time.monotonic()
    command = [sys.executable, __file__, *arguments, "--child", model.name]
    try:
        with log.open("w") as output:
            ended = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False)
        reason = f"exit code {ended.returncode}"
    except subprocess.TimeoutExpired:
        reason = f"longer than {LIMIT_S} s"
    facts = {"date": date.today().isoformat(), "process_seconds": round(time.monotonic() - began, 1)}
    if row.exists():
        return json.loads(row.read_text()) | facts
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    error = f"{reason}: {said[-1][:600] if said else 'it said nothing'}"
    shape = list(model.spec.shape)
    return {"name": model.name, "family": model.family, "input": shape, "ok": False, "error": error, **facts}


def shown(row: dict[str, Any]) -> dict[str, str]:
    """A row as the columns of the table."""
    told = {"encoder": row["name"], "input": "x".join(map(str, row["input"][:2]))}
    if "error" in row:
        return told | {"passes": "no", "note": row["error"][:120]}
    for engine, short in zip(ENGINES, ("ORT", "OV"), strict=True):
        told[f"fp32 {short}"] = _figure(row["fp32_min_cosine"][engine], "{:.6f}")
        told[f"int8 {short}"] = _int8(row, engine)
        times = [row["median_ms"].get(f"{engine} {precision}") for precision in ("fp32", "int8")]
        told[f"ms {short}"] = " / ".join(_figure(each, "{:.2f}") for each in times)
    told["trt int8"] = "kept" if row["int8"]["tensorrt"]["kept"] else "no"
    told["lint"] = f"{row['lint']['errors']}e {row['lint']['warnings']}w"
    held = row.get("held_out", {})
    told["20-NN"] = _figure(held.get("knn_fp32"), "{:.3f}")
    for engine, short in zip(ENGINES, ("ORT", "OV"), strict=True):
        told[f"drop {short}"] = _figure(held.get(engine, {}).get("drop_points"), "{:+.2f}")
    told |= {"s": f"{row['seconds']:.0f}", "passes": "yes" if row["ok"] else "no"}
    return told | {"note": "; ".join(row["missed"])[:120]}


def _int8(row: dict[str, Any], engine: str) -> str:
    facts = row["int8"][engine]
    mean = row.get("held_out", {}).get(engine, {}).get("mean_cosine", facts["mean_cosine"])
    said = "" if mean is None else f"{mean:.4f}"
    if not facts["kept"]:
        said = f"{said} slow".strip() if "does not pay" in facts["reason"] else f"{said} missed".strip()
    changed = [f"{facts[key]}{key[0]}" for key in ("excluded", "smoothed") if facts[key]]
    return f"{said} ({' '.join(changed)})" if changed else said


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """All rows, in columns."""
    cells = [shown(row) for row in rows]
    columns = [*dict.fromkeys(name for cell in cells for name in cell if name != "note"), "note"]
    widths = {name: max(len(name), *(len(cell.get(name, "-")) for cell in cells)) for name in columns}
    lines = ["  ".join(name.ljust(widths[name]) for name in columns)]
    lines += ["  ".join(cell.get(name, "-").ljust(widths[name]) for name in columns) for cell in cells]
    return "\n".join(line.rstrip() for line in lines)


def result_of(rows: Sequence[dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """The whole file."""
    trained = [row for row in rows if "held_out" in row]
    return {
        "claim": f"fp32 minimum cosine {FP32_COSINE} in onnxruntime and OpenVINO and no lint error for TensorRT 10.3; "
        f"int8 of the trained ones: mean cosine {INT8_COSINE} on held-out frames, 20-NN at most {KNN_POINTS} points lower",
        "passed": sum(row["ok"] for row in rows),
        "encoders": len(rows),
        "families": len({row["family"] for row in rows}),
        "trained_passed": sum(row["ok"] for row in trained),
        "trained": len(trained),
        "date": date.today().isoformat(),
        "machine": {"cpu": machine(), "cores": os.cpu_count(), "system": platform.platform()},
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "options": {"steps": given.steps, "batch": given.batch, "seed": given.seed},
        "rows": list(rows),
    }


def main() -> None:
    given = _arguments()
    options = Options(data=Path(given.data), cache=given.cache, steps=given.steps, batch=given.batch, seed=given.seed)
    options.cache.mkdir(parents=True, exist_ok=True)
    models = {model.name: model for model in ZOO}
    if given.child:
        row = row_of(models[given.child], options)
        (options.cache / f"{given.child}.row.json").write_text(json.dumps(row) + "\n")
        return
    result = given.result or (options.cache / "export_zoo_quick.json" if given.quick else RESULT)
    wanted = given.only or (QUICK if given.quick else list(models))
    known = json.loads(result.read_text())["rows"] if given.only and result.exists() else []
    rows = {row["name"]: row for row in known if row["name"] in models}
    arguments = ["--data", str(given.data), "--cache", str(given.cache)]
    for name in ("steps", "batch", "seed"):
        arguments += [f"--{name}", str(getattr(given, name))]
    for name in wanted:
        row = rows[name] = in_process(models[name], options, arguments)
        told = row.get("error") or "; ".join(row["missed"]) or "passes"
        print(f"{name}: {row['process_seconds']} s, {told}", flush=True)
        ordered = [rows[each] for each in models if each in rows]
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps(result_of(ordered, given), indent=1) + "\n")
    print(f"\n{table(ordered)}\n")
    passed = sum(row["ok"] for row in ordered)
    print(f"{passed} of {len(ordered)} pass, of {len({row['family'] for row in ordered})} families -> {result}")
    sys.exit(0 if passed == len(ordered) else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [model.name for model in ZOO]
    parser.add_argument("--data", default=os.environ.get("EDGESSL_DATA"), help="default: EDGESSL_DATA")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}, and 20 steps of training")
    parser.add_argument("--steps", type=int, help="of the short runs; 200, or 20 with --quick")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "edgessl_zoo",
        help="trained encoders and logs, kept from run to run",
    )
    parser.add_argument("--result", type=Path, help=f"default: {RESULT.name}")
    parser.add_argument("--child", choices=names, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.data is None:
        parser.error("give the data folder with --data, or set EDGESSL_DATA")
    if given.steps is None:
        given.steps = 20 if given.quick else 200
    return given


if __name__ == "__main__":
    main()
