"""What the adaptation benchmarks share: frames, streams, scores, options, and the file of results.

The score of a vector is the vote of its 20 nearest neighbours (arXiv:1805.01978, temperature 0.1) among the embeddings
of 20,000 clean training images by the same model before it adapted: the bank stays as it is, as a robot's map does.
"Gives back" is `(accuracy - none) / (clean - none)`, where `none` is the same model without adaptation on the same
frames, and `clean` the same on clean frames.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from contenders import Contender, Observer, Setting, unadapted
from corruptions import Frames, cifar10, corrupt
from encoder import SPARE, bundle, images
from numpy.typing import NDArray
from streams import iid

from edgessl.checkpoint import read_checkpoint
from edgessl.export.pays import machine

Vectors = NDArray[np.float32]  # (n, dim)
Labels = NDArray[np.int64]  # (n,)

BANK, NEIGHBOURS, TEMPERATURE, SEVERITY, TEST = 20_000, 20, 0.1, 5, 10_000
SOURCE = 2000  # clean unlabelled frames that baselines may look at, of those that no training saw
RESULTS = Path(__file__).parents[1] / "results"
_CHUNK = 1024  # queries that are compared with the bank at a time


class Leg(NamedTuple):
    """A stretch of a stream."""

    name: str
    frames: Frames
    labels: Labels


class Bank:
    """Clean embeddings with their labels, which a query's neighbours vote from."""

    def __init__(self, vectors: Vectors, labels: Labels) -> None:
        self._vectors = torch.from_numpy(vectors)
        self._one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels)).float()

    def right(self, vectors: Vectors, labels: Labels) -> NDArray[np.bool_]:
        """Which unit vectors `(n, dim)` are voted into their class, `(n,)`; a row of NaN is not."""
        right = np.zeros(len(vectors), bool)
        for start in range(0, len(vectors), _CHUNK):
            part = slice(start, start + _CHUNK)
            similar, near = (torch.from_numpy(vectors[part]) @ self._vectors.T).topk(
                min(NEIGHBOURS, len(self._vectors))
            )
            votes = ((similar / TEMPERATURE).exp()[..., None] * self._one_hot[near]).sum(1)  # (chunk, classes)
            right[part] = votes.argmax(1).numpy() == labels[part]
        return right & np.isfinite(vectors).all(1)


class Trial:
    """One seed: a student, its bundle, its banks, and the first `count` test images, corrupted.

    Args:
        data: The data folder.
        folder: Of `encoder.py`; what is missing there is made. Corrupted frames are kept there too.
        seed: Of the student, and of all streams and contenders.
        count: Test images.
    """

    def __init__(self, data: Path, folder: Path, seed: int, count: int) -> None:
        self.data, self.folder, self.seed, self.count = data, folder, seed, count
        self.bundle = bundle(data, folder, seed)
        self._test = cifar10(data, "test", TEST)
        self._bank = cifar10(data, "train", BANK)
        self.frames, self.labels = (each[:count] for each in self._test)
        self._banks: dict[str, Bank] = {}

    @cached_property
    def setting(self) -> Setting:
        """What this seed's contenders are made from."""
        encoder, _ = read_checkpoint(self.folder / f"student{self.seed}")
        encoder.eval()
        source = images(self.data, slice(-SPARE, None)).read(range(SOURCE))[1]
        return Setting(bundle=self.bundle, encoder=encoder, source=source, labelled=self._bank, seed=self.seed)

    def bank(self, model: str) -> Bank:
        """Embeddings of the bank's images by a model that has not adapted."""
        if model not in self._banks:
            self._banks[model] = Bank(self.embed(model, self._bank[0]), self._bank[1])
        return self._banks[model]

    def embed(self, model: str, frames: Frames) -> Vectors:
        """Without adaptation."""
        with unadapted(model).made(self.setting) as observer:
            return through(observer, frames, 250)

    def clean(self, count: int) -> Leg:
        """The first test images as they are."""
        return Leg("clean", self._test[0][:count], self._test[1][:count])

    def held_out(self, count: int) -> Leg:
        """The last test images as they are."""
        return Leg("held out", self._test[0][-count:], self._test[1][-count:])

    def corrupted(self, name: str, frames: Frames | None = None, tag: str = "test") -> Frames:
        """Some frames, by default this trial's test images, corrupted; kept in the folder under the tag."""
        frames = self.frames if frames is None else frames
        path = self.folder / "corrupted" / f"{tag}-{name}-{self.seed}-{len(frames)}.npy"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            partial = path.with_name(f".{path.name}.{os.getpid()}")
            with partial.open("wb") as file:
                np.save(file, corrupt(name, frames, severity=SEVERITY, seed=self.seed))
            partial.replace(path)
        return np.load(path)

    def legs(self, names: Iterable[str], *, around: int = 0) -> Iterator[Leg]:
        """The test images under one corruption after the other, each time in a new random order; `around` names a round."""
        for index, name in enumerate(names):
            order = iid(self.labels, seed=10_000 * self.seed + 100 * around + index)
            yield Leg(name, self.corrupted(name)[order], self.labels[order])

    def course(self, contender: Contender, legs: Iterable[Leg], batch: int) -> tuple[dict[str, float], dict[str, Any]]:
        """One contender through a stream without a reset: accuracy by leg, and what is worth knowing of the run."""
        bank, began, found = self.bank(contender.model), time.perf_counter(), {}
        with contender.made(self.setting) as observer:
            for leg in legs:
                found[leg.name] = float(bank.right(through(observer, leg.frames, batch), leg.labels).mean())
            return found, {"seconds": round(time.perf_counter() - began, 1), **story(observer)}


def through(observer: Observer, frames: Frames, batch: int) -> Vectors:
    """What an observer serves for frames that come in batches, in order."""
    return np.concatenate([observer.observe(frames[start : start + batch]) for start in range(0, len(frames), batch)])


def story(observer: Observer) -> dict[str, Any]:
    """How often a learner said what; empty for whoever has no events."""
    kinds = Counter(event["kind"] for event in getattr(observer, "events", []))
    return {"events": dict(kinds)} if kinds else {}


def gives_back(accuracy: float, none: float, clean: float) -> float:
    """Share of what corruption took that came back; NaN where it took nothing."""
    return (accuracy - none) / (clean - none) if clean > none else float("nan")


class Report:
    """Rows and claims of one benchmark; prints while it runs, and writes `adaptation_NAME.json`.

    Args:
        name: Of the benchmark.
        what: What is measured, in a few sentences: the script's docstring.
        given: Its options; with `--merge` the rows are those of other files, so that runs may go side by side.
    """

    def __init__(self, name: str, what: str, given: argparse.Namespace) -> None:
        self.rows: list[dict[str, Any]] = []
        self._name, self._what, self._given = name, what, given
        self._claims: list[dict[str, Any]] = []
        self._began = time.perf_counter()
        if given.merge:
            given.seeds = []  # nothing is run
            for path in given.merge:
                self.rows += json.loads(path.read_text())["rows"]

    def add(self, **row: Any) -> None:
        """One row; what is a table itself is not printed."""
        self.rows.append(row)
        cells = [
            f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}"
            for key, value in row.items()
            if not isinstance(value, dict)
        ]
        print(f"{time.perf_counter() - self._began:7.0f} s  {'  '.join(cells)}", flush=True)

    def mean(self, field: str, **where: Any) -> float:
        """Of one field over the rows that have these values; NaN where there is none."""
        found = [row[field] for row in self.rows if field in row and where.items() <= _plain(row).items()]
        return float(np.mean(found)) if found else float("nan")

    def claim(self, text: str, got: float, *, least: float | None = None, most: float | None = None) -> None:
        """Hold a figure against its bound; one that could not be taken is not reached."""
        ok = got >= least if least is not None else most is not None and got <= most
        kind, bound = ("at least", least) if least is not None else ("at most", most)
        self._claims.append({"claim": text, "bound": f"{kind} {bound:.4g}", "got": round(got, 4), "ok": bool(ok)})
        print(f"{'ok    ' if ok else 'MISSED'} {text}: {got:.4f}, {kind} {bound:.4g}", flush=True)

    def write(self, **more: Any) -> None:
        """To the results folder, or where `--result` says."""
        settings = {key: value for key, value in vars(self._given).items() if key not in ("data", "folder", "result")}
        if self._given.merge:  # where they lay is that machine's affair
            settings["merge"] = [path.name for path in self._given.merge]
        result = {
            "what": self._what,
            "claims": self._claims,
            "holds": all(claim["ok"] for claim in self._claims),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self._began),
            "machine": {"cpu": machine(), "cores": os.cpu_count(), "system": platform.platform()},
            "versions": {
                name: version(name) for name in ("edgessl", "torch", "numpy", "scipy", "onnxruntime", "openvino")
            },
            "settings": settings,
            **more,
            "rows": self.rows,
        }
        path = self._given.result or RESULTS / f"adaptation_{self._name}.json"
        path.write_text(json.dumps(result, indent=1, default=str) + "\n")
        print(f"-> {path}", flush=True)


def options(what: str | None, *, count: int, engines: Sequence[str] = ("onnxruntime",)) -> argparse.ArgumentParser:
    """Those that every script has; more may be added."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("EDGESSL_DATA")
    parser.add_argument("--data", type=Path, default=data, required=data is None, help="or set EDGESSL_DATA")
    parser.add_argument("--folder", type=Path, required=True, help="of encoder.py; what is missing there is made")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=count, help="images of one corruption")
    parser.add_argument("--engine", nargs="+", default=list(engines), choices=("onnxruntime", "openvino"))
    parser.add_argument("--only", nargs="+", help="names or families of contenders; `none` is always there")
    parser.add_argument("--result", type=Path, help="file to write instead of the one in benchmarks/results")
    parser.add_argument(
        "--merge", type=Path, nargs="+", help="run nothing; claims from the rows that runs with --result wrote"
    )
    return parser


def chosen(contenders: Iterable[Contender], only: Sequence[str] | None) -> list[Contender]:
    """Those that `--only` leaves, by name or family."""
    return [each for each in contenders if only is None or {each.name, each.family} & set(only)]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not isinstance(value, dict | list)}
