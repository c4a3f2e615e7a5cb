"""Embed a recording of 10,000 real frames: memory stays flat, and `kill -9` at random instants costs no frame and repeats none.

    EDGESSL_DATA=/path/to/data python benchmarks/embed_resume.py

The frames are the JPEGs of donkeycar/frames, over and over, as the `sensor_msgs/CompressedImage` of an MCAP file, each with a
stamp of its own. The encoder is a small convolution with random weights and vectors of 512 numbers: what it sees does not matter
here, and 7,500 of its vectors would be seen in memory. Three things must hold:

- the file has every frame of the recording once, in order, with the stamp that was written (read without edgessl);
- the peak of resident memory at 10,000 frames is at most 8 MiB above that at 2,500, for .npz and .parquet;
- after any number of `kill -9`, at random instants, the same command ends in the same file, to the bit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "embed_resume.json"
BEGAN_NS, STEP_NS = 1_700_000_000 * 10**9, 50_000_000
GROWTH_KIB = 8 * 1024
ENDINGS = (".npz", ".parquet")

PROGRAM = """
import atexit, sys
def peak():
    with open("/proc/self/status") as file:
        print(next(line for line in file if line.startswith("VmHWM")), file=sys.stderr)
atexit.register(peak)
from edgessl.cli.main import main
main()
"""


def recording(path: Path, frames: list[Path], count: int) -> Path:
    """An MCAP file of `count` frames, as rosbags writes it."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    image, header, stamp = (
        store.types[name]
        for name in ("sensor_msgs/msg/CompressedImage", "std_msgs/msg/Header", "builtin_interfaces/msg/Time")
    )
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        link = writer.add_connection("/camera/compressed", image.__msgtype__, typestore=store)
        for index, frame in enumerate(islice(cycle(frames), count)):
            now = BEGAN_NS + index * STEP_NS
            said = header(stamp=stamp(sec=now // 10**9, nanosec=now % 10**9), frame_id="camera")
            message = image(header=said, format="jpeg", data=np.frombuffer(frame.read_bytes(), np.uint8))
            writer.write(link, now, store.serialize_cdr(message, image.__msgtype__))
    return next(path.glob("*.mcap"))


def bundle_of(frames: Path, folder: Path) -> Path:
    """A small encoder with long vectors, exported in int8."""
    import torch

    from edgessl.checkpoint import read_checkpoint, write_checkpoint
    from edgessl.encoders import build_encoder
    from edgessl.export.bundle import export
    from edgessl.export.config import ExportConfig
    from edgessl.files import atomic_folder
    from edgessl.signals import image_spec
    from edgessl.sources import open_source

    torch.manual_seed(0)
    made = build_encoder("conv_small", image_spec(120, 160), widths=(8, 16, 24), dim=512)
    with atomic_folder(folder / "run") as temporary:
        write_checkpoint(temporary, made.eval(), {"made_by": "benchmark"})
    encoder, facts = read_checkpoint(folder / "run")
    source = open_source(str(frames), spec=encoder.input)
    export(encoder, facts, source, folder / "robot.edgessl", config=ExportConfig(precision="int8"))
    return folder / "robot.edgessl"


def command(bundle: Path, source: Path, output: Path) -> list[str]:
    return [sys.executable, "-c", PROGRAM, "embed", str(bundle), str(source), "-o", str(output), "--threads", "1"]


def never_stopped(bundle: Path, source: Path, output: Path) -> dict[str, Any]:
    """One whole run: seconds and the peak of its memory."""
    begun = time.monotonic()
    done = subprocess.run(command(bundle, source, output), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    peak_kib = int(done.stderr.rpartition("VmHWM:")[2].split()[0])
    return {"output": output.name, "seconds": round(time.monotonic() - begun, 1), "peak_kib": peak_kib}


def complete(output: Path, count: int) -> bool:
    """Whether every frame is there once, in order, with its stamp; read with numpy or pyarrow alone."""
    expected = BEGAN_NS + STEP_NS * np.arange(count)
    if output.suffix == ".npz":
        with np.load(output) as held:
            names, vectors = held["names"].tolist(), held["vectors"]
            stamps = np.rint(held["stamp"] * 1e3).astype(np.int64) * 10**6
    else:
        import pyarrow.parquet as pq

        table = pq.ParquetFile(output).read()
        names, stamps = table["name"].to_pylist(), np.array([stamp.value for stamp in table["stamp"]])
        vectors = np.asarray(table["vector"].combine_chunks().flatten()).reshape(len(names), -1)
        stamps = np.rint(stamps / 1e6).astype(np.int64) * 10**6  # a float64 of seconds knows a quarter of a microsecond
    numbers = [int(name.rpartition("#")[2]) for name in names]
    lengths = np.linalg.norm(vectors, axis=1)
    return (
        numbers == list(range(count)) and np.array_equal(stamps, expected) and bool(np.allclose(lengths, 1, atol=1e-4))
    )


def where(output: Path) -> str:
    """What a kill left."""
    folder = output.with_name(f"{output.name}.embedding")
    if output.exists():
        return "behind the last rename"
    if not folder.exists() or not (folder / "rows").exists():
        return "before the first row"
    if any(folder.glob("whole*")):
        return "while the file was put together"
    return "between rows" if (folder / "rows").stat().st_size else "before the first row"


def kills(
    bundle: Path, source: Path, folder: Path, expected: Path, least: int, longest_s: float, rng: random.Random
) -> dict[str, Any]:
    """Kill and type again until there were `least` kills and the last file is whole."""
    places: Counter[str] = Counter()
    outputs = same = 0
    while places.total() < least:
        output = folder / f"killed{outputs}{expected.suffix}"
        while not output.exists():
            with subprocess.Popen(
                command(bundle, source, output), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            ) as process:
                try:
                    process.communicate(timeout=rng.uniform(0, longest_s))
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
            if process.returncode == -signal.SIGKILL:
                places[where(output)] += 1
            elif process.returncode:
                raise RuntimeError(f"the command failed with {process.returncode}")
        outputs, same = outputs + 1, same + (output.read_bytes() == expected.read_bytes())
        print(f"{expected.suffix}: {places.total()} kills, {same} of {outputs} files the same", flush=True)
    return {"ending": expected.suffix, "kills": places.total(), "files": outputs, "same": same, "where": dict(places)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default=os.environ.get("EDGESSL_DATA"), help="folder with donkeycar/frames")
    parser.add_argument("--bundle", type=Path, help="default: a small convolution")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=100, help="at least so many for each form of file")
    parser.add_argument("--longest", type=float, default=8.0, help="seconds that a process lives, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    if given.data is None:
        parser.error("give the data folder, or set EDGESSL_DATA")
    frames = Path(given.data) / "donkeycar" / "frames"
    files = sorted(frames.glob("*.jpg"))
    if not files:
        parser.error(f"no .jpg in {frames}")
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = given.bundle or bundle_of(frames, folder)
        quarter = recording(folder / "quarter", files, given.count // 4)
        whole = recording(folder / "whole", files, given.count)
        runs, claims, killed = [], [], []
        for ending in ENDINGS:
            small = never_stopped(bundle, quarter, folder / f"quarter{ending}")
            large = never_stopped(bundle, whole, folder / f"whole{ending}")
            runs += [small | {"frames": given.count // 4}, large | {"frames": given.count}]
            growth = large["peak_kib"] - small["peak_kib"]
            claims += [
                {
                    "claim": f"{ending} has every frame once, in order",
                    "ok": complete(folder / f"whole{ending}", given.count),
                },
                {
                    "claim": f"{ending}: KiB of memory at {given.count} above {given.count // 4} frames",
                    "at_most": GROWTH_KIB,
                    "got": growth,
                    "ok": growth <= GROWTH_KIB,
                },
            ]
            print(*runs[-2:], *claims[-2:], sep="\n", flush=True)
            killed.append(kills(bundle, whole, folder, folder / f"whole{ending}", given.kills, given.longest, rng))
            claims.append(
                {
                    "claim": f"{ending}: files that are the same after kill -9",
                    "of": killed[-1]["files"],
                    "got": killed[-1]["same"],
                    "ok": killed[-1]["same"] == killed[-1]["files"],
                }
            )
    result = {
        "claims": claims,
        "holds": all(claim["ok"] for claim in claims),
        "date": date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "system": platform.platform()},
        "versions": {name: version(name) for name in ("edgessl", "numpy", "onnxruntime", "pyarrow", "rosbags")},
        "runs": runs,
        "killed": killed,
    }
    given.result.parent.mkdir(parents=True, exist_ok=True)
    given.result.write_text(json.dumps(result, indent=1) + "\n")
    print(*(f"{'ok  ' if claim['ok'] else 'MISS'} {claim}" for claim in claims), sep="\n")
    sys.exit(0 if result["holds"] else 1)


if __name__ == "__main__":
    main()
