"""What does it cost to serve what was learned? Every path of `Serving` beside the encoder that never learned.

    python benchmarks/adaptation/serving_cost.py BUNDLE.edgessl [...] --stream corrupted.npy [--result FILE]

Timed in turns in one process, per bundle, engine and batch size: `embed`; the factory's version; a map in front of the first
convolution; the same with recentring (an affine map of the vectors), which is level 0; ports; all three, which is level 1;
and trunk and tail, which serve ports where they cannot be folded into the graph. The
ratios are medians over the rounds of a contender's time over `embed`'s in the same round; those of the minima stand
beside them, since another program on the same cores can only make a call slower.

`observe` is all of it: a learner in a shift that it knows, where one frame in 16 is observed, judged and learned from, over 64
frames in batches of that size, beside `embed` over the same frames.

A contender of its own has the same constants in a second session: what it differs from 1 is what memory and chance do.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgessl
from edgessl.export.pays import machine
from edgessl.export.stem import probe_map
from edgessl.runtimes.adapt.served import Affine, Served
from edgessl.runtimes.adapt.serving import Serving
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.split import Port, Tail, Trunk
from edgessl.runtimes.timing import compare, interleaved

ENGINES, BATCHES, THREADS, ROUNDS = ("onnxruntime", "openvino"), (1, 16, 64), 2, 60
BOUND = 1.03
STREAM = 64  # frames that a learner is timed over
LEVELS_0_AND_1 = ("factory", "front", "front and affine", "ports", "front, ports and affine")
RESULT = Path(__file__).parents[1] / "results" / "adaptation_cost.json"


def ports_of(encoder: Encoder, rng: np.random.Generator) -> tuple[Port, ...]:
    """Positions as a change of light gives them: gains of 0.7 to 1.4, shifts of a fifth of each channel's spread."""
    source = encoder.bundle.tensors("source")
    found = []
    for index, port in enumerate(encoder.manifest["split"]["ports"]):
        spread = np.sqrt(source[f"port{index}.var"])
        scale = np.exp(rng.uniform(np.log(0.7), np.log(1.4), port["channels"])).astype(np.float32)
        found.append((scale, (0.2 * rng.normal(size=port["channels"]) * spread).astype(np.float32)))
    return tuple(found)


def versions_of(encoder: Encoder) -> dict[str, Served]:
    """One of each kind."""
    rng, dim = np.random.default_rng(0), encoder.dim
    matrix = (np.eye(dim) + rng.normal(0, 0.05, (dim, dim))).astype(np.float32)
    affine = Affine(matrix=matrix, shift=rng.normal(0, 0.05, dim).astype(np.float32))
    ports = ports_of(encoder, rng)
    kernel = encoder.manifest["split"]["stem"]["kernel"]
    front = probe_map(3, int(np.prod(kernel)))
    return {
        "factory": Served(),
        "front": Served(front=front),
        "front and affine": Served(front=front, affine=affine),
        "ports": Served(ports=ports),
        "front, ports and affine": Served(front=front, ports=ports, affine=affine),
    }


def measured(path: Path, engine: str) -> list[dict[str, Any]]:
    """Rows of one bundle in one engine, a row per batch size and contender."""
    rows = []
    with ExitStack() as opened, edgessl.open(path, engine=engine, threads=THREADS) as encoder:
        again = opened.enter_context(edgessl.open(path, engine=engine, threads=THREADS))
        trunk = opened.enter_context(Trunk(encoder.bundle, engine=engine, precision=encoder.precision, threads=THREADS))
        tail = opened.enter_context(Tail(encoder.bundle, engine=engine, threads=THREADS))
        served = {}
        for name, given in versions_of(encoder).items():
            served[name] = opened.enter_context(Serving(encoder))
            served[name].use(given)
        ports = versions_of(encoder)["ports"].ports
        samples = encoder.bundle.tensors("golden")["samples"]
        for batch in BATCHES:
            frames = np.ascontiguousarray(np.resize(samples, (batch, *samples.shape[1:])))
            runs = {"embed": partial(encoder.embed, frames), "embed again": partial(again.embed, frames)}
            runs |= {name: partial(each.embed, frames) for name, each in served.items()}
            runs["trunk and tail"] = lambda frames=frames: tail.run(trunk.run(frames, ports).latents)
            times = interleaved(runs, rounds=ROUNDS, calls=5, budget_s=40.0)
            least = {name: min(seconds) for name, seconds in times.items()}
            for name, row in compare(times, baseline="embed").items():
                rows.append(
                    {
                        "bundle": path.stem,
                        "encoder": encoder.manifest["encoder"]["name"],
                        "engine": engine,
                        "precision": encoder.precision,
                        "batch": batch,
                        "version": name,
                        "path": served[name].info()["path"] if name in served else "",
                        "median_ms": round(row.median_ms, 4),
                        "ratio": round(row.ratio, 4),
                        "quartiles": [round(row.low, 4), round(row.high, 4)],
                        "ratio_of_minima": round(least[name] / least["embed"], 4),
                        "rounds": row.rounds,
                    }
                )
                print(*rows[-1].values(), flush=True)
    return rows


def streamed(path: Path, engine: str, frames: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Rows of a learner at work on a shifted stream that it knows, beside the encoder on its last frames."""
    rows = []
    with ExitStack() as opened, edgessl.open(path, engine=engine, threads=THREADS) as encoder:
        dark = frames[-STREAM:]
        learners = {}
        for name, level in (("observe, level 0", "recenter"), ("observe, level 1", "ports")):
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            learners[name] = opened.enter_context(encoder.learner(folder, level=level))
            for start in range(0, len(frames), STREAM):
                learners[name].observe(frames[start : start + STREAM])
        for batch in BATCHES:
            parts = [np.ascontiguousarray(dark[start : start + batch]) for start in range(0, STREAM, batch)]
            runs = {"embed": partial(_each, encoder.embed, parts)}
            runs |= {name: partial(_each, learner.observe, parts) for name, learner in learners.items()}
            times = interleaved(runs, rounds=ROUNDS, calls=3, budget_s=40.0)
            for name, row in compare(times, baseline="embed").items():
                told = learners[name].info() if name in learners else {}
                rows.append(
                    {"bundle": path.stem, "engine": engine, "batch": batch, "contender": name, "frames": STREAM}
                    | {"median_ms": round(row.median_ms, 4), "ratio": round(row.ratio, 4)}
                    | {"shifted": told.get("shifted"), "port_moves": told.get("port_moves")}
                )
                print(*rows[-1].values(), flush=True)
    return rows


def _each(run: Callable[[NDArray[Any]], object], parts: Sequence[NDArray[Any]]) -> None:
    for part in parts:
        run(part)


def main() -> None:
    """Time, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument(
        "--stream",
        type=Path,
        required=True,
        help=".npy of uint8 frames of a shifted world, 4000 or more, for the bundles",
    )
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    rows = [row for path in given.bundles for engine in ENGINES for row in measured(path, engine)]
    frames = np.load(given.stream)
    stream = [row for path in given.bundles for engine in ENGINES for row in streamed(path, engine, frames)]
    cheap = [row for row in rows if row["version"] in LEVELS_0_AND_1]
    result = {
        "claim": f"levels 0 and 1 are served in at most {BOUND} of the time of embed, wherever the ports can be folded",
        "holds": {
            kind: all(row[kind] <= BOUND for row in cheap if row["path"] != "split")
            for kind in ("ratio", "ratio_of_minima")
        },
        "largest": {
            version: max((row["ratio"] for row in cheap if row["version"] == version), default=None)
            for version in LEVELS_0_AND_1
        },
        "split": sorted({f"{row['bundle']} in {row['engine']}" for row in cheap if row["path"] == "split"}),
        "date": date.today().isoformat(),
        "machine": {"cpu": machine(), "threads": THREADS, "system": platform.platform()},
        "versions": {name: version(name) for name in ("edgessl", "onnxruntime", "openvino", "numpy")},
        "largest_of_observe": max(row["ratio"] for row in stream),
        "rows": rows,
        "stream": stream,
    }
    given.result.write_text(json.dumps(result, indent=2) + "\n")
    print("holds:", result["holds"], "largest:", result["largest"], "->", given.result)


if __name__ == "__main__":
    main()
