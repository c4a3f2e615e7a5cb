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
from edgessl.export.draft import Draft, Floats, judged_or_reason
from edgessl.export.fold import record_fold
from edgessl.export.graphs import Graphs
from edgessl.export.ladder import Attempt, descend, formed, layers_of, where, write
from edgessl.export.layers import Layers
from edgessl.export.lint import lint
from edgessl.export.pays import timed
from edgessl.export.placement import PLACEMENTS, attention
from edgessl.export.stem import record_stem
from edgessl.export.targets import TARGETS, Target
from edgessl.export.typed import overflowing
from edgessl.runtimes.verify import ParityRow

STAND_IN = "onnxruntime"  #: judges what cannot be opened here: the same file, and slow
_STAND_IN_SAMPLES = 3  # fp16 on a CPU takes ten times as long


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Files of one precision, and what the gate said; a reason where they cannot stay."""

    files: dict[str, Kind]
    rows: list[ParityRow] = field(default_factory=list)
    vectors: dict[str, Floats] = field(default_factory=dict)
    reason: str = ""


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
    _overflowing: set[str] | None = None

    def make(self, name: str, precision: str) -> None:
        """Make the graphs of a target in one precision: judged, linted, timed; kept or left out with the reason.

        Raises:
            GateError: A precision that was asked for by name cannot be had, or fp32 is below its bound.
        """
        self.say(f"{name} {precision}")
        target = TARGETS[name]
        made = self._int8(target) if precision == "int8" else self._written(target, precision, self._fp32())
        reason = made.reason or self._linted(target, made.files)
        # fp32 is what the others are timed beside.
        if not reason and target.here and (precision != "fp32" or self.config.wanted(name) == ("fp32",)):
            reason = self._paid(target, made.files, precision)
        tried = f"{target.engine} {precision}"
        if not reason:
            self.draft.accept(made.files, made.rows, made.vectors)
            if target.here:
                form = self._forms[target.placement.name] if precision == "int8" else self.graphs
                forms = {"encoder": form.encoder, "trunk": form.trunk}
                record_fold(self.draft, self.graphs, forms, made.files, target.engine)
                record_stem(self.draft, self.graphs, forms, made.files, target.engine)
            return
        self.say(f"{tried} left out: {reason}")
        self.draft.reject(made.files, tried, reason)
        # Where the engine did not take fp32 at all, it will not on the device; where it is wrong, it would run there.
        if precision == self.config.precision or (precision == "fp32" and made.rows):
            advice = {
                "int8": "Give more calibration samples, train the encoder for it with edgessl distill --int8, or type "
                "--precision auto",
                "fp32": f"Leave {name} out of --to",
            }
            raise GateError(
                f"{precision} for {name} failed its gate: {reason}. {advice.get(precision, 'Type --precision auto')}"
            )

    def _fp32(self) -> dict[str, onnx.ModelProto]:
        return {"encoder": self.graphs.encoder, "trunk": self.graphs.trunk}

    def _written(self, target: Target, precision: str, source: dict[str, onnx.ModelProto]) -> Judged:
        """Graphs in the target's own kind of file, judged."""
        try:
            files = write(self.draft, target, source, precision, keep=set() if target.here else self._large())
        except (EngineError, GateError) as error:
            files = target.files("encoder", precision) | target.files("trunk", precision)
            return Judged(files=files, reason=str(error))
        if target.here:
            rows, vectors, reason = judged_or_reason(self.draft, files, target.engine)
            if reason and rows:
                attempt = Attempt(encoder=source["encoder"], trunk=source["trunk"])
                reason += f"; the error starts at {where(self.draft, target, self.graphs, attempt, precision)}"
        else:
            rows, vectors, reason = self._judged_by_stand_in(target, files)
        return Judged(files=files, rows=rows, vectors=vectors, reason=reason)

    def _int8(self, target: Target) -> Judged:
        """The int8 form of the target's placement, in its kind of file."""
        form = self._form(target)
        path = target.path("encoder", "int8")
        self.draft.manifest.setdefault("quantization", {})[path] = form.facts(target.placement.name)
        reason = form.reason
        if form.rows:  # else the engine refused it, wherever its numbers go
            self.layers[path] = layers_of(self.draft, target, self.graphs, form)
            if reason:
                reason += f"; the error starts at {where(self.draft, target, self.graphs, form, 'int8')}"
        if reason or target.here:
            return Judged(files=form.files, rows=form.rows, vectors=form.vectors, reason=reason)
        return self._written(target, "int8", {"encoder": form.encoder, "trunk": form.trunk})

    def _form(self, target: Target) -> Attempt:
        """The int8 form of this placement, searched for once; elsewhere written and judged again."""
        ranges = self.ranges[target.placement.name]
        form = self._forms.get(target.placement.name)
        if target.here:
            if form is None or form.reason:
                form = descend(self.draft, target, self.graphs, ranges, self.say)
        elif form is None and (alike := self._alike(target)) is not None:
            form = alike
        elif form is None or not form.rows:  # where the engine of the same placement refused it, there is no judgement
            check = replace(TARGETS["onnx"], placement=target.placement, folder=".check")
            form = descend(self.draft, check, self.graphs, ranges, self.say)
            for path in form.files:
                (self.draft.folder / path).unlink()
            (self.draft.folder / check.folder).rmdir()
        self._forms[target.placement.name] = form
        return form

    def _alike(self, target: Target) -> Attempt | None:
        """The form of a placement that rounds attention as well, without that; None where there is none, or it failed by it.

        What passed with more rounded passes with less; and the file is judged on its own all the same.
        """
        placement = target.placement
        found = next((form for name, form in self._forms.items() if PLACEMENTS[name].trained == placement.name), None)
        if found is None or not found.rows:
            return None
        if not attention(PLACEMENTS["openvino"], self.graphs.encoder):
            return found  # the placements are one here
        if found.reason:
            return None
        return formed(self.graphs, self.ranges[placement.name], placement, found)

    def _judged_by_stand_in(
        self, target: Target, files: dict[str, Kind]
    ) -> tuple[list[ParityRow], dict[str, Floats], str]:
        """What the file computes, where its engine is not at hand; the device judges the plan again."""
        # Without graphs of the engine that stands in: they would be taken for the ones to judge.
        shared = {path: kind for path, kind in self.draft.kinds.items() if kind.engine != STAND_IN}
        draft = replace(self.draft, golden=self.draft.golden.first(_STAND_IN_SAMPLES), kinds=shared)
        here = {path: kind._replace(engine=STAND_IN) for path, kind in files.items()}
        rows, _, reason = judged_or_reason(draft, here, STAND_IN)
        return [replace(row, name=f"{row.name}, in place of {target.engine}") for row in rows], {}, reason

    def _large(self) -> set[str]:
        """Nodes that fp16 could not hold; looked for once."""
        if self._overflowing is None:
            samples = self.draft.golden.samples[:_STAND_IN_SAMPLES]
            feeds = [{"frames": np.ascontiguousarray(sample[None])} for sample in samples]
            self._overflowing = overflowing(self.draft.folder / "encoder.onnx", feeds)
        return self._overflowing

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
