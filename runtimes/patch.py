"""Other constants in an ONNX file, without the onnx package.

Engines do not agree on how weights are replaced, and onnxruntime's own way (`add_initializer`) is ignored by the passes
that rearrange convolution weights. So the bytes of the file are written anew around the initializers that change.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import BundleError
from edgessl.runtimes.wire import Field, fields, graph_of, lead, numbers, replaced

_INITIALIZER = 5  # of GraphProto (onnx.proto)
_DIMS, _TYPE, _FLOATS, _NAME, _RAW = 1, 2, 4, 8, 9  # of TensorProto
_VALUES = (4, 5, 6, 7, 9, 10, 11)  # of TensorProto: all that may hold the values
#: TensorProto.DataType -> dtype
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("u1"), 3: np.dtype("i1"), 6: np.dtype("<i4")}


def constants_of(content: bytes, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """The values of initializers, by name.

    Raises:
        BundleError: One is not there exactly once, or is none of float32, uint8, int8 and int32.
    """
    return {name: _value(name, field.value) for name, field in _named(content, names)[1].items()}


def with_weights(content: bytes, weights: Mapping[str, NDArray[Any]]) -> bytes:
    """The file `content` with these values for the initializers of these names.

    Raises:
        BundleError: An initializer is not there exactly once, or has another type or shape.
    """
    graph, found = _named(content, weights)
    parts, at = list[bytes | memoryview](), 0
    for name, field in sorted(found.items(), key=lambda item: item[1].start):
        kind, shape = _kind(name, field.value)
        value = weights[name]
        if value.dtype != kind or value.shape != shape:
            raise BundleError(
                f"the graph's initializer {name!r} is {kind} {shape}, not {value.dtype} {value.shape}; export it again"
            )
        raw = np.ascontiguousarray(value, kind).reshape(-1).view(np.uint8).data
        front = _without_values(field.value) + lead(_RAW, len(raw))
        parts += [graph.value[at : field.start], lead(_INITIALIZER, len(front) + len(raw)), front, raw]
        at = field.stop
    return replaced(content, graph, [*parts, graph.value[at:]])


def _named(content: bytes, names: Collection[str]) -> tuple[Field, dict[str, Field]]:
    """The graph, and its initializers of these names."""
    found: dict[str, Field] = {}
    try:
        graph = graph_of(content)
        for name, field in _initializers(graph.value):
            if name in names:
                if name in found:
                    raise BundleError(f"the graph has two initializers {name!r}; export it again")
                found[name] = field
    except ValueError as error:
        raise BundleError(f"the graph cannot be read: {error}; copy the bundle again") from error
    if missing := [name for name in names if name not in found]:
        raise BundleError(f"the graph has no initializer {', '.join(map(repr, missing))}; export it again")
    return graph, found


def _initializers(graph: memoryview) -> Iterator[tuple[str, Field]]:
    for field in fields(graph):
        if field.number == _INITIALIZER:
            names = [
                bytes(inner.value).decode(errors="replace") for inner in fields(field.value) if inner.number == _NAME
            ]
            yield "".join(names[-1:]), field


def _kind(name: str, tensor: memoryview) -> tuple[np.dtype[Any], tuple[int, ...]]:
    kinds = numbers(tensor, _TYPE)
    if not kinds or kinds[-1] not in _DTYPES:
        raise BundleError(f"the graph's initializer {name!r} is of ONNX type {kinds}, which is not replaced here")
    return _DTYPES[kinds[-1]], tuple(numbers(tensor, _DIMS))


def _value(name: str, tensor: memoryview) -> NDArray[Any]:
    kind, shape = _kind(name, tensor)
    places = (_RAW, _FLOATS) if kind == np.float32 else (_RAW,)
    stored = b"".join(bytes(field.value) for field in fields(tensor) if field.number in places)
    if len(stored) != kind.itemsize * math.prod(shape):
        raise BundleError(f"the graph's initializer {name!r} is not stored as {kind} {shape}; export it again")
    return np.frombuffer(stored, kind).reshape(shape)


def _without_values(tensor: memoryview) -> bytes:
    """The tensor's other fields: whatever stands between those that hold values."""
    kept, at = bytearray(), 0
    for field in fields(tensor):
        if field.number in _VALUES:
            kept += tensor[at : field.start]
            at = field.stop
    return bytes(kept + bytes(tensor[at:]))
