"""Plans of TensorRT in a cache on the device: found by what they were built from, on what, and how; never by name.

A bundle is signed and may lie on a read-only disk, and a plan runs on one kind of machine, so plans live elsewhere. Each is
`DIGEST.plan` with `DIGEST.json` beside it, the digest being that of the key. A plan counts where its record is whole, its
key is today's, its bytes have the digest that the record says, and it passed parity. Anything else is as good as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgessl.bundle import Bundle, signed
from edgessl.errors import EngineError
from edgessl.files import sha256_of, write_atomic
from edgessl.runtimes.engines.cuda import Cuda
from edgessl.runtimes.engines.trtlib import load_trt

ENGINE = "tensorrt"
KEEP = 16  # records; a bundle has four
CACHE_VARIABLE = "EDGESSL_CACHE"
L4T = Path("/etc/nv_tegra_release")

_FORMAT = 1
_KEEP_TIMINGS = 3  # machines, which is as many TensorRT as share a home


@dataclass(frozen=True, kw_only=True)
class Machine:
    """All that a plan depends on beside its graph and its options."""

    tensorrt: str
    gpu: str
    compute_capability: str
    l4t: str
    cuda_runtime: str
    cuda_driver: str


@dataclass(frozen=True, kw_only=True)
class Key:
    """What a plan was built from, on what, and how.

    Attributes:
        onnx_sha256: Of the graph.
        golden_sha256: Of the samples that the plan was judged by.
        role, precision: Of the graph.
        batches: Smallest, usual and largest.
        workspace_mib: As asked for; None for a limit that follows the machine.
        strong: Strongly typed.
    """

    onnx_sha256: str
    golden_sha256: str
    role: str
    precision: str
    batches: tuple[int, int, int]
    workspace_mib: int | None
    strong: bool
    machine: Machine

    def digest(self) -> str:
        """The name of its files."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


def this_machine(trt: Any, cuda: Cuda, l4t: Path = L4T) -> Machine:
    """What plans of this machine depend on."""
    return Machine(
        tensorrt=str(trt.__version__),
        gpu=cuda.device,
        compute_capability=cuda.compute_capability,
        l4t=l4t.read_text(errors="replace").strip().split("\n")[0] if l4t.is_file() else "",
        cuda_runtime=cuda.runtime,
        cuda_driver=cuda.driver,
    )


def cache_folder(given: Path | None = None) -> Path:
    """`given`, or `$EDGESSL_CACHE`, or `~/.cache/edgessl/engines`."""
    named = os.environ.get(CACHE_VARIABLE)
    return given or (Path(named) if named else Path.home() / ".cache" / "edgessl" / "engines")


def graph_digests(bundle: Bundle, role: str, precision: str) -> tuple[str, str]:
    """Digests of the graph that TensorRT builds from, and of the golden samples, as the manifest says them."""
    file = bundle.graph(role, precision, ENGINE).relative_to(bundle.path).as_posix()
    by_path = {artefact.path: artefact.sha256 for artefact in bundle.artefacts}
    golden = [artefact.sha256 for artefact in bundle.artefacts if artefact.role == "golden"]
    return by_path[file], golden[0] if golden else ""


class PlanCache:
    """The folder of plans and records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def plan(self, key: Key) -> Path:
        """Where the plan of `key` lies, or would."""
        return self.folder / f"{key.digest()}.plan"

    def record(self, key: Key) -> dict[str, Any] | None:
        """What is known about the plan of `key`; None where there is none, or where it or the plan is damaged."""
        record = _read(self.folder / f"{key.digest()}.json")
        if record is None or record["key"] != _plain(key):
            return None
        return record if _whole(self.plan(key), record) else None

    def prepare(self) -> None:
        """Make the folder, before anything is built that would lie in it.

        Raises:
            EngineError: It cannot be made, or not be written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        if not os.access(self.folder, os.W_OK):
            raise self._unwritable("it is read-only")

    def store(self, key: Key, plan: bytes | None, facts: Mapping[str, Any]) -> None:
        """Write a plan and its record, the record last; None for a plan that must not be used.

        Raises:
            EngineError: The folder cannot be written.
        """
        try:
            place = self.plan(key)
            if plan is None:
                place.unlink(missing_ok=True)
            else:
                write_atomic(place, plan)
            sha256 = hashlib.sha256(plan).hexdigest() if plan is not None else ""
            record = {"format": _FORMAT, "key": _plain(key), "plan_sha256": sha256, **facts}
            write_atomic(place.with_suffix(".json"), (json.dumps(signed(record), indent=2) + "\n").encode())
        except OSError as error:
            raise self._unwritable(error) from error

    def find(self, bundle: Bundle, role: str, precision: str, machine: Machine) -> dict[str, Any] | None:
        """The record of the plan to use, by the last build that passed on this machine; `plan` is its path."""
        onnx, golden = graph_digests(bundle, role, precision)
        wanted: dict[str, Any] = {"onnx_sha256": onnx, "golden_sha256": golden, "role": role, "precision": precision}
        wanted["machine"] = asdict(machine)
        for file in self._newest_first("*.json"):
            record = _read(file)
            if record is None or not record.get("ok") or record.get("superseded"):
                continue
            if not wanted.items() <= record["key"].items():
                continue
            plan = file.with_suffix(".plan")
            if _whole(plan, record):
                return record | {"plan": plan}
        return None

    def settle(self, built: Sequence[Key], chosen: Key) -> None:
        """Make the last build the one that counts.

        Args:
            built: Keys of one role that the build went over; plans of the same precisions with other options step back,
                and stay for a build that asks for them again.
            chosen: What opening in precision `auto` takes from now on.
        """
        same: dict[str, Any] = {"role": chosen.role, "golden_sha256": chosen.golden_sha256}
        same["machine"] = asdict(chosen.machine)
        digests, precisions = {key.digest() for key in built}, {key.precision for key in built}
        for file in self._newest_first("*.json"):
            record = _read(file)
            if record is None or not same.items() <= record["key"].items():
                continue
            now = {
                "chosen": file.stem == chosen.digest(),
                "superseded": file.stem not in digests
                and (record["key"].get("precision") in precisions or bool(record.get("superseded"))),
            }
            if not now.items() <= record.items():
                write_atomic(file, (json.dumps(signed(record | now), indent=2) + "\n").encode())

    def touch(self, plan: Path) -> None:
        """Remember that a plan was used, so that others go before it."""
        with contextlib.suppress(OSError):  # a folder that is read-only loses nothing either
            os.utime(plan.with_suffix(".json"))

    def prune(self, keep: set[str]) -> None:
        """Delete the records used longest ago, with their plans, until `KEEP` are left.

        Args:
            keep: Digests that stay, whatever their age.
        """
        records = [file for file in self._newest_first("*.json") if file.stem not in keep]
        for file in records[max(KEEP - len(keep), 0) :]:
            file.unlink(missing_ok=True)  # first, because a plan without a record is never used
            file.with_suffix(".plan").unlink(missing_ok=True)
        for file in self._newest_first("timing-*.cache")[_KEEP_TIMINGS:]:
            file.unlink(missing_ok=True)

    def timing(self, machine: Machine) -> Path:
        """What builds on this machine have found out about kernels."""
        digest = hashlib.sha256(json.dumps(asdict(machine), sort_keys=True).encode()).hexdigest()[:32]
        return self.folder / f"timing-{digest}.cache"

    def _unwritable(self, why: object) -> EngineError:
        return EngineError(
            f"plans cannot be kept in {self.folder}: {why}; choose another folder with --cache DIR or {CACHE_VARIABLE}"
        )

    def _newest_first(self, pattern: str) -> list[Path]:
        aged = []
        for file in self.folder.glob(pattern):
            with contextlib.suppress(FileNotFoundError):  # another process has just pruned it
                aged.append((file.stat().st_mtime_ns, file))
        return [file for _, file in sorted(aged, reverse=True)]


def plan_for(
    bundle: Bundle, role: str, precision: str, *, cache: Path | None = None, machine: Machine | None = None
) -> Path:
    """The verified plan of one of the bundle's graphs on this machine.

    Args:
        bundle: An opened bundle.
        role: `encoder` or `trunk`.
        precision: Of the graph.
        cache: Folder of plans; see `cache_folder`.
        machine: What it must have been built on; looked at when it is None.

    Raises:
        EngineError: There is no such plan, or none that still counts; says what to type.
    """
    plans = PlanCache(cache_folder(cache))
    machine = machine or this_machine(load_trt(), Cuda())
    record = plans.find(bundle, role, precision, machine)
    if record is None:
        raise EngineError(
            f"there is no plan for {role} {precision} of {bundle.path} on this {machine.gpu} with TensorRT "
            f"{machine.tensorrt}; type: edgessl build {bundle.path}"
        )
    plan: Path = record["plan"]
    plans.touch(plan)
    return plan


def precisions_built(
    bundle: Bundle, role: str, *, cache: Path | None = None, machine: Machine | None = None
) -> tuple[str, ...]:
    """Precisions that have a plan here, the one that `edgessl build` chose first, then cheapest first.

    Raises:
        EngineError: TensorRT cannot be used.
    """
    plans = PlanCache(cache_folder(cache))
    machine = machine or this_machine(load_trt(), Cuda())
    precisions = bundle.precisions(role, ENGINE)
    records = {precision: plans.find(bundle, role, precision, machine) for precision in precisions}
    built = [(not record.get("chosen"), precision) for precision, record in records.items() if record]
    return tuple(precision for _, precision in sorted(built, key=lambda entry: entry[0]))


def _plain(key: Key) -> dict[str, Any]:
    return dict(json.loads(json.dumps(asdict(key))))


def _whole(plan: Path, record: Mapping[str, Any]) -> bool:
    if not record["plan_sha256"]:
        return True  # a refusal has no plan
    return plan.is_file() and sha256_of(plan) == record["plan_sha256"]


def _read(file: Path) -> dict[str, Any] | None:
    """A record that is whole and of this format; else None, as if it were not there."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        known = record["format"] == _FORMAT and record["sha256"] == signed(record)["sha256"]
        whole = known and isinstance(record["key"], dict) and isinstance(record["plan_sha256"], str)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return dict(record) if whole else None
