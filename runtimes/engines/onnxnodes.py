"""The operators of an ONNX file, read from its bytes without the onnx package."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgessl.runtimes.wire import fields

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
    for field in fields(memoryview(content)):
        for inner in fields(field.value) if field.number == _GRAPH else ():
            if inner.number == _NODE:
                yield _node(inner.value)


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
    for field in fields(content):
        if field.number == _INPUT:
            inputs.append(bytes(field.value).decode())
        elif field.number == _OUTPUT:
            outputs.append(bytes(field.value).decode())
        elif field.number == _OP_TYPE:
            op = bytes(field.value).decode()
    return Node(op, tuple(inputs), tuple(outputs))
