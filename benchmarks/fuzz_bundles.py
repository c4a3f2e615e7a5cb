"""Damage bundles in every way that comes to mind, open them, and look at what the process does.

    python benchmarks/fuzz_bundles.py --count 10000 --bundle vit.edgessl --bundle conv.edgessl

The bundles take turns (the small one of the tests is always among them), and so do the kinds of `mutations.py` and
`graph_mutations.py`. Each case is opened by `edgessl.open`, replayed on its golden samples, and learned from, in a worker
process with a bound on its address space. A case fails when

- the worker dies, takes more than ten seconds, or has more than a gibibyte in memory;
- an exception comes out that is no BundleError, EngineError or InputError;
- it opens, though its content is not what the manifest says, or the manifest points outside the bundle.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import platform
import random
import resource
import runpy
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import graph_mutations
import mutations

ROOT = Path(__file__).parents[1]
TIMEOUT_S, ADDRESS_SPACE, RESIDENT_KB = 10.0, 6 * 2**30, 2**20
PER_WORKER = 1000  # cases, then a fresh process: what leaks a little is not what is looked for
REFUSING = mutations.DAMAGE | mutations.PATHS
KINDS = REFUSING | mutations.CONSISTENT | graph_mutations.GRAPHS
CLEAN = ("BundleError", "EngineError", "InputError")


def worker(bundles: list[Path], seed: int, folder: Path) -> None:
    """Answer each case number on stdin with a line: what came of it, and the most memory it took."""
    import numpy as np

    import edgessl
    from edgessl.bundle import open_bundle
    from edgessl.errors import EdgeSSLError
    from edgessl.runtimes.verify import replay

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    frames = {path: open_bundle(path).tensors("golden")["samples"][:2] for path in bundles}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def tried(place: Path, samples: Any) -> str:
        try:
            with edgessl.open(place, threads=1) as encoder:
                encoder.embed(samples)
                replay(encoder.bundle, "onnxruntime", threads=1)
                with encoder.learner(place.parent / "state", level="tail") as learner:
                    learner.observe(samples)
        except EdgeSSLError as error:
            return type(error).__name__
        except BaseException as error:  # noqa: BLE001, that is what is looked for
            trace = error.__traceback__
            while trace and trace.tb_next:
                trace = trace.tb_next
            at = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
            return f"{type(error).__name__} at {at}: {str(error)[:200]}"
        return "opened"

    np.seterr(all="ignore")
    for line in sys.stdin:
        case = int(line)
        place = mutated(bundles, case, seed, folder)
        Path("/proc/self/clear_refs").write_text("5")  # peak memory from here on
        came = tried(place, frames[bundles[case % len(bundles)]])
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        answers.write(json.dumps([case, came, int(peak.split()[1])]) + "\n")
        answers.flush()


def mutated(bundles: list[Path], case: int, seed: int, folder: Path) -> Path:
    """The bundle of this case, written to `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    place = shutil.copytree(bundles[case % len(bundles)], folder / "case.edgessl")
    KINDS[kind_of(bundles, case)](place, random.Random(f"{seed} {case}"))
    return place


def kind_of(bundles: list[Path], case: int) -> str:
    return list(KINDS)[case // len(bundles) % len(KINDS)]


def unchanged(bundles: list[Path], case: int, place: Path) -> bool:
    """Whether the bundle of this case says and holds what the whole one does."""
    whole = bundles[case % len(bundles)]
    try:
        said = [json.loads((folder / "manifest.json").read_text()) for folder in (whole, place)]
        same = all((place / name).read_bytes() == (whole / name).read_bytes() for name in said[0]["artefacts"])
    except (OSError, ValueError):
        return False
    return bool(same and said[0] == said[1])


class Pool:
    """One worker at a time, replaced when it dies, hangs or has done its share."""

    def __init__(self, bundles: list[Path], seed: int, folder: Path) -> None:
        self.command = [sys.executable, __file__, "--worker", str(folder / "work"), "--seed", str(seed)]
        self.command += [word for path in bundles for word in ("--bundle", str(path))]
        self.log = folder / "log"
        self.process: subprocess.Popen[str] | None = None
        self.left = 0

    def ask(self, case: int) -> tuple[str, int]:
        if self.process is None or self.left == 0:
            self.stop()
            log = self.log.open("w")
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=log, text=True)
            self.left, limit = PER_WORKER, TIMEOUT_S + 30  # it imports first
        else:
            limit = TIMEOUT_S
        self.left -= 1
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{case}\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], limit)[0]:
            self.stop()
            return "hang", 0
        line = self.process.stdout.readline()
        if not line:
            code, self.process = self.process.wait(), None
            return f"died with {code}: {self.log.read_text()[-300:]}", 0
        _, came, peak = json.loads(line)
        return str(came), int(peak)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def run(bundles: list[Path], cases: Sequence[int], seed: int, folder: Path, until: float) -> dict[str, Any]:
    """Counts per kind and outcome, and every case that failed."""
    counts: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in KINDS}
    failed: list[dict[str, Any]] = []
    folder.mkdir()
    pool, most, slowest = Pool(bundles, seed, folder), 0, 0.0
    for number, case in enumerate(cases):
        if time.monotonic() > until:
            break
        kind, started = kind_of(bundles, case), time.monotonic()
        came, peak = pool.ask(case)
        slowest, most = max(slowest, time.monotonic() - started), max(most, peak)
        if came == "opened" and kind in REFUSING:
            same = unchanged(bundles, case, folder / "work" / "case.edgessl")
            came = "opened, nothing had changed" if same else "opened, changed"
        if peak > RESIDENT_KB:
            came = f"{peak} kB of memory, {came}"
        wrong = came not in (*CLEAN, "opened", "opened, nothing had changed")
        counts[kind]["failed" if wrong else came] += 1
        if wrong:
            failed.append({"case": case, "kind": kind, "bundle": bundles[case % len(bundles)].name, "came": came})
            print(failed[-1], flush=True)
        if number % 500 == 499:
            print(f"{number + 1} cases, {len(failed)} failed", flush=True)
    pool.stop()
    return {
        "counts": counts,
        "failed": failed,
        "most_memory_mb": most // 1024,
        "slowest_s_with_start": round(slowest, 2),
    }


def together(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the workers found, as one."""
    added = {kind: sum((part["counts"][kind] for part in parts), collections.Counter()) for kind in KINDS}
    return {
        "counts": {kind: dict(counter) for kind, counter in added.items()},
        "failed": [case for part in parts for case in part["failed"]],
        **{key: max(part[key] for part in parts) for key in ("most_memory_mb", "slowest_s_with_start")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--bundle", type=Path, action="append", default=[], help="more bundles than the tests' small one"
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=2, help="worker processes at a time")
    parser.add_argument("--minutes", type=float, default=120, help="begin no case after this long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "fuzz_bundles.json")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.bundle, given.seed, given.worker)
        return
    import edgessl

    started = time.monotonic()
    until = started + 60 * given.minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write = runpy.run_path(str(ROOT / "tests" / "runtimes" / "tiny_bundle.py"))["write_tiny_bundle"]
        bundles = [write(folder / "tiny.edgessl"), *(path.absolute() for path in given.bundle)]
        with ThreadPoolExecutor(given.jobs) as pool:  # each thread has a worker process
            parts = [range(job, given.count, given.jobs) for job in range(given.jobs)]
            runs = [
                pool.submit(run, bundles, part, given.seed, folder / f"{job}", until) for job, part in enumerate(parts)
            ]
            found = together([each.result() for each in runs])
    cases = sum(sum(kind.values()) for kind in found["counts"].values())
    packages = ("numpy", "onnx", "onnxruntime", "safetensors")
    facts = {
        "claim": "a damaged or hostile bundle is refused cleanly: no crash, hang or unbounded memory",
        "cases": cases,
        "seed": given.seed,
        "failed_cases": len(found["failed"]),
        "bundles": [path.name for path in bundles],
        "bounds": {
            "seconds": TIMEOUT_S,
            "resident_mb": RESIDENT_KB // 1024,
            "address_space_mb": ADDRESS_SPACE // 2**20,
        },
        "took_s": round(time.monotonic() - started),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {"edgessl": edgessl.__version__, "python": platform.python_version()}
        | {package: version(package) for package in packages},
        "date": time.strftime("%Y-%m-%d"),
        **found,
    }
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{cases - len(found['failed'])} of {cases} as they should be -> {given.output}")
    sys.exit(0 if not found["failed"] else 1)


if __name__ == "__main__":
    main()
