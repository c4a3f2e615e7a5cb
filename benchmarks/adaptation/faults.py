"""Figure 7: faults injected into a learner that has adapted; each is detected or harmless. And no false alarms.

    EDGESSL_DATA=/path/to/data python benchmarks/adaptation/faults.py --folder /tmp/adapt

A learner adapts to corrupted test images (severity 5), 2,048 in batches of 32. Then, from that same state, a stretch of
1,024 more passes with a fault, and 4,096 without; another time all of them without. Every frame is observed
(`observe_every=1`), so that a fault gets at everything.

Harmless: on the 4,096 frames after the fault at most half a point worse than without it. Detected: the learner says so, in
an event of a kind that it says more often than without the fault, and `frames` is how many frames of the fault had come
by then. Of `guard` are refused input, quarantine, blank frames, refused candidates, rollbacks, freezing and damaged
snapshots; of `drift` that the fault looks like another world, where nothing is learned for this one. Every rollback, and
every state that is opened after its disk was harmed, is held against the snapshot that it went back to, by SHA-256 of all
that was learned.

False alarms: see `false_alarms.py`. A clean world that shows one kind of thing for hundreds of frames is another world by
what drift is judged by; so for correlated orders it is also measured what the alarms cost.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from corruptions import Frames
from false_alarms import BLOCKS, ORDERS, false_alarms
from harness import TEST, Labels, Report, Trial, options, through
from injections import CONFIG, FAULTS, THREADS, Fault, fingerprint
from numpy.typing import NDArray
from streams import iid

import edgessl
from edgessl.errors import InputError
from edgessl.runtimes.adapt.learner import Learner
from edgessl.runtimes.encoder import Encoder

LEAD, STRETCH, AFTER, BATCH = 2048, 1024, 4096, 32
COST = 0.5  # points
GUARD = (
    "input refused",
    "quarantined",
    "refused",
    "rollback",
    "frozen",
    "failed",
    "damaged",
    "snapshot_failed",
    "blank",
)
DRIFT = ("shift", "return", "another_shift")
PLAIN = Fault(issue="none")
CORRUPTIONS = ("gaussian_noise", "contrast")


@dataclass(frozen=True, kw_only=True)
class Course:
    """A corrupted stream, and what a learner on it starts from."""

    bundle: Path
    level: str
    lead: Frames
    stretch: Frames
    stretch_labels: Labels
    after: Frames


@dataclass
class Life:
    """A learner under observation: what it served, what it said, and whether each rollback came out where it should."""

    learner: Learner
    factory: str  # fingerprint
    hashes: dict[int, str] = field(default_factory=dict)  # of snapshots as they were written
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    _seen: int = 0

    def __post_init__(self) -> None:
        self.hashes[0] = self.factory
        self._seen = len(self.learner.events)

    def observe(self, frames: Frames, batch: int) -> NDArray[np.float32]:
        """What is served for frames in batches."""
        vectors = []
        for start in range(0, len(frames), batch):
            vectors.append(self.learner.observe(frames[start : start + batch]))
            self._look()
        return np.concatenate(vectors)

    def snapshot(self) -> None:
        """Write one now."""
        self.learner.snapshot()
        self._look()

    def _look(self) -> None:
        for event in self.learner.events[self._seen :]:
            if event["kind"] == "snapshot":
                self.hashes[event["number"]] = fingerprint(self.learner)
            elif event["kind"] == "rollback":
                same = fingerprint(self.learner) == self.hashes[event["snapshot"]]
                self.rollbacks.append({key: event[key] for key in ("frame", "reason", "snapshot")} | {"same": same})
        self._seen = len(self.learner.events)


def lead(course: Course, encoder: Encoder, folder: Path) -> dict[int, str]:
    """Adapt in a folder; returns the fingerprints of all snapshots."""
    with encoder.learner(folder, level=course.level, config=CONFIG) as learner:
        life = Life(learner, fingerprint(learner))
        life.observe(course.lead, BATCH)
        life.snapshot()
    return life.hashes


def suffer(
    course: Course, encoder: Encoder, state: Path, hashes: dict[int, str], fault: Fault
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """The stretch with a fault and what comes after it, from a copy of a state.

    Returns:
        Vectors of what comes after, and what happened.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = shutil.copytree(state, Path(name) / "state")
        newest = max(hashes)
        wanted = fault.disk(course.bundle, folder, course.level, newest) if fault.disk else newest
        learner = stack.enter_context(encoder.learner(folder, level=course.level, config=CONFIG))
        opened = fingerprint(learner) == hashes[wanted]
        life, began = Life(learner, hashes[0], dict(hashes)), learner.frames
        refused = "" if fault.issue != "NaN" else _refusal(learner, course.stretch)
        within = ExitStack()
        within.enter_context(fault.within(learner) if fault.within else nullcontext())
        if fault.stays:
            stack.enter_context(within)
        with nullcontext() if fault.stays else within:
            shown = fault.show(course.stretch, course.stretch_labels) if fault.show else course.stretch
            life.observe(shown, fault.batch)
        vectors = life.observe(course.after, BATCH)
        events = [(event["kind"], event["frame"] - began) for event in learner.events]
        told: dict[str, Any] = {"events": events, "opened": opened, "rollbacks": life.rollbacks, "refused": refused}
    return vectors, told


def run(trial: Trial, encoder: Encoder, level: str, corruption: str, only: list[str] | None, report: Report) -> None:
    """All faults at one level, in one corruption."""
    order = iid(trial.labels, seed=trial.seed)
    frames, labels = trial.corrupted(corruption)[order], trial.labels[order]
    cuts = (LEAD, LEAD + STRETCH, LEAD + STRETCH + AFTER)
    first, second, third, _ = np.split(frames, cuts)
    _, stretch_labels, after_labels, _ = np.split(labels, cuts)
    course = Course(
        bundle=trial.bundle, level=level, lead=first, stretch=second, stretch_labels=stretch_labels, after=third
    )
    bank = trial.bank(encoder.engine)

    def accuracy(vectors: NDArray[np.float32]) -> float:
        return 100 * float(bank.right(vectors, after_labels).mean())

    none = accuracy(encoder.embed(third))
    with tempfile.TemporaryDirectory() as name:
        state = Path(name) / "state"
        hashes = lead(course, encoder, state)
        vectors, plain = suffer(course, encoder, state, hashes, PLAIN)
        without, usual = accuracy(vectors), Counter(kind for kind, _ in plain["events"])
        report.add(
            fault="none", level=level, corruption=corruption, accuracy=without, unadapted=none, events=dict(usual)
        )
        for fault_name, fault in FAULTS.items():
            if level not in fault.levels or (only and fault_name not in only):
                continue
            vectors, told = suffer(course, encoder, state, hashes, fault)
            points = accuracy(vectors) - without
            said = Counter(kind for kind, _ in told["events"])
            detected = {
                kind: next(frame for each, frame in told["events"] if each == kind)
                for kind in (*GUARD, *DRIFT)
                if said[kind] > usual[kind]
            }
            if told["refused"]:
                detected["input refused"] = 0
            same = told["opened"] and all(each["same"] for each in told["rollbacks"])
            report.add(
                fault=fault_name,
                issue=fault.issue,
                level=level,
                corruption=corruption,
                points=points,
                against_unadapted=accuracy(vectors) - none,
                harmless=points >= -COST,
                by=", ".join(word for word, kinds in (("guard", GUARD), ("drift", DRIFT)) if {*kinds} & {*detected}),
                frames=min(detected.values(), default=None),
                detected=detected,
                ok=bool(points >= -COST or detected),
                same_state=bool(same),
                rollbacks=told["rollbacks"],
                events=dict(said),
            )


def clean_cost(trial: Trial, encoder: Encoder, level: str, report: Report) -> None:
    """What false alarms cost: clean images in correlated orders, past a learner as it ships."""
    clean, bank = trial.clean(TEST), trial.bank(encoder.engine)
    none = bank.right(encoder.embed(clean.frames), clean.labels)
    for name, order_of in ORDERS.items():
        order = order_of(clean.labels, trial.seed)
        with tempfile.TemporaryDirectory() as folder, encoder.learner(Path(folder) / "state", level=level) as learner:
            vectors = through(learner, clean.frames[order], BATCH)
            shifts = sum(event["kind"] == "shift" for event in learner.events)
        points = 100 * float(bank.right(vectors, clean.labels[order]).mean() - none[order].mean())
        report.add(clean=name, level=level, shifts=shifts, clean_points=points)


def _refusal(learner: Learner, frames: Frames) -> str:
    """What is said of frames of the wrong type that hold NaN; nothing may have changed."""
    before = fingerprint(learner)
    try:
        learner.observe(np.where(np.arange(len(frames))[:, None, None, None] % 2, frames, np.nan))
    except InputError as error:
        return str(error) if fingerprint(learner) == before else ""
    return ""


def claims(report: Report) -> None:
    """Of the rows."""
    faults = [row for row in report.rows if row.get("issue")]
    if faults:
        missed = sorted({row["fault"] for row in faults if not row["ok"]})
        text = f"faults neither detected nor harmless ({', '.join(missed) or 'none'} of {len(faults)} runs)"
        report.claim(text, sum(not row["ok"] for row in faults), most=0)
        unsafe = [row["fault"] for row in faults if not row["harmless"] and "guard" not in row["by"]]
        text = f"cost more than {COST} points, and the guard did not see it ({', '.join(sorted({*unsafe})) or 'none'})"
        report.claim(text, len(unsafe), most=0)
        worst = min(faults, key=lambda row: row["against_unadapted"])
        where = f"{worst['fault']}, {worst['level']}, {worst['corruption']}"
        report.claim(f"points against no adaptation, worst ({where})", worst["against_unadapted"], least=-COST)
        rolled = [each for row in faults for each in row["rollbacks"]]
        wrong = sum(not each["same"] for each in rolled) + sum(not row["same_state"] for row in faults)
        text = f"states that are not those they went back to, by hash ({len(rolled)} rollbacks, {len(faults)} openings)"
        report.claim(text, wrong, most=0)
    for row in report.rows:
        if row.get("order") == "random":
            report.claim(f"false alarms in {row['blocks']} clean blocks in random order", row["false_alarms"], most=0)
    if clean := [row for row in report.rows if "clean_points" in row and row["clean"] != "random"]:
        worst = min(clean, key=lambda row: row["clean_points"])
        where = f"{worst['clean']}, {worst['level']}"
        report.claim(
            f"points lost on clean frames in correlated orders, worst ({where})", worst["clean_points"], least=-COST
        )


def main() -> None:
    parser = options(__doc__, count=LEAD + STRETCH + AFTER)
    parser.add_argument("--level", nargs="*", default=["ports", "tail"], choices=("recenter", "ports", "tail"))
    parser.add_argument("--corruption", nargs="+", default=list(CORRUPTIONS))
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="clean blocks of each order")
    parser.set_defaults(seeds=[0])
    given = parser.parse_args()
    report = Report("faults", __doc__ or "", given)
    for seed in given.seeds:
        trial = Trial(Path(given.data), given.folder, seed, given.count)
        for engine in given.engine:
            with edgessl.open(trial.bundle, engine=engine, precision="int8", threads=THREADS) as encoder:
                for level in given.level:
                    for corruption in given.corruption:
                        run(trial, encoder, level, corruption, given.only, report)
                if not given.blocks:
                    continue
                for level in ("ports", "tail"):
                    clean_cost(trial, encoder, level, report)
                clean = trial.clean(TEST)
                for row in false_alarms(encoder, clean.frames, clean.labels, given.blocks, seed):
                    report.add(seed=seed, **row)
    claims(report)
    report.write()


if __name__ == "__main__":
    main()
