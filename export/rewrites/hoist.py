"""Rounding before turning: a Q/DQ pair behind a node that only moves numbers goes in front of it.

The same numbers come out. The product in front then gives bytes, a quarter of what would be written and turned, and
OpenVINO fuses the pair into it.
"""

from __future__ import annotations

import onnx

from edgessl.export.surgery import in_order, readers_of, weights_of

_MOVES = ("Reshape", "Transpose")


def hoisted(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which no pair with one scale stands behind a `Reshape` or `Transpose` that it could stand in front of."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    while _hoist_one(copy):
        pass
    in_order(copy)
    return copy


def _hoist_one(model: onnx.ModelProto) -> bool:
    """Move one pair one node up, in place."""
    made = {name: node for node in model.graph.node for name in node.output}
    readers, weights = readers_of(model), weights_of(model)
    given = {entry.name for entry in model.graph.output}
    for rounds in model.graph.node:
        moves = made.get(rounds.input[0]) if rounds.op_type == "QuantizeLinear" else None
        if moves is None or moves.op_type not in _MOVES or len(readers[moves.output[0]]) > 1:
            continue
        back = readers.get(rounds.output[0], [])
        one = rounds.input[1] in weights and not weights[rounds.input[1]].dims
        if (
            not one
            or [node.op_type for node in back] != ["DequantizeLinear"]
            or given.intersection([moves.output[0], rounds.output[0]])
        ):
            continue
        # x -> moves -> Q -> DQ -> readers  becomes  x -> Q -> DQ -> moves -> readers
        source, last = moves.input[0], back[0].output[0]
        rounds.input[0], moves.input[0] = source, f"{moves.output[0]}.rounded"
        back[0].output[0], moves.output[0] = f"{moves.output[0]}.rounded", last
        return True
    return False
