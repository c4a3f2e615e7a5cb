"""The linter's rules for TensorRT beside Q/DQ: operators, types, limits, and patterns known to be compiled wrongly."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from edgessl.export.lint.limits import Site, broken
from edgessl.export.lint.target import Version, tensorrt_row
from edgessl.export.lint.view import TYPE_WORDS, View

#: rule -> what it asks
NODE_RULES = {
    "operator": "the parser of that version has the operator",
    "type": "the operator takes tensors of this type",
    "double": "no tensor is float64, which TensorRT makes float32",
    "uint8": "uint8 stands only between an input and a Cast, or a Cast and an output",
    "limit": "attributes and inputs are within the operator's limits",
    "mixed-types": "operands that must have one type have one",
    "types-known": "every tensor's type is known, so that it can be checked",
}
RISK_RULES = {
    "risk-attention": "no attention, where this version is known to compile it wrongly",
    "risk-gridsample": "no GridSample, which has been compiled wrongly",
    "risk-scatter": "no ScatterND of opset 18 before 10.9, which fixed it",
    "risk-seed": "no random operator, whose seed TensorRT ignores",
}
#: Versions with reports of wrong embeddings: NVIDIA/TensorRT#4333, #4558, #4723, #4742; TensorRT-Edge-LLM#151 (10.13).
_WRONG_ATTENTION: tuple[tuple[Version, Version], ...] = (((10, 3), (10, 7)), ((10, 13), (10, 13)))
_PARITY = "compare the embeddings on the device: `edgessl build` does, on golden samples"
#: The input whose type the table means, where it is not the first.
_DATA_INPUT = {"Where": 1, "OneHot": 2, "ConstantOfShape": None}
_NOT_JUDGED = ("QuantizeLinear", "DequantizeLinear", "If", "Loop", "Scan")
_THROUGH = ("Mul", "Div", "Add", "Cast", "QuantizeLinear", "DequantizeLinear", "Where", "Dropout", "Identity")


def node_findings(site: Site, version: Version, name: str) -> Iterator[tuple[str, str, str, str]]:
    """`(level, rule, tensor, what is wrong)` for each rule that a node breaks."""
    node = site.node
    if node.domain not in ("", "ai.onnx"):
        what = (
            f"{node.domain}.{node.op_type} is no ONNX operator; {name} takes it only with a plugin. Export without it"
        )
        yield "error", "operator", "", what
        return
    row = tensorrt_row(node.op_type, version)
    if row is None or not row.supported:
        newer = f" before TensorRT {row.since}" if row is not None and row.since else ""
        yield "error", "operator", "", f"{node.op_type} is not supported{newer}; write it with other operators"
        return
    for what in broken(site, row.limits):
        yield "error", "limit", "", what
    if "seed_ignored" in row.limits:
        yield "warning", "risk-seed", "", f"{node.op_type} gives other values in TensorRT; make the noise an input"
    yield from _types(site, row.types)
    yield from _mixed(site)


def risks(view: View, version: Version) -> Iterator[tuple[str, onnx.NodeProto, str]]:
    """`(rule, node, what to watch)` for patterns that build without a word and may compute something else."""
    attention = [node for node in view.graph.node if node.op_type == "Attention" or _is_attention(view, node)]
    if attention and any(first <= version <= last for first, last in _WRONG_ATTENTION):
        what = (
            f"{len(attention)} attentions: TensorRT {version[0]}.{version[1]} has computed vision transformers wrongly"
        )
        yield "risk-attention", attention[0], f"{what} without a warning; {_PARITY}"
    for node in view.graph.node:
        if node.op_type == "GridSample":
            yield "risk-gridsample", node, f"TensorRT has computed GridSample wrongly without a warning; {_PARITY}"
        if node.op_type == "ScatterND" and view.opset >= 18 and version < (10, 9):
            yield "risk-scatter", node, f"ScatterND of opset {view.opset} was fixed in TensorRT 10.9; {_PARITY}"


def _types(site: Site, allowed: tuple[str, ...]) -> Iterator[tuple[str, str, str, str]]:
    if site.node.op_type in _NOT_JUDGED:
        return
    for tensor in dict.fromkeys(_data(site)):
        kind = site.view.types.get(tensor, "")
        word = TYPE_WORDS.get(kind, kind)
        if not word:
            yield "warning", "types-known", tensor, "its type could not be inferred and is not checked"
        elif word == "DOUBLE":
            yield "warning", "double", tensor, "it is float64, which TensorRT computes in float32; export in float32"
        elif word == "UINT8" and site.node.op_type in ("Cast", "CastLike"):
            ends = {*site.view.inputs, *(entry.name for entry in site.view.graph.output)}
            if tensor not in ends:
                what = "uint8 in the middle of a graph; TensorRT has it only as an input or an output"
                yield "error", "uint8", tensor, what
        elif word == "UINT8":
            what = f"{site.node.op_type} takes no uint8; put a Cast to float32 right behind the input"
            yield "error", "uint8", tensor, what
            return  # the other tensors are uint8 for the same reason
        elif word not in allowed:
            yield "error", "type", tensor, f"{site.node.op_type} takes no {kind.lower()}, only {', '.join(allowed)}"


def _data(site: Site) -> list[str]:
    """Tensors whose type the table speaks of: those of the data input's type variable."""
    if site.node.op_type in ("Cast", "CastLike"):
        return [found.tensor for found in (*site.inputs[:1], *site.outputs)]
    place = _DATA_INPUT.get(site.node.op_type, 0)
    if place is None or place >= len(site.inputs):
        return [found.tensor for found in site.outputs]
    variable = site.inputs[place].variable
    return [found.tensor for found in (*site.inputs, *site.outputs) if found.variable == variable]


def _mixed(site: Site) -> Iterator[tuple[str, str, str, str]]:
    """Operands of one type variable have one type; TensorRT casts none by itself."""
    if site.node.op_type in _NOT_JUDGED:
        return
    kinds: dict[str, dict[str, str]] = {}
    for found in site.inputs:
        if kind := site.view.types.get(found.tensor, ""):
            kinds.setdefault(found.variable, {})[found.tensor] = kind
    for tensors in kinds.values():
        if len(set(tensors.values())) > 1:
            said = ", ".join(f"{name} {kind.lower()}" for name, kind in tensors.items())
            yield "error", "mixed-types", next(iter(tensors)), f"{site.node.op_type} gets {said}; cast one of them"
    pair = {site.view.types.get(name, "") for name in site.node.input}
    if site.node.op_type == "Pow" and len(pair) > 1 and all(pair):
        said = " and ".join(sorted(pair)).lower()
        yield "warning", "mixed-types", site.node.input[1], f"Pow gets {said}; give the exponent the base's type"


def _is_attention(view: View, softmax: onnx.NodeProto) -> bool:
    """A Softmax of a MatMul that a MatMul takes."""
    if softmax.op_type != "Softmax" or not softmax.input or not softmax.output:
        return False
    node, tensor = view.makers.get(softmax.input[0]), softmax.input[0]
    for _ in range(8):
        if node is None or node.op_type not in _THROUGH or not node.input:
            break
        tensor = next((name for name in node.input if name not in view.constants), tensor)
        node = view.makers.get(tensor)
    return node is not None and node.op_type == "MatMul" and _reaches_matmul(view, softmax.output[0], 6)


def _reaches_matmul(view: View, tensor: str, steps: int) -> bool:
    users = view.users.get(tensor, [])
    if any(user.op_type == "MatMul" for user in users):
        return True
    return steps > 0 and any(
        _reaches_matmul(view, user.output[0], steps - 1)
        for user in users[:4]
        if user.op_type in _THROUGH and user.output
    )
