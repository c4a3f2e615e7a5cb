"""What an ONNX file would make an engine do, read from its bytes before the engine does, and without the onnx package.

A graph that edgessl exports runs every node once. Control flow has no such bound: a loop of a few bytes can run for ever
inside an engine, where nothing stops it. So graphs with control flow, and with functions that could hide it, are refused. So is
a version of operators that no ONNX has: OpenVINO 2026.4 counts down from it, for hours from 2 ** 62.
"""

from __future__ import annotations

from edgessl.runtimes.wire import fields, numbers

#: Operators that run other graphs, perhaps without end.
CONTROL_FLOW = (b"If", b"Loop", b"Scan", b"SequenceMap")

# Fields of ModelProto, GraphProto and NodeProto (onnx.proto).
_GRAPH, _IMPORT, _FUNCTIONS = 7, 8, 25
_NODE, _OP_TYPE = 1, 4
_VERSION, _NEWEST = 2, 1000  # of OperatorSetIdProto; ONNX of 2026 is at 26


def refuse_endless(content: bytes | memoryview) -> None:
    """Look at the operators of a serialized model for what may keep an engine busy without end.

    Raises:
        ValueError: It has control flow, functions or an impossible version of operators, or is no serialized message.
    """
    for part in fields(memoryview(content)):
        versions = numbers(part.value, _VERSION) if part.number == _IMPORT else []
        if any(version > _NEWEST for version in versions):
            raise ValueError(f"it asks for operators of version {max(versions)}, which no ONNX has")
        if part.number == _FUNCTIONS:
            raise ValueError("it holds functions")
        for inner in fields(part.value) if part.number == _GRAPH else ():
            for field in fields(inner.value) if inner.number == _NODE else ():
                if field.number == _OP_TYPE and bytes(field.value) in CONTROL_FLOW:
                    raise ValueError(
                        f"it holds control flow ({bytes(field.value).decode()}), which has no bound in time"
                    )
