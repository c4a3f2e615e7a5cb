"""Kill `edgessl adapt` at random instants and look at what is left.

    python benchmarks/kill_adapt.py --bundle robot.edgessl --instants 100

The command runs again and again in a process of its own, over frames that the guard takes for a night, in one state
folder. After each snapshot is on disk, the process appends its number and its frame count to a log, flushed. Then it is
killed with SIGKILL: every other time wherever it happens to be, and every other time while it writes a snapshot. Three
things must hold each time:

- the state loads;
- what loads is the newest snapshot that is whole, by a reading of the file's bytes that shares no code with edgessl;
- it is not older than the last one in the log: what was once said to be on disk is still there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
DTYPES = {"F64": "<f8", "F32": "<f4", "I8": "|i1", "U8": "|u1", "I64": "<i8", "BOOL": "|b1"}


def child(bundle: str, source: str, state: str, log: str) -> None:
    """Run `edgessl adapt` for ever; report each snapshot once it is on disk."""
    from edgessl.cli.main import app
    from edgessl.runtimes.adapt.store import Store

    handle = os.open(log, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    save = Store.save

    def reported(self: Store, learned: object) -> int:
        number = save(self, learned)  # type: ignore[arg-type]
        os.write(handle, f"{number} {learned.values['learner.frames']}\n".encode())  # type: ignore[attr-defined]
        os.fsync(handle)
        return number

    Store.save = reported  # type: ignore[method-assign]
    arguments = ["adapt", bundle, source, "--state", state, "-o", f"{state}.npz", "--overwrite", "--level", "tail"]
    while True:
        app(arguments, standalone_mode=False)


def whole(file: Path) -> bool:
    """Whether a snapshot's own digest is that of its bytes."""
    content = file.read_bytes()
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        told = header.pop("__metadata__")
        digest, data = hashlib.sha256(told["state"].encode()), content[8 + length :]
        for name in sorted(header):
            entry = header[name]
            start, stop = entry["data_offsets"]
            if stop > len(data):
                return False
            digest.update(f"\n{name} {DTYPES[entry['dtype']]} {tuple(entry['shape'])}\n".encode())
            digest.update(data[start:stop])
        return digest.hexdigest() == str(told["sha256"])
    except (ValueError, KeyError, TypeError):
        return False


def trial(bundle: Path, source: Path, folder: Path, delay_s: float, *, writing: bool) -> dict[str, object]:
    """Start, wait for a snapshot, wait `delay_s` longer and perhaps for the next one to be begun, kill, and look."""
    import edgessl

    state, log = folder / "state", folder / "log"
    said_before = log.read_text().count("\n") if log.exists() else 0
    command = [sys.executable, __file__, "--child", str(bundle), str(source), str(state), str(log)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT) as process:
        deadline = time.monotonic() + 60
        while not log.exists() or log.read_text().count("\n") == said_before:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(f"the child gave no snapshot: {process.stderr.read().decode()[-2000:]}")  # type: ignore[union-attr]
            time.sleep(0.005)
        time.sleep(delay_s)
        while writing and time.monotonic() < deadline and not any(state.glob(".snapshot-*.partial")):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    said, frames = (int(word) for word in log.read_text().splitlines()[-1].split())
    files = sorted(state.glob("snapshot-*.safetensors"))
    newest = max(int(file.name[9:17]) for file in files if whole(file))
    halves = len(list(state.glob(".snapshot-*.partial")))
    with edgessl.open(bundle) as encoder, encoder.learner(state, level="tail") as learner:
        loaded = int(learner.events[-1]["snapshot"])
        same = loaded > said or learner.frames == frames
    ok = loaded == newest and loaded >= said and same
    return {"delay_s": delay_s, "said": said, "newest": newest, "loaded": loaded, "halves": halves, "ok": ok}


def trials(bundle: Path, folder: Path, instants: int, seed: int) -> list[dict[str, object]]:
    """One row per kill, all in one state folder."""
    import edgessl

    rng = random.Random(seed)
    with edgessl.open(bundle) as encoder:
        shape, samples = encoder.input.shape, encoder.bundle.tensors("golden")["samples"]
    noise = np.random.default_rng(seed).normal(0, 25, (3000, *shape))
    night = samples[np.arange(len(noise)) % len(samples)] * 0.3 + noise
    source = folder / "night.npz"
    np.savez(source, x=night.clip(0, 255).astype(np.uint8))
    return [trial(bundle, source, folder, rng.uniform(0, 0.4), writing=index % 2 == 1) for index in range(instants)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="default: the small one of the tests")
    parser.add_argument("--instants", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "kill_adapt.json")
    parser.add_argument("--child", nargs=4, metavar=("BUNDLE", "SOURCE", "STATE", "LOG"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = given.bundle
        if bundle is None:
            write = runpy.run_path(str(ROOT / "tests" / "runtimes" / "tiny_bundle.py"))["write_tiny_bundle"]
            bundle = write(folder / "tiny.edgessl")
        rows = trials(bundle.absolute(), folder, given.instants, given.seed)
    import edgessl

    held = sum(bool(row["ok"]) for row in rows)
    facts = {
        "claim": "after kill -9 at a random instant the state loads and is the newest whole snapshot",
        "instants": len(rows),
        "held": held,
        "killed_while_writing": sum(bool(row["halves"]) for row in rows),
        "bundle": bundle.name,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {"edgessl": edgessl.__version__, "python": platform.python_version(), "numpy": np.__version__},
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
    }
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{held} of {len(rows)} held; {facts['killed_while_writing']} were killed while writing -> {given.output}")
    sys.exit(0 if held == len(rows) else 1)


if __name__ == "__main__":
    main()
