"""What an ONNX file would make an engine do, read from its bytes before the engine does, and without the onnx package.

A graph that edgessl exports runs every node once. Control flow has no such bound: a loop of a few bytes can run for ever
inside an engine, where nothing stops it. So graphs with control flow, and with functions that could hide it, are refused.
"""

from __future__ import annotations

from edgessl.runtimes.wire import fields

#: Operators that run other graphs, perhaps without end.
CONTROL_FLOW = (b"If", b"Loop", b"Scan", b"SequenceMap")

_GRAPH, _FUNCTIONS, _NODE, _OP_TYPE = 7, 25, 1, 4  # fields of ModelProto, GraphProto and NodeProto (onnx.proto)


def refuse_control_flow(content: bytes | memoryview) -> None:
    """Look at the operators of a serialized model.

    Raises:
        ValueError: It has control flow or functions, or is no serialized message.
    """
    for part in fields(memoryview(content)):
        if part.number == _FUNCTIONS:
            raise ValueError("it holds functions")
        for inner in fields(part.value) if part.number == _GRAPH else ():
            for field in fields(inner.value) if inner.number == _NODE else ():
                if field.number == _OP_TYPE and bytes(field.value) in CONTROL_FLOW:
                    raise ValueError(
                        f"it holds control flow ({bytes(field.value).decode()}), which has no bound in time"
                    )
