"""Judge an ONNX file for an engine and its version before anything is built: `edgessl lint`.

TensorRT's operators, types and limits stand in `data/tensorrt_ops.json`, with their sources. A version between two tables has
the older row until the version that changed it; a version that the tables do not know yet is judged by the newest, with a
warning. A clean file can still fail to build: only the device can say that it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from edgessl.errors import InputError
from edgessl.export.lint.limits import Site
from edgessl.export.lint.qdq import QDQ_RULES, qdq_broken
from edgessl.export.lint.target import Target, onnxruntime_limits, parse_target, tensorrt_opsets, tensorrt_table
from edgessl.export.lint.tensorrt import NODE_RULES, RISK_RULES, node_findings, risks
from edgessl.export.lint.view import View, views

__all__ = ["INVALID", "RULES", "Finding", "Report", "lint", "lint_report", "read_model"]

FILE_RULES = {
    "invalid": "the file is a valid ONNX graph",
    "version": "the tables know the engine's version",
    "opset": "the engine takes the opset",
    "ir-version": "the engine takes the IR version",
    "local-functions": "no local functions",
    "external-data": "weights are in the file, or beside it under a plain name",
}
_DOMAIN_RULES = {"domain": "operators are those of ONNX", "operator": "the engine has the operator"}

#: engine -> rule -> what it asks
RULES: dict[str, dict[str, str]] = {
    "tensorrt": {**FILE_RULES, **NODE_RULES, **QDQ_RULES, **RISK_RULES},
    "onnxruntime": {**FILE_RULES, **_DOMAIN_RULES},
    "openvino": {**FILE_RULES, **_DOMAIN_RULES},
}
#: What onnx raises on a graph that is not valid.
INVALID = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError, TypeError)
_LARGE = 2**16  # bytes of a tensor that is a weight, and no shape or scale
_OPENVINO_REFUSES = ("MaxUnpool",)  # 2026.4, tried


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, or may be.

    Attributes:
        rule: A key of `RULES[engine]`.
        level: "error": it will not build or not compute the same. "warning": it may.
        node: The node's name and operator.
        tensor: The tensor at fault, where it is one.
        message: What is wrong and what to do.
    """

    rule: str
    level: str
    node: tuple[str, str] = ("", "")
    tensor: str = ""
    message: str

    def to_json(self) -> dict[str, str]:
        """Plain values."""
        facts = asdict(self)
        name, operator = facts.pop("node")
        return {**facts, "node": name, "operator": operator}


@dataclass(frozen=True, kw_only=True)
class Report:
    """Findings, and how much was looked at."""

    target: Target
    findings: tuple[Finding, ...]
    nodes: int
    rules: int

    @property
    def errors(self) -> int:
        """Findings of level error."""
        return sum(finding.level == "error" for finding in self.findings)


def lint(model: onnx.ModelProto | Path, target: str) -> list[Finding]:
    """What of a graph an engine will refuse or may get wrong.

    Args:
        model: A graph, or the file it is in.
        target: `tensorrt:10.3`, `jetpack:6.2`, `onnxruntime:1.20`, `openvino`.

    Raises:
        InputError: There is no such file, or it is no ONNX file.
        UnknownNameError: There is no such target.
    """
    return list(lint_report(model, target).findings)


def lint_report(model: onnx.ModelProto | Path, target: str) -> Report:
    """As `lint`, with the numbers of nodes and rules that were checked."""
    parsed = parse_target(target)
    folder = model.parent if isinstance(model, Path) else None
    proto = read_model(model) if isinstance(model, Path) else model
    nodes, findings = _checked(proto, parsed, folder)
    return Report(target=parsed, findings=tuple(dict.fromkeys(findings)), nodes=nodes, rules=len(RULES[parsed.engine]))


def read_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file without the data files beside it.

    Raises:
        InputError: There is no such file, or it is no ONNX file.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; type the path of an .onnx file")
    try:
        model: onnx.ModelProto = onnx.load_model_from_string(path.read_bytes())
    except (DecodeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is no ONNX file, or it is cut off: {error}. Copy or export it again") from error
    if not model.graph.node or not model.opset_import:
        raise InputError(f"{path} holds no ONNX graph; copy or export it again")
    return model


def _checked(model: onnx.ModelProto, target: Target, folder: Path | None) -> tuple[int, list[Finding]]:
    findings = [*_file(model, target), *_external(model, folder)]
    findings += [Finding(rule="local-functions", level="error", message=message) for message in _functions(model)]
    try:
        inferred = _inferred(model)
    except INVALID as error:
        said = " ".join(str(error).split())[:300]
        findings.append(Finding(rule="invalid", level="error", message=f"not a valid graph: {said}"))
        return 0, findings
    nodes = 0
    for view in views(inferred):
        nodes += len(view.graph.node)
        findings += _tensorrt(view, target) if target.engine == "tensorrt" else _general(view, target)
    return nodes, findings


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Checked, and with the types of all tensors.

    What large tensors hold decides nothing, and moving it takes longer than all else; what lies in a data file, the checker would
    look for in the working folder. Both stand as inputs meanwhile.
    """
    graph = model.graph
    aside = [tensor for tensor in graph.initializer if _is_large(tensor)]
    plain = onnx.ModelProto(ir_version=model.ir_version)
    plain.opset_import.extend(model.opset_import)
    plain.functions.extend(model.functions)
    plain.graph.name = graph.name
    for field in ("node", "input", "output", "value_info", "sparse_initializer", "quantization_annotation"):
        getattr(plain.graph, field).extend(getattr(graph, field))
    plain.graph.initializer.extend(tensor for tensor in graph.initializer if not _is_large(tensor))
    given = {entry.name for entry in graph.input}
    stand_ins = [
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in aside
        if tensor.name not in given
    ]
    plain.graph.input.extend(stand_ins)
    onnx.checker.check_model(plain)
    inferred = onnx.shape_inference.infer_shapes(plain, data_prop=True)
    if stand_ins:
        del inferred.graph.input[-len(stand_ins) :]
    inferred.graph.initializer.extend(aside)
    return inferred


def _is_large(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.raw_data) > _LARGE


def _file(model: onnx.ModelProto, target: Target) -> Iterator[Finding]:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if target.newer:
        newest = tensorrt_table()["newest"]
        message = f"{target.name} is newer than the newest known, {newest}, and is judged by that"
        yield Finding(rule="version", level="warning", message=message)
    if target.engine == "tensorrt" and target.version is not None:
        first, last = tensorrt_opsets(target.version)
        if not first <= opset <= last:
            message = f"opset {opset}; {target.name} takes {first} to {last}. Export with opset_version={last}"
            yield Finding(rule="opset", level="error", message=message)
    limits = onnxruntime_limits(target.version) if target.engine == "onnxruntime" else None
    if limits is not None:
        if opset > limits[0]:
            message = f"opset {opset}; {target.name} takes up to {limits[0]}. Export with opset_version={limits[0]}"
            yield Finding(rule="opset", level="error", message=message)
        if model.ir_version > limits[1]:
            message = f"IR version {model.ir_version}; {target.name} takes up to {limits[1]}. Set model.ir_version"
            yield Finding(rule="ir-version", level="error", message=message)


def _functions(model: onnx.ModelProto) -> Iterator[str]:
    if model.functions:
        names = ", ".join(function.name for function in model.functions[:3])
        yield f"{len(model.functions)} local functions ({names}); inline them with onnx.inliner.inline_local_functions"


def _external(model: onnx.ModelProto, folder: Path | None) -> Iterator[Finding]:
    places = {
        entry.value: tensor.name
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for place, tensor in places.items():
        if Path(place).is_absolute() or ".." in Path(place).parts or "\\" in place or "\0" in place:
            message = f"its data file {place!r} lies outside the graph's folder; do not use this file"
            yield Finding(rule="external-data", level="error", tensor=tensor, message=message)
        elif folder is not None and not (folder / place).is_file():
            message = f"its data file {place!r} is not beside the graph; copy it too"
            yield Finding(rule="external-data", level="error", tensor=tensor, message=message)
        else:
            message = f"weights are in {place!r}: it must travel with the graph, and its values are not checked"
            yield Finding(rule="external-data", level="warning", tensor=tensor, message=message)


def _tensorrt(view: View, target: Target) -> Iterator[Finding]:
    version = target.version or (0, 0)
    for node in view.graph.node:
        site = Site(view, node)
        where = (node.name, node.op_type)
        for level, rule, tensor, message in node_findings(site, version, target.name):
            yield Finding(rule=rule, level=level, node=where, tensor=tensor, message=message)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not node.domain:
            for level, rule, message in qdq_broken(site):
                tensor = node.input[0] if node.input else ""
                yield Finding(rule=rule, level=level, node=where, tensor=tensor, message=message)
    for rule, node, message in risks(view, version):
        yield Finding(rule=rule, level="warning", node=(node.name, node.op_type), message=message)


def _general(view: View, target: Target) -> Iterator[Finding]:
    for node in view.graph.node:
        where = (node.name, node.op_type)
        if node.domain not in ("", "ai.onnx"):
            level = "warning" if node.domain == "com.microsoft" else "error"
            message = f"{node.domain}.{node.op_type} is no ONNX operator; {target.engine} may not have it"
            yield Finding(rule="domain", level=level, node=where, message=message)
        training = Site(view, node).value("training_mode") if node.op_type == "Dropout" else None
        if target.engine == "openvino" and (
            node.op_type in _OPENVINO_REFUSES or (training is not None and training.any())
        ):
            message = f"openvino does not run {node.op_type} {'in training mode' * (training is not None)}".rstrip()
            yield Finding(
                rule="operator", level="error", node=where, message=f"{message}; write it with other operators"
            )
