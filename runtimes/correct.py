"""An affine correction behind an ONNX file's vectors, without the onnx package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import BundleError
from edgessl.runtimes.wire import Field, encoded, encoded_integer, fields, graph_of, replaced

_NODE, _INITIALIZER, _GRAPH_OUTPUT = 1, 5, 12  # of GraphProto (onnx.proto)
_INPUT, _OUTPUT, _NODE_NAME, _OP_TYPE = 1, 2, 3, 4  # of NodeProto
_DIMS, _TYPE, _TENSOR_NAME, _RAW = 1, 2, 8, 9  # of TensorProto
_FLOAT = 1  # TensorProto.DataType
_VALUE_NAME = 1  # of ValueInfoProto
_VECTORS, _OWN = b"vectors", "learned.affine"
TINY = 1e-12  #: least length to divide by: a vector that becomes zero stays zero
#: operator, what it reads, what it gives; two, since a small graph pays for each by the microsecond. Lengths are along the last
#: axis and of the second order, as both are unless they are told otherwise, and a vector of zeros stays one.
_STEPS = (
    ("Gemm", ("before", "matrix", "shift"), "sum"),
    ("LpNormalization", ("sum",), ""),
)
_LAST = [axis.to_bytes(8, "little", signed=True) for axis in (1, -1)]  # of `(batch, dim)`, as an axis stands in a file


class _Node(NamedTuple):
    """An operator of a graph, and the field that it is."""

    field: Field
    operator: bytes
    reads: list[bytes]
    gives: list[bytes]


def with_affine(
    content: bytes, matrix: NDArray[np.float32], shift: NDArray[np.float32], *, short: bool = False
) -> bytes:
    """The file `content`, of operator set 18 or later, whose `vectors` are `unit(vectors @ matrix + shift)`.

    Args:
        content: An ONNX file.
        matrix: `(dim, dim)`.
        shift: `(dim,)`.
        short: Where three operators bring `vectors` to unit length, one takes their place: onnxruntime saves with it about
            half of what the correction costs. OpenVINO is slower with that one.

    Raises:
        BundleError: It is no ONNX file, or none of its operators gives `vectors`.
    """
    try:
        graph = graph_of(content)
        nodes = list(_nodes(graph.value))
        gone = _division(graph.value, nodes) if short else []
        parts, at = list[bytes | memoryview](), 0
        for node in nodes:
            parts.append(graph.value[at : node.field.start])
            at = node.field.stop
            if not any(node is step for step in gone):
                parts.append(encoded(_NODE, _renamed(node.field.value)))
            elif node is gone[-1]:
                parts.append(encoded(_NODE, _written("LpNormalization", node.reads[:1], "before", "unit.before")))
    except ValueError as error:
        raise BundleError(f"the graph cannot be read: {error}; copy the bundle again") from error
    if sum(node.gives.count(_VECTORS) for node in nodes) != 1:
        raise BundleError("the graph has no operator that gives 'vectors'; export the bundle again")
    constants = {"matrix": matrix, "shift": shift}
    own = [_written(operator, list(map(_named, reads)), gives, gives or "unit") for operator, reads, gives in _STEPS]
    parts += [graph.value[at:], *(encoded(_NODE, node) for node in own)]
    parts += [encoded(_INITIALIZER, _tensor(name, value)) for name, value in constants.items()]
    return replaced(content, graph, parts)


def _nodes(graph: memoryview) -> Iterator[_Node]:
    for field in fields(graph):
        if field.number == _NODE:
            inner = [(each.number, bytes(each.value)) for each in fields(field.value)]
            of = {number: [value for kind, value in inner if kind == number] for number in (_INPUT, _OUTPUT, _OP_TYPE)}
            yield _Node(field, b"".join(of[_OP_TYPE]), of[_INPUT], of[_OUTPUT])


def _division(graph: memoryview, nodes: Sequence[_Node]) -> list[_Node]:
    """The operators that divide what becomes `vectors` by its length, if that is what gives them and nothing else needs them."""
    makers = {name: node for node in nodes for name in node.gives}
    steps, name = list[_Node](), _VECTORS
    for operator in (b"Div", b"Clip", b"ReduceL2"):
        node = makers.get(name)
        if node is None or node.operator != operator or len(node.reads) != 2:
            return []
        steps.insert(0, node)
        name = node.reads[operator == b"Div"]
    length, bounded, divided = steps
    if length.reads[0] != divided.reads[0]:
        return []
    ends = {_name_of(field) for field in fields(graph) if field.number == _GRAPH_OUTPUT}
    within = [*length.gives, *bounded.gives]
    if ends & set(within) or sum(name in within for node in nodes for name in node.reads) != 2:
        return []
    stored = _stored(graph, (length.reads[1], bounded.reads[1]))
    axis, least = stored.get(length.reads[1], b""), stored.get(bounded.reads[1], b"")
    known = axis in _LAST and len(least) == 4 and np.frombuffer(least, "<f4")[0] <= TINY
    return steps if known else []


def _stored(graph: memoryview, names: Sequence[bytes]) -> dict[bytes, bytes]:
    """The bytes of initializers, by name."""
    found = dict[bytes, bytes]()
    for field in fields(graph):
        if field.number == _INITIALIZER:
            parts = {inner.number: inner.value for inner in fields(field.value) if inner.number in (_TENSOR_NAME, _RAW)}
            if _RAW in parts and (name := bytes(parts.get(_TENSOR_NAME, b""))) in names:
                found[name] = bytes(parts[_RAW])
    return found


def _name_of(entry: Field) -> bytes:
    return b"".join(bytes(inner.value) for inner in fields(entry.value) if inner.number == _VALUE_NAME)


def _renamed(node: memoryview) -> bytes:
    """A node that reads and gives what was `vectors` by its new name."""
    body, at = bytearray(), 0
    for field in fields(node):
        if field.number in (_INPUT, _OUTPUT) and field.value == _VECTORS:
            body += node[at : field.start]
            body += encoded(field.number, _named("before"))
            at = field.stop
    return bytes(body + node[at:])


def _written(operator: str, reads: Sequence[bytes], gives: str, name: str) -> bytes:
    parts = [encoded(_INPUT, value) for value in reads]
    parts += [encoded(_OUTPUT, _named(gives) if gives else _VECTORS)]
    parts += [encoded(_NODE_NAME, _named(name)), encoded(_OP_TYPE, operator.encode())]
    return b"".join(parts)


def _tensor(name: str, value: NDArray[np.float32]) -> bytes:
    dims = b"".join(encoded_integer(_DIMS, size) for size in value.shape)
    raw = encoded(_RAW, np.ascontiguousarray(value, "<f4").tobytes())
    return dims + encoded_integer(_TYPE, _FLOAT) + encoded(_TENSOR_NAME, _named(name)) + raw


def _named(part: str) -> bytes:
    return f"{_OWN}.{part}".encode()
