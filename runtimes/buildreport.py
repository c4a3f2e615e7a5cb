"""What `build` found out, as rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgessl.runtimes.plans import Machine


@dataclass(frozen=True, kw_only=True)
class BuildRow:
    """How one plan did.

    Attributes:
        role, precision: Of the graph.
        file: The graph, inside the bundle.
        typing: `strong`, or `weak` where TensorRT could choose types itself.
        ok: It was built and reached its bound.
        min_cosine, mean_cosine, knn_overlap: Of the golden vectors with the plan's; None where it was not judged.
        reason: Why it was refused.
        plan: Where it lies; empty where it was refused.
        cached: It was there already.
        build_s: Seconds that building took; 0 where it was there.
        median_ms: Of one run of the usual batch; None where it was not measured.
        chosen: What precision `auto` opens.
    """

    role: str
    precision: str
    file: str
    typing: str
    ok: bool
    min_cosine: float | None = None
    mean_cosine: float | None = None
    knn_overlap: float | None = None
    reason: str = ""
    plan: str = ""
    cached: bool = False
    build_s: float = 0.0
    median_ms: float | None = None
    chosen: bool = False

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build gave: the machine, where the plans lie, and a row per plan tried."""

    machine: Machine
    cache: Path
    rows: tuple[BuildRow, ...]

    def chosen(self, role: str) -> str:
        """The precision that `auto` opens; empty where none passed."""
        return next((row.precision for row in self.rows if row.role == role and row.chosen), "")

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        rows = [row.to_json() for row in self.rows]
        return {"machine": asdict(self.machine), "cache": str(self.cache), "rows": rows}
