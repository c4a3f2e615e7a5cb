"""The operators of an ONNX file and its ends, read from its bytes without the onnx package."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgessl.runtimes.engines.base import TensorInfo
from edgessl.runtimes.wire import fields, numbers

_GRAPH, _NODE = 7, 1  # fields of ModelProto and GraphProto (onnx.proto)
_INPUT, _OUTPUT, _OP_TYPE = 1, 2, 4  # of NodeProto
_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12  # of GraphProto
_TENSOR_NAME = 8  # of TensorProto
_NAME, _TYPE = 1, 2  # of ValueInfoProto
_TENSOR_TYPE = 1  # of TypeProto
_ELEMENT, _SHAPE = 1, 2  # of TypeProto.Tensor
_DIM, _DIM_VALUE = 1, 1  # of TensorShapeProto and of its Dimension
#: TensorProto.DataType -> dtype
_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}
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


def ends(content: bytes) -> tuple[dict[str, TensorInfo], dict[str, TensorInfo]]:
    """Inputs and outputs of a serialized model's graph.

    Raises:
        ValueError: It is no serialized message, its graph has no output, or one of its ends is no array.
    """
    initializers: set[str] = set()
    inputs: dict[str, TensorInfo] = {}
    outputs: dict[str, TensorInfo] = {}
    for part in fields(memoryview(content)):
        for field in fields(part.value) if part.number == _GRAPH else ():
            if field.number == _INITIALIZER:
                initializers |= {_text(inner.value) for inner in fields(field.value) if inner.number == _TENSOR_NAME}
            elif field.number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
                info = _tensor_info(field.value)
                (inputs if field.number == _GRAPH_INPUT else outputs)[info.name] = info
    if not outputs:
        raise ValueError("it is no ONNX file: it has no output")
    # Older files list what is constant among the inputs as well.
    return {name: info for name, info in inputs.items() if name not in initializers}, outputs


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


def _tensor_info(content: memoryview) -> TensorInfo:
    parts = {field.number: field.value for field in fields(content)}
    name = _text(parts.get(_NAME, memoryview(b"")))
    kinds = {field.number: field.value for field in fields(parts.get(_TYPE, memoryview(b"")))}
    if _TENSOR_TYPE not in kinds:
        raise ValueError(f"{name!r} is no array")
    tensor = kinds[_TENSOR_TYPE]
    elements = numbers(tensor, _ELEMENT)
    if not elements or elements[-1] not in _DTYPES:
        raise ValueError(f"{name!r} is of ONNX type {elements}, which numpy does not have")
    dims = [
        [*numbers(dim.value, _DIM_VALUE), None][0]
        for shape in fields(tensor)
        if shape.number == _SHAPE
        for dim in fields(shape.value)
        if dim.number == _DIM
    ]
    return TensorInfo(name=name, dtype=_DTYPES[elements[-1]], shape=tuple(dims))


def _text(content: memoryview) -> str:
    return bytes(content).decode()
