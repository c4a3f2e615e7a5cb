"""Plans for this device: every precision of a bundle built by TensorRT, judged on the golden samples, and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgessl.bundle import PRECISIONS, Bundle, open_bundle
from edgessl.errors import EngineError, GateError, InputError, UnknownNameError
from edgessl.files import write_atomic
from edgessl.runtimes.buildreport import BuildReport, BuildRow
from edgessl.runtimes.engines.cuda import Cuda
from edgessl.runtimes.engines.tensorrt import TensorRt
from edgessl.runtimes.engines.trtbuild import PlanOptions, build_plan, memory_limits, typings
from edgessl.runtimes.engines.trtlib import load_trt
from edgessl.runtimes.planparity import Figures, feeds_of, judged
from edgessl.runtimes.plans import ENGINE, Key, Machine, PlanCache, cache_folder, graph_digests, this_machine
from edgessl.runtimes.split import Tail
from edgessl.runtimes.timing import Times, faster, interleaved

_LARGEST_BATCH = 1024
TRUSTED = "onnxruntime"  # runs the tail behind a trunk that is being judged

#: name -> run, to name -> seconds per call in every round; measured side by side
TimeRuns = Callable[[Mapping[str, Callable[[], object]]], Times]


def build(
    bundle_path: Path,
    *,
    precision: str = "auto",
    batches: tuple[int, int, int] = (1, 1, 16),
    workspace_mib: int | None = None,
    cache: Path | None = None,
    rebuild: bool = False,
    time_runs: TimeRuns = interleaved,
    say: Callable[[str], None] = lambda message: None,
) -> BuildReport:
    """Build what is not in the cache yet, judge everything, and choose.

    With `auto` every precision is tried, cheapest first, and the fastest of those that pass is chosen; where two are as
    fast, the more precise one. The trunk, for adaptation, is built in the chosen precision, or the next one that passes.

    Args:
        bundle_path: Folder that `edgessl export` wrote; it is read only.
        precision: `auto`, or the one to build.
        batches: Smallest, usual and largest batch of one run.
        workspace_mib: Scratch memory that a layer may use; None lets the machine decide.
        cache: Folder of plans; see `plans.cache_folder`.
        rebuild: Build what is in the cache too.
        time_runs: Times the plans that pass.
        say: Told what is going on.

    Raises:
        InputError: The bundle has no such precision, or the batches or the workspace cannot be.
        EngineError: TensorRT or CUDA cannot be used, or the cache cannot be written.
        GateError: Nothing passes.
    """
    if precision not in ("auto", *PRECISIONS):
        raise UnknownNameError("precision", precision, ("auto", *PRECISIONS))
    if not 1 <= batches[0] <= batches[1] <= batches[2] <= _LARGEST_BATCH:
        raise InputError(f"batches must rise from 1 to at most {_LARGEST_BATCH}, not {batches}; type --batch 1,1,16")
    if workspace_mib is not None and workspace_mib < 1:
        raise InputError(f"a workspace has at least 1 MiB, not {workspace_mib}; leave --workspace-mib out")
    bundle = open_bundle(bundle_path)
    if precision != "auto":
        bundle.graph("encoder", precision, ENGINE)  # says which there are
    trt = load_trt()
    cuda, plans = Cuda(), PlanCache(cache_folder(cache))
    plans.prepare()
    with Tail(bundle, engine=TRUSTED) as tail:
        bench = _Bench(
            trt=trt,
            cuda=cuda,
            bundle=bundle,
            tail=tail,
            plans=plans,
            machine=this_machine(trt, cuda),
            batches=batches,
            workspace_mib=workspace_mib,
            rebuild=rebuild,
            say=say,
        )
        rungs = bundle.precisions("encoder", ENGINE) if precision == "auto" else (precision,)
        tried = [attempt for rung in rungs for attempt in bench.attempts("encoder", rung)]
        passed = [attempt for attempt in tried if attempt[1].ok]
        if not passed:
            raise GateError(
                f"no plan of {bundle_path} computes what was exported on this {bench.machine.gpu} with TensorRT "
                f"{bench.machine.tensorrt}: {_refusals(tried)}. Use --engine onnxruntime, or another TensorRT"
            )
        times = _timed(bench, passed, time_runs)
        rows = _settled(bench, tried, times)
        chosen = next(row.precision for row in rows if row.chosen)
        for rung in rungs[rungs.index(chosen) :]:
            if rung not in bundle.precisions("trunk", ENGINE) or not any(row.precision == rung for _, row in passed):
                continue
            rows += _settled(bench, bench.attempts("trunk", rung), {})
            if rows[-1].ok:
                break
        bench.plans.prune({Path(row.plan).stem for row in rows if row.plan})
    return BuildReport(machine=bench.machine, cache=bench.plans.folder, rows=tuple(rows))


_Attempt = tuple[Key, BuildRow]


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What every attempt of one build shares."""

    trt: Any
    cuda: Cuda
    bundle: Bundle
    tail: Tail
    plans: PlanCache
    machine: Machine
    batches: tuple[int, int, int]
    workspace_mib: int | None
    rebuild: bool
    say: Callable[[str], None]

    def attempts(self, role: str, precision: str) -> list[_Attempt]:
        """One plan strongly typed, and where that fails on an old TensorRT one weakly typed."""
        found: list[_Attempt] = []
        for strong in typings(self.trt, precision):
            onnx, golden = graph_digests(self.bundle, role, precision)
            key = Key(
                onnx_sha256=onnx,
                golden_sha256=golden,
                role=role,
                precision=precision,
                batches=self.batches,
                workspace_mib=self.workspace_mib,
                strong=strong,
                machine=self.machine,
            )
            found.append((key, self._attempt(key)))
            if found[-1][1].ok:
                break
        return found

    def _attempt(self, key: Key) -> BuildRow:
        graph = self.bundle.graph(key.role, key.precision, ENGINE)
        row = BuildRow(
            role=key.role,
            precision=key.precision,
            file=graph.relative_to(self.bundle.path).as_posix(),
            typing="strong" if key.strong else "weak",
            ok=False,
        )
        record = None if self.rebuild else self.plans.record(key)
        if record is not None and not record.get("ok"):
            self.say(f"{key.role} {key.precision}: refused before ({record.get('reason')}); --rebuild tries again")
            return replace(row, reason=str(record.get("reason", "")), cached=True)
        seconds, content = 0.0, b""
        try:
            if record is None:
                self.say(f"building {key.role} {key.precision}, which can take minutes ...")
                began = time.perf_counter()
                content = self._built(graph, key)
                seconds = time.perf_counter() - began
            figures_now = self._judged(content or self.plans.plan(key).read_bytes(), key)
        except EngineError as error:  # not kept: memory may be there the next time
            self.say(f"refused {key.role} {key.precision}: {error}")
            return replace(row, reason=str(error), build_s=seconds)
        facts = asdict(figures_now)
        if record is None or not figures_now.ok:
            self.plans.store(key, content if figures_now.ok else None, facts)
        row = replace(row, **facts, cached=record is not None, build_s=seconds)
        if not row.ok:
            self.say(f"refused {key.role} {key.precision}: {row.reason}")
            return row
        return replace(row, plan=str(self.plans.plan(key)))

    def _built(self, graph: Path, key: Key) -> bytes:
        workspace_mib, tactic_mib = memory_limits(key.workspace_mib)
        options = PlanOptions(
            precision=key.precision,
            batches=key.batches,
            workspace_mib=workspace_mib,
            tactic_mib=tactic_mib,
            strong=key.strong,
        )
        timing = self.plans.timing(self.machine)
        known = timing.read_bytes() if timing.is_file() else b""
        plan, known = build_plan(self.trt, graph, options, known)
        write_atomic(timing, known)
        return plan

    def _judged(self, plan: bytes, key: Key) -> Figures:
        engine = TensorRt(plan, cuda=self.cuda)
        try:
            return judged(engine, self.bundle, key.role, key.precision, key.batches, self.tail)
        finally:
            engine.close()


def _timed(bench: _Bench, passed: list[_Attempt], time_runs: TimeRuns) -> Times:
    """Seconds per run of the usual batch, by digest of the key, all plans side by side."""
    samples = bench.bundle.tensors("golden", "samples")["samples"]
    rows = np.arange(bench.batches[1]) % len(samples)
    frames = np.ascontiguousarray(samples[rows])
    with ExitStack() as stack:
        runs: dict[str, Callable[[], object]] = {}
        for key, row in passed:
            engine = TensorRt(Path(row.plan), cuda=bench.cuda)
            stack.callback(engine.close)
            runs[key.digest()] = partial(engine.run, feeds_of(engine, frames))
        return time_runs(runs)


def _settled(bench: _Bench, tried: list[_Attempt], times: Times) -> list[BuildRow]:
    """The rows with their times and the choice, which is written down."""
    rows, best = [], ""
    for key, row in reversed(tried):  # the most precise first: a cheaper one must be faster
        digest = key.digest()
        if row.ok and (not best or (best in times and faster(times[digest], times[best]))):
            best = digest
    for key, row in tried:
        seconds = times.get(key.digest())
        median_ms = float(np.median(seconds)) * 1e3 if seconds else None
        rows.append(replace(row, median_ms=median_ms, chosen=key.digest() == best))
    if best:
        bench.plans.settle([key for key, _ in tried], next(key for key, _ in tried if key.digest() == best))
    return rows


def _refusals(tried: list[_Attempt]) -> str:
    return "; ".join(f"{row.precision} ({row.typing} types): {row.reason}" for _, row in tried)
