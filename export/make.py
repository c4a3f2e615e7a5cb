"""Graphs for one target: tried from the cheapest precision up, judged in its engine, and kept where they pay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgessl.bundle import Kind
from edgessl.errors import EngineError, GateError
from edgessl.export.calibrate import Ranges
from edgessl.export.config import ExportConfig
from edgessl.export.draft import Draft, judged_or_reason
from edgessl.export.graphs import Graphs
from edgessl.export.ladder import Attempt, descend, layers_of, where, write
from edgessl.export.layers import Layers
from edgessl.export.lint import lint
from edgessl.export.pays import timed
from edgessl.export.targets import TARGETS, Target
from edgessl.export.typed import overflowing

STAND_IN = "onnxruntime"  #: judges what cannot be opened here: the same file, and slow
_STAND_IN_SAMPLES = 4  # fp16 on a CPU takes ten times as long


@dataclass(kw_only=True)
class Maker:
    """Makes one target after the other; int8 forms are shared by targets of one placement.

    Attributes:
        draft: Where everything goes.
        graphs: fp32.
        ranges: Of their values; None where no target asks for int8.
        config: What is asked for.
        say: Told about each step.
        measured: Rows of `measured.json`.
        layers: By graph, cosine per layer with fp32.
        findings: Of the lint, by graph.
    """

    draft: Draft
    graphs: Graphs
    ranges: dict[str, Ranges]
    config: ExportConfig
    say: Callable[[str], None]
    measured: list[dict[str, Any]] = field(default_factory=list)
    layers: dict[str, Layers] = field(default_factory=dict)
    findings: list[dict[str, str]] = field(default_factory=list)
    _forms: dict[str, Attempt] = field(default_factory=dict)

    def make(self, name: str) -> None:
        """Make the graphs of a target.

        Raises:
            GateError: A precision that was asked for by name cannot be had.
        """
        target = TARGETS[name]
        for precision in self.config.wanted(name):
            self.say(f"{name} {precision}")
            self._one(target, precision)
        if self.config.precision not in ("auto", "fp32") and self.config.precision in target.precisions:
            reason = self.draft.rejected.get(f"{target.engine} {self.config.precision}")
            if reason:
                raise GateError(
                    f"{self.config.precision} for {name} failed its gate: {reason}. Give more calibration samples, train the "
                    f"encoder for it with edgessl distill --int8, or type --precision auto"
                )

    def _one(self, target: Target, precision: str) -> None:
        draft, name = self.draft, f"{target.engine} {precision}"
        if precision == "int8":
            attempt = self._form(target)
            files, reason = attempt.files, attempt.reason
            rows, vectors = attempt.rows, attempt.vectors
            if reason and attempt.rows:  # else the engine refused it, wherever its numbers go
                reason += f"; the error starts at {where(draft, target, self.graphs, attempt)}"
            draft.manifest.setdefault("quantization", {})[target.path("encoder", precision)] = attempt.facts(
                target.placement.name
            )
            if attempt.rows:
                self.layers[target.path("encoder", precision)] = layers_of(draft, target, self.graphs, attempt)
        if precision != "int8" or not target.here:
            source = {"encoder": self.graphs.encoder, "trunk": self.graphs.trunk}
            if precision == "int8":
                if reason:
                    draft.reject(files, name, reason)
                    return
                source = {"encoder": attempt.encoder, "trunk": attempt.trunk}
            try:
                files = write(draft, target, source, precision, keep=self._large() if not target.here else None)
            except (EngineError, GateError) as error:
                draft.reject(target.files("encoder", precision) | target.files("trunk", precision), name, str(error))
                return
            rows, vectors, reason = self._judged(target, files)
        reason = reason or self._linted(target, files)
        if not reason and target.here:
            reason = self._paid(target, files, precision)
        if reason:
            self.say(f"{name} left out: {reason}")
            draft.reject(files, name, reason)
        else:
            draft.accept(files, rows, vectors)

    def _form(self, target: Target) -> Attempt:
        """The int8 form of this placement, searched for once; elsewhere written and judged again."""
        ranges = self.ranges[target.placement.name]
        form = self._forms.get(target.placement.name)
        if target.here:
            if form is None or form.reason:
                form = descend(self.draft, target, self.graphs, ranges, self.say)
        elif form is None or not form.rows:  # where the engine of the same placement refused it, there is no judgement
            check = replace(TARGETS["onnx"], placement=target.placement, folder=".check")
            form = descend(self.draft, check, self.graphs, ranges, self.say)
            for path in form.files:
                (self.draft.folder / path).unlink()
            (self.draft.folder / check.folder).rmdir()
        self._forms[target.placement.name] = form
        return form

    def _judged(self, target: Target, files: dict[str, Kind]) -> Any:
        if target.here:
            return judged_or_reason(self.draft, files, target.engine)
        # Without graphs of the engine that stands in: they would be taken for the ones to judge.
        shared = {path: kind for path, kind in self.draft.kinds.items() if kind.engine != STAND_IN}
        draft = replace(self.draft, golden=self.draft.golden.first(_STAND_IN_SAMPLES), kinds=shared)
        here = {path: kind._replace(engine=STAND_IN) for path, kind in files.items()}
        rows, _, reason = judged_or_reason(draft, here, STAND_IN)
        return [replace(row, name=f"{row.name}, in place of {target.engine}") for row in rows], {}, reason

    def _large(self) -> set[str]:
        """Nodes that fp16 could not hold."""
        samples = self.draft.golden.samples[:_STAND_IN_SAMPLES]
        feeds = [{"frames": np.ascontiguousarray(sample[None])} for sample in samples]
        return overflowing(self.draft.folder / "encoder.onnx", feeds)

    def _linted(self, target: Target, files: dict[str, Kind]) -> str:
        """Errors of a file that another machine will build from; findings are kept."""
        wrong = []
        for path in files:
            if Path(path).suffix != ".onnx":
                continue
            model = onnx.load(self.draft.folder / path)
            for check in self.config.lint_for:
                if check.partition(":")[0] != target.engine:
                    continue
                found = lint(model, check)
                self.findings += [finding.to_json() | {"file": path, "target": check} for finding in found]
                wrong += [f"{path}: {each.message}" for each in found if each.level == "error"]
        return "; ".join(wrong[:3])

    def _paid(self, target: Target, files: dict[str, Kind], precision: str) -> str:
        rows, pays = timed(self.draft, files, target.engine)
        known = {(row["file"], row["engine"]) for row in self.measured}
        self.measured += [row for row in rows if (row["file"], row["engine"]) not in known]
        if pays or precision == "fp32" or self.config.precision != "auto":
            return ""
        slow = {row["role"]: row["ratio_to_fp32"] for row in rows if row["file"] in files}
        said = ", ".join(f"its {role} takes {ratio:.2f} of fp32's time" for role, ratio in slow.items())
        return f"it does not pay on this machine: {said}"
