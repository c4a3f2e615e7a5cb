"""Does a precision pay on this machine? Graphs timed side by side, one sample at a time, as a robot embeds."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgessl.bundle import Kind
from edgessl.export.draft import Draft
from edgessl.runtimes.engines import Engine, open_engine
from edgessl.runtimes.timing import compare, faster, interleaved

_BUDGET_S = 2.0  # per target and precision
_ROUNDS = 15
_NOISE = 1.03  # a trunk may seem that much slower before it is


def timed(draft: Draft, files: dict[str, Kind], engine: str) -> tuple[list[dict[str, Any]], bool]:
    """Time graphs beside their fp32 forms in the same engine.

    Args:
        draft: Has the fp32 graphs.
        files: Graphs of one engine and precision, an encoder among them.
        engine: Runs all of them.

    Returns:
        A row per graph for `measured.json`, and whether the encoder is faster than in fp32 and the trunk no slower.
    """
    bundle = draft.bundle(files)
    opened: dict[str, Engine] = {}
    own = "" if any(kind.precision == "fp32" for kind in files.values()) else engine
    fp32 = {role: bundle.graph(role, "fp32", own).relative_to(draft.folder).as_posix() for role in ("encoder", "trunk")}
    graphs = {path: kind for path, kind in files.items() if kind.role in fp32}
    try:
        for path in (*fp32.values(), *graphs):
            opened[path] = open_engine(engine, draft.folder / path)
        times = interleaved(
            {path: _run(graph, draft) for path, graph in opened.items()}, rounds=_ROUNDS, budget_s=_BUDGET_S
        )
    finally:
        for graph in opened.values():
            graph.close()
    rows, pays = [], True
    for role, base in fp32.items():
        group = {path: times[path] for path in (base, *(path for path, kind in graphs.items() if kind.role == role))}
        for path, row in compare(group, baseline=base).items():
            precision = "fp32" if path == base else graphs[path].precision
            facts = {"file": path, "role": role, "engine": engine, "precision": precision, "batch": 1}
            rows.append(facts | {"median_ms": round(row.median_ms, 4), "ratio_to_fp32": round(row.ratio, 4)})
            if path != base:
                pays &= faster(times[path], times[base]) if role == "encoder" else row.ratio < _NOISE
    return rows, pays


def _run(graph: Engine, draft: Draft) -> Callable[[], object]:
    feeds = {"frames": np.ascontiguousarray(draft.golden.samples[:1])}
    for index, port in enumerate(draft.manifest["split"]["ports"]):
        if f"port{index}.scale" in graph.inputs:
            feeds[f"port{index}.scale"] = np.ones(port["channels"], np.float32)
            feeds[f"port{index}.shift"] = np.zeros(port["channels"], np.float32)
    return lambda: graph.run(feeds)


def machine() -> str:
    """What the times were taken on."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else model
