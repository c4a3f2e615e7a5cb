"""Ranges that were trained with the weights, put in place of those that calibration saw."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from edgessl.errors import GateError
from edgessl.export.calibrate import Ranges
from edgessl.export.placement import RECTIFIERS, quantizable
from edgessl.export.surgery import readers_of


def with_trained(seen: Ranges, model: onnx.ModelProto, trained: Mapping[str, tuple[float, float]]) -> Ranges:
    """Ranges by value from ranges by module, `input.MODULE` and `output.MODULE`.

    Nodes are called after their module, `MODULE/Conv`. The output of a convolution whose only reader is a ReLU, or one with a
    ceiling, was trained behind it, where the pair stands: such a range begins at 0 and is never that of the convolution itself,
    which a trunk reads in front of a port.

    Raises:
        GateError: None of the modules is in the graph.
    """
    low, high, found = dict(seen.low), dict(seen.high), 0
    relus = {node.output[0] for node in model.graph.node if node.op_type in RECTIFIERS}
    for key, name in _places(model):
        if key not in trained:
            continue
        least, most = trained[key]
        if key.startswith("output.") and least == 0 and name not in relus:
            continue  # a port stands between them here; the ReLU's range is known where nothing does
        low[name], high[name] = least, most
        found += 1
    if trained and not found:
        raise GateError(f"none of the {len(trained)} trained ranges belongs to a layer of the graph; distil it again")
    return Ranges(low, high, seen.channel_low, seen.channel_high, trained=bool(found))


def _places(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """Names of ranges, each with a value of the graph that has it; queries, keys and values share a module."""
    readers = readers_of(model)
    given = {entry.name for entry in model.graph.output}
    products = set(quantizable(model))
    places: list[tuple[str, str]] = []
    for node in model.graph.node:
        if node.name not in products:
            continue
        module, output = node.name.rpartition("/")[0], node.output[0]
        after = readers.get(output, [])
        alone = len(after) == 1 and after[0].op_type in RECTIFIERS and output not in given
        places += [(f"input.{module}", node.input[0]), (f"output.{module}", after[0].output[0] if alone else output)]
    return places
