"""What passes through a graph on real samples: ranges for quantization, and which samples to take them from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgessl.export.placement import MATRICES, quantizable, watched
from edgessl.runtimes.engines import open_engine

_BATCH = 8  # samples per run; what is watched in a run is in memory at once
_THUMBNAIL = 8  # pixels or bins a side of what samples are compared by


@dataclass(frozen=True)
class Ranges:
    """What was seen.

    Attributes:
        low, high: Per value of the graph, the smallest and largest number.
        channel_low, channel_high: The same per channel (the last axis), for what a product with constant weights reads.
        trained: Some were trained with the weights: nothing is rounded that was not in training.
    """

    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)
    channel_low: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    channel_high: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    trained: bool = False


def spread(samples: NDArray[Any], count: int) -> NDArray[np.intp]:
    """Which samples to calibrate on, at most `count`: each next one is the least like those taken (Gonzalez 1985), in order.

    Samples are compared by small pictures of themselves, standardised; a stream of near copies costs nothing then, and a
    rare scene is among the first.
    """
    if count >= len(samples):
        return np.arange(len(samples))
    small = np.stack([_thumbnail(sample) for sample in samples])
    small = (small - small.mean(0)) / (small.std(0) + 1e-6)
    chosen = [int(np.square(small).sum(1).argmin())]  # the most ordinary one first
    distance = np.square(small - small[chosen[0]]).sum(1)
    while len(chosen) < count and distance.max() > 0:  # else all that is left are copies
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(small - small[chosen[-1]]).sum(1))
    return np.sort(np.asarray(chosen))


def _thumbnail(sample: NDArray[Any]) -> NDArray[np.float64]:
    """Means over a coarse grid of the sample's first two axes."""
    value = np.asarray(sample, np.float64)
    for axis in (0, 1):
        edges = np.unique(np.linspace(0, value.shape[axis], min(_THUMBNAIL, value.shape[axis]) + 1).astype(int)[:-1])
        sizes = np.diff(np.append(edges, value.shape[axis]))
        shape = [1] * value.ndim
        shape[axis] = -1
        value = np.add.reduceat(value, edges, axis=axis) / sizes.reshape(shape)
    return np.asarray(value.ravel())


def observe(
    model: onnx.ModelProto, samples: NDArray[Any], *, advance: Callable[[int], None] = lambda _: None
) -> Ranges:
    """Run an fp32 graph with one input `frames`, and keep what passed every value that a placement may quantize.

    Args:
        model: An encoder.
        samples: `(n, *sample)`.
        advance: Told how many more samples are done.
    """
    leading = _leading_axes(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.output[:]
    # Most of the numbers that are watched, and none of them below zero: the largest of each row, which is quick to find.
    shares = {node.output[0] for node in graph.node if node.op_type == "Softmax"}
    weighted = set(quantizable(model))  # what these read is looked at channel by channel
    shares -= {node.input[0] for node in graph.node if node.name in weighted}
    for name, axes in leading.items():
        axes = axes[-1:] if name in shares else axes
        graph.initializer.append(numpy_helper.from_array(axes, f"{name}|axes"))
        for kind in ("ReduceMax",) if name in shares else ("ReduceMin", "ReduceMax"):
            graph.node.append(helper.make_node(kind, [name, f"{name}|axes"], [f"{name}|{kind}"], keepdims=0))
            graph.output.append(helper.make_tensor_value_info(f"{name}|{kind}", TensorProto.FLOAT, None))
    seen = Ranges()
    engine = open_engine("onnxruntime", copy.SerializeToString())
    try:
        for start in range(0, len(samples), _BATCH):
            part = np.ascontiguousarray(samples[start : start + _BATCH])
            given = engine.run({"frames": part})
            for name in leading:
                high = given[f"{name}|ReduceMax"]
                if name in shares:
                    _keep(seen, name, np.zeros((), np.float32), high.max())
                else:
                    _keep(seen, name, given[f"{name}|ReduceMin"], high)
            advance(len(part))
    finally:
        engine.close()
    return seen


def _keep(seen: Ranges, name: str, low: NDArray[Any], high: NDArray[Any]) -> None:
    seen.low[name] = min(seen.low.get(name, np.inf), float(low.min()))
    seen.high[name] = max(seen.high.get(name, -np.inf), float(high.max()))
    if low.ndim:
        seen.channel_low[name] = np.minimum(seen.channel_low.get(name, low), low)
        seen.channel_high[name] = np.maximum(seen.channel_high.get(name, high), high)


def _leading_axes(model: onnx.ModelProto) -> dict[str, NDArray[np.int64]]:
    """Values that may be quantized -> the axes to look over: all but the channels in front of a matrix, else all."""
    shaped = onnx.shape_inference.infer_shapes(model)
    ranks = {
        entry.name: len(entry.type.tensor_type.shape.dim)
        for entry in (*shaped.graph.input, *shaped.graph.value_info, *shaped.graph.output)
        if entry.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    names = watched(model)
    axes = {name: np.arange(ranks[name], dtype=np.int64) for name in sorted(names) if name in ranks}
    for node in model.graph.node:
        if node.op_type in MATRICES and node.input[0] in names and ranks.get(node.input[0], 0) > 1:
            axes[node.input[0]] = np.arange(ranks[node.input[0]] - 1, dtype=np.int64)
    return axes
