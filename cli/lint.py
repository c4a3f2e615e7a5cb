"""`edgessl lint`: would an engine take this graph, and compute the same?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgessl.cli.options import Json
from edgessl.cli.output import result, table
from edgessl.errors import GateError, InputError, MissingExtraError

EXAMPLE = "edgessl lint robot.edgessl --for tensorrt:10.3"

_SHOWN = 40  # findings per graph that are printed; --json has all


def lint(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An .onnx file, or a bundle: its graphs for TensorRT.")],
    targets: Annotated[
        list[str],
        typer.Option("--for", help="tensorrt:10.3, jetpack:6.2, onnxruntime:1.20 or openvino; may be given again."),
    ],
    as_json: Json = False,
) -> None:
    """Judge a graph for an engine before it is built there.

    Operators, types, opset, limits, Q/DQ. Exit code 3: an engine would refuse it. A clean graph can still fail to
    build; only the device can say.
    """
    try:
        from edgessl.export.lint import lint_report
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise MissingExtraError("onnx", "export") from error

    facts: list[dict[str, Any]] = []
    lines: list[str] = []
    wrong: list[str] = []
    for target in dict.fromkeys(targets):
        for path in _graphs(file, target):
            report = lint_report(path, target)
            name = str(path.relative_to(file)) if path != file else path.name
            rows = [finding.to_json() for finding in report.findings]
            counted = {"nodes": report.nodes, "rules": report.rules, "errors": report.errors}
            facts.append({"file": name, "for": target, **counted, "findings": rows})
            lines.append(f"{name} for {target}: {_summary(report.nodes, report.rules, report.errors, len(rows))}")
            if rows:
                lines.append(table(sorted(rows, key=lambda row: row["level"])[:_SHOWN]))
            if len(rows) > _SHOWN:
                lines.append(f"... {len(rows) - _SHOWN} more; type --json for all")
            if report.errors:
                wrong.append(f"{name} for {target} ({report.errors})")
    result(facts, "\n".join(lines), as_json=as_json)
    if wrong:
        raise GateError(f"errors in {', '.join(wrong)}. The messages above say what to change; then export again")


def _summary(nodes: int, rules: int, errors: int, findings: int) -> str:
    counted = f"{nodes} nodes, {rules} rules"
    if not findings:
        return f"clean: {counted}"
    warnings = findings - errors
    return f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}: {counted}"


def _graphs(path: Path, target: str) -> list[Path]:
    """The file itself, or the bundle's graphs that the target's engine opens."""
    if not path.is_dir():
        return [path]
    from edgessl.bundle import open_bundle
    from edgessl.export.lint.target import parse_target

    engine = parse_target(target).engine
    graphs = [found.path for found in open_bundle(path).graphs() if found.engine in ("", engine)]
    found = [path / name for name in graphs if name.endswith(".onnx")]
    if not found:
        raise InputError(f"{path} has no ONNX graph for {engine}; name an .onnx file")
    return found
