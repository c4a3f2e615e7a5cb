"""The operators of an ONNX file, read from its bytes without the onnx package."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_GRAPH, _NODE = 7, 1  # fields of ModelProto and GraphProto (onnx.proto)
_INPUT, _OUTPUT, _OP_TYPE = 1, 2, 4  # of NodeProto
_INTEGER_PRODUCTS = (
    "ConvInteger",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QAttention",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
)
_PRODUCTS = ("Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul", "NhwcFusedConv")
_PASSES_ON = ("Reshape", "Transpose", "ReorderInput")  # what may stand between numbers and their scale


@dataclass(frozen=True)
class Node:
    """One operator, and the names of what it reads and gives."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def nodes(content: bytes) -> Iterator[Node]:
    """Operators of a serialized model's graph, in its order.

    Raises:
        ValueError: It is no serialized message.
    """
    for field, graph in _fields(memoryview(content)):
        for inner, node in _fields(graph) if field == _GRAPH else ():
            if inner == _NODE:
                yield _node(node)


def count_products(content: bytes) -> dict[str, int]:
    """Convolutions and matrix products by what they compute in, as in `Engine.fused`."""
    graph = list(nodes(content))
    made_by = {name: node for node in graph for name in node.outputs}
    count = {"int8": 0, "float": 0, "unfused_dequantize": 0}
    for node in graph:
        if node.op in _INTEGER_PRODUCTS:
            count["int8"] += 1
        elif node.op in _PRODUCTS:
            count["float"] += 1
            count["unfused_dequantize"] += sum(_is_dequantized(name, made_by) for name in node.inputs[:2])
    return count


def _is_dequantized(name: str, made_by: dict[str, Node]) -> bool:
    node = made_by.get(name)
    while node is not None and node.op in _PASSES_ON:
        node = made_by.get(node.inputs[0])
    return node is not None and node.op == "DequantizeLinear"


def _node(content: memoryview) -> Node:
    inputs, outputs, op = [], [], ""
    for field, value in _fields(content):
        if field == _INPUT:
            inputs.append(bytes(value).decode())
        elif field == _OUTPUT:
            outputs.append(bytes(value).decode())
        elif field == _OP_TYPE:
            op = bytes(value).decode()
    return Node(op, tuple(inputs), tuple(outputs))


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of the fields that have a length; the others are passed over."""
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        size, wire = 0, tag & 7
        if wire == 0:
            _, at = _varint(content, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, at = _varint(content, at)
            yield tag >> 3, content[at : at + size]
            at += size
        else:
            raise ValueError(f"no ONNX file: a field has wire type {wire}")
        if at > len(content):
            raise ValueError("no ONNX file: it ends inside a field")


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(content):
        byte = content[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
    raise ValueError("no ONNX file: a number does not end")
