"""An affine correction behind an ONNX file's vectors, without the onnx package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import BundleError
from edgessl.runtimes.wire import encoded, encoded_integer, fields, graph_of, replaced

_NODE, _INITIALIZER = 1, 5  # of GraphProto (onnx.proto)
_INPUT, _OUTPUT, _NODE_NAME, _OP_TYPE = 1, 2, 3, 4  # of NodeProto
_DIMS, _TYPE, _TENSOR_NAME, _RAW = 1, 2, 8, 9  # of TensorProto
_FLOAT = 1  # TensorProto.DataType
_VECTORS, _OWN = b"vectors", "learned.affine"
TINY = 1e-12  #: least length to divide by: a vector that becomes zero stays zero
#: operator, what it reads, what it gives; two, since a small graph pays for each by the microsecond. Lengths are along the last
#: axis and of the second order, as both are unless they are told otherwise, and a vector of zeros stays one.
_STEPS = (
    ("Gemm", ("before", "matrix", "shift"), "sum"),
    ("LpNormalization", ("sum",), ""),
)


def with_affine(content: bytes, matrix: NDArray[np.float32], shift: NDArray[np.float32]) -> bytes:
    """The file `content`, of operator set 18 or later, whose `vectors` are `unit(vectors @ matrix + shift)`.

    Args:
        content: An ONNX file.
        matrix: `(dim, dim)`.
        shift: `(dim,)`.

    Raises:
        BundleError: It is no ONNX file, or none of its operators gives `vectors`.
    """
    try:
        graph = graph_of(content)
        parts, at, made = list[bytes | memoryview](), 0, 0
        for field in fields(graph.value):
            if field.number != _NODE:
                continue
            node, gives = _renamed(field.value)
            parts += [graph.value[at : field.start], encoded(_NODE, node)]
            at, made = field.stop, made + gives
    except ValueError as error:
        raise BundleError(f"the graph cannot be read: {error}; copy the bundle again") from error
    if made != 1:
        raise BundleError("the graph has no operator that gives 'vectors'; export the bundle again")
    constants = {"matrix": matrix, "shift": shift}
    parts += [graph.value[at:], *(encoded(_NODE, _node(*step)) for step in _STEPS)]
    parts += [encoded(_INITIALIZER, _tensor(name, value)) for name, value in constants.items()]
    return replaced(content, graph, parts)


def _renamed(node: memoryview) -> tuple[bytes, int]:
    """A node that reads and gives what was `vectors` by its new name, and how often it gives it."""
    body, at, gives = bytearray(), 0, 0
    for field in fields(node):
        if field.number in (_INPUT, _OUTPUT) and field.value == _VECTORS:
            body += node[at : field.start]
            body += encoded(field.number, _named("before"))
            at, gives = field.stop, gives + (field.number == _OUTPUT)
    return bytes(body + node[at:]), gives


def _node(operator: str, reads: tuple[str, ...], gives: str) -> bytes:
    parts = [encoded(_INPUT, _named(name)) for name in reads]
    parts += [encoded(_OUTPUT, _named(gives) if gives else _VECTORS)]
    parts += [encoded(_NODE_NAME, _named(gives or "unit")), encoded(_OP_TYPE, operator.encode())]
    return b"".join(parts)


def _tensor(name: str, value: NDArray[np.float32]) -> bytes:
    dims = b"".join(encoded_integer(_DIMS, size) for size in value.shape)
    raw = encoded(_RAW, np.ascontiguousarray(value, "<f4").tobytes())
    return dims + encoded_integer(_TYPE, _FLOAT) + encoded(_TENSOR_NAME, _named(name)) + raw


def _named(part: str) -> bytes:
    return f"{_OWN}.{part}".encode()
