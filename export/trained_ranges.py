"""Ranges that were trained with the weights, put in place of those that calibration saw."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from edgessl.errors import GateError
from edgessl.export.calibrate import Ranges
from edgessl.export.placement import quantizable


def with_trained(seen: Ranges, model: onnx.ModelProto, trained: Mapping[str, tuple[float, float]]) -> Ranges:
    """Ranges by value from ranges by module, `input.MODULE` and `output.MODULE`.

    Nodes are called after their module, `MODULE/Conv`.

    Raises:
        GateError: None of the modules is in the graph.
    """
    low, high, found = dict(seen.low), dict(seen.high), 0
    products = set(quantizable(model))
    readers = {name: node for node in model.graph.node for name in node.input}
    for node in model.graph.node:
        if node.name not in products:
            continue
        module = node.name.rpartition("/")[0]
        output = node.output[0]
        after = readers.get(output)
        values = {f"input.{module}": [node.input[0]], f"output.{module}": [output]}
        if after is not None and after.op_type == "Relu":  # the pair stands behind it
            values[f"output.{module}"].append(after.output[0])
        for key, names in values.items():
            if key in trained:
                found += 1
                for name in names:
                    low[name], high[name] = trained[key]
    if trained and not found:
        raise GateError(f"none of the {len(trained)} trained ranges belongs to a layer of the graph; distil it again")
    return Ranges(low, high, seen.channel_low, seen.channel_high)
