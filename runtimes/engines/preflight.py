"""What an ONNX file would make an engine do, read from its bytes before the engine does, and without the onnx package.

A graph that edgessl exports runs every node once. Control flow has no such bound: a loop of a few bytes can run for ever
inside an engine, where nothing stops it. So graphs with control flow, and with functions that could hide it, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

#: Operators that run other graphs, perhaps without end.
CONTROL_FLOW = (b"If", b"Loop", b"Scan", b"SequenceMap")

_GRAPH, _FUNCTIONS, _NODE, _OP_TYPE = 7, 25, 1, 4  # fields of ModelProto, GraphProto and NodeProto (onnx.proto)


def refuse_control_flow(content: bytes | memoryview) -> None:
    """Look at the operators of a serialized model.

    Raises:
        ValueError: It has control flow or functions, or is no serialized message.
    """
    for number, graph in _messages(memoryview(content)):
        if number == _FUNCTIONS:
            raise ValueError("it holds functions")
        for inner, node in _messages(graph) if number == _GRAPH else ():
            for field, value in _messages(node) if inner == _NODE else ():
                if field == _OP_TYPE and bytes(value) in CONTROL_FLOW:
                    raise ValueError(f"it holds control flow ({bytes(value).decode()}), which has no bound in time")


def _messages(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of the fields that have a length; the others are passed over."""
    at, end = 0, len(content)
    while at < end:
        tag, at = _varint(content, at)
        wire = tag & 7
        if wire == 2:
            size, at = _varint(content, at)
            if at + size > end:
                raise ValueError("it ends inside a field")
            yield tag >> 3, content[at : at + size]
            at += size
        elif wire == 0:
            _, at = _varint(content, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"it is no ONNX file: a field has wire type {wire}")


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it is no ONNX file: a number does not end")
