"""Outliers of a transformer's activations moved into the weights that read them, so that both fit eight bits.

SmoothQuant (Xiao et al. 2023, arXiv:2211.10438, eq. 4): channel j of the input of a product is divided by
`max|x_j|^alpha / max|w_j|^(1 - alpha)`, and row j of the weight multiplied by it. Only inputs that a layer norm makes are
smoothed: its gain and bias take the division, and the graph computes what it did, at the same cost.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from edgessl.export.calibrate import Ranges
from edgessl.export.surgery import readers_of, set_weight, weights_of

ALPHA = 0.5  # the paper's, for most models


def smoothed(model: onnx.ModelProto, ranges: Ranges, alpha: float = ALPHA) -> tuple[onnx.ModelProto, Ranges, list[str]]:
    """A copy with smoothed products.

    Args:
        model: The fp32 graph.
        ranges: Of its values.
        alpha: How much of an outlier the weights take over.

    Returns:
        The graph, its ranges, and the nodes whose weights changed.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    moved = replace(
        ranges,
        low=dict(ranges.low),
        high=dict(ranges.high),
        channel_low=dict(ranges.channel_low),
        channel_high=dict(ranges.channel_high),
    )
    changed: list[str] = []
    readers = readers_of(copy)
    given = {entry.name for entry in copy.graph.output}
    for norm in [node for node in copy.graph.node if node.op_type == "LayerNormalization"]:
        value = norm.output[0]
        cut = [node.output[0] for node in readers.get(value, []) if node.op_type == "Slice"]  # one token of it
        values = [value, *cut]
        products = [node for name in values for node in readers.get(name, []) if node.output[0] not in cut]
        weights = weights_of(copy)
        if given.intersection(values) or value not in ranges.channel_low or norm.input[1] not in weights:
            continue
        if not products or any(node.op_type != "MatMul" or node.input[1] not in weights for node in products):
            continue
        least, most = ranges.channel_low[value], ranges.channel_high[value]
        matrices = [numpy_helper.to_array(weights[node.input[1]]) for node in products]
        if any(len(matrix) != weights[norm.input[1]].dims[-1] for matrix in matrices):
            continue  # channels were cut, not tokens
        rows = np.max([np.abs(matrix).max(1) for matrix in matrices], axis=0)
        largest = np.maximum(np.abs(least), np.abs(most))
        divisor = np.maximum(largest, 1e-5) ** alpha / np.maximum(rows, 1e-5) ** (1 - alpha)
        divisor = np.clip(divisor, 1e-4, 1e4).astype(np.float32)
        for name in dict.fromkeys(name for name in norm.input[1:3] if name):
            set_weight(copy, name, numpy_helper.to_array(weights[name]) / divisor, copy_for=[norm.name])
        for node, matrix in zip(products, matrices, strict=True):
            set_weight(copy, node.input[1], matrix * divisor[:, None], copy_for=[node.name])
            changed.append(node.name)
        for name in values:
            if name in ranges.channel_low:
                low, high = ranges.channel_low[name] / divisor, ranges.channel_high[name] / divisor
                moved.channel_low[name], moved.channel_high[name] = low, high
                moved.low[name], moved.high[name] = float(low.min()), float(high.max())
    _drop_unread(copy)
    return copy, moved, changed


def _drop_unread(model: onnx.ModelProto) -> None:
    read = {name for node in model.graph.node for name in node.input}
    for entry in [entry for entry in model.graph.initializer if entry.name not in read]:
        model.graph.initializer.remove(entry)
