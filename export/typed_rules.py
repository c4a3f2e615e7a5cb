"""Which nodes of a graph stay fp32 when the rest becomes fp16, and why."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx

from edgessl.export.lint.view import View, attributes

LARGEST = 65504.0  #: of fp16
SMALLEST = 2.0**-14  #: below it fp16 loses digits
_SMALLEST_SCALE = 2.0**-18  # of int8: a sixteenth of a subnormal's digits is an eighth of int8's own step

#: Sums and powers that leave the range of fp16 long before their result does.
_SENSITIVE = (
    *("ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd"),
    *("Pow", "Exp", "Log", "LogSoftmax", "CumSum", "LRN", "LpNormalization", "LpPool", "GlobalLpPool"),
    *("InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization"),
)
#: They make floats of something else, or their type is an attribute.
_MAKERS = (
    *("Cast", "CastLike", "ConstantOfShape", "Range", "EyeLike", "OneHot", "RandomNormal", "RandomUniform"),
    *("RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"),
)
#: What may stand between a sensitive operator and the division that brings its result back into range.
_CHAIN = (
    *("Add", "Sub", "Mul", "Sqrt", "Reciprocal", "Clip", "Max", "Min", "Neg", "ReduceMean", "Tanh"),
    *("Expand", "Unsqueeze", "Squeeze", "Reshape", "Identity"),
)
_REDUCTIONS = ("ReduceMean", "GlobalAveragePool", "ReduceMax", "ReduceMin")
_PROLOGUE = (
    *("Cast", "Transpose", "Reshape", "Slice", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Gather", "Split", "Pad"),
    *("Add", "Sub", "Mul", "Div", "Clip", "Round", "Floor", "Resize", "Concat", "MatMul", "Einsum", "Gemm"),
)


def float_nodes(view: View, keep: Collection[str]) -> set[str]:
    """Names of the nodes that stay fp32.

    They are: those in `keep`; the way from the sensor to the first learned layer; sums of squares and powers with what
    divides by them; what has a constant that fp16 cannot hold; statistics that are outputs.
    """
    ends = {entry.name for entry in view.graph.output}
    floats = set(keep) | _prologue(view)
    chained: set[str] = set()  # tensors in fp32 until something divides by them
    for node in view.graph.node:
        sensitive = node.op_type in _SENSITIVE or _is_square(node) or _is_statistic(node, ends)
        # A sum that is an operand of the network's own tensors ends the chain.
        free = [name for name in node.input if name and name not in chained and name not in view.constants]
        chain = bool(chained & set(node.input)) and node.op_type in _CHAIN and not free
        divides = len(node.input) == 2 and node.op_type == "Div" and bool(chained & set(node.input))
        if sensitive or chain or divides or node.op_type in _MAKERS or _constants_too_wide(view, node):
            floats.add(node.name)
        if sensitive or chain:
            chained.update(node.output)
        elif node.op_type in ("Mul", "Sub", "Add") and chained & set(node.input):
            floats.add(node.name)
    return floats


def revive_dead_scales(view: View) -> None:
    """Give channels that are all zero a scale of one, in place: theirs is often too small for fp16, and scales nothing."""
    for node in view.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[1] not in view.stored:
            continue
        weight, scale = view.value(node.input[0]), view.value(node.input[1])
        if weight is None or scale is None or scale.ndim != 1 or scale.size == 1 or scale.dtype != np.float32:
            continue
        axis = int(attributes(node).get("axis", 1)) % weight.ndim
        others = tuple(place for place in range(weight.ndim) if place != axis)
        dead = ~np.any(weight != 0, axis=others)
        if dead.shape == scale.shape and np.any(dead & (scale < _SMALLEST_SCALE)):
            revived = np.where(dead, np.float32(1), scale).astype(np.float32)
            view.stored[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(revived, node.input[1]))


def _prologue(view: View) -> set[str]:
    """From the first input up to the first learned layer: where grey levels are scaled and resized."""
    names: set[str] = set()
    reached = set(view.inputs[:1])
    for node in view.graph.node:
        free = [name for name in node.input if name and name not in view.constants]
        if not free or not set(free) <= reached or node.op_type not in _PROLOGUE:
            continue
        if node.op_type in ("MatMul", "Einsum", "Gemm") and not _resamples(view, node):
            continue
        names.add(node.name)
        reached.update(node.output)
    return names


def _resamples(view: View, node: onnx.NodeProto) -> bool:
    """Whether a product's constant is an interpolation: each result is a weighted mean, its weights sum to one."""
    for name in node.input:
        value = view.value(name) if name in view.constants else None
        if value is not None and value.ndim >= 2:
            return any(bool(np.allclose(value.sum(axis), 1, atol=1e-3)) for axis in (-1, -2))
    return False


def _is_square(node: onnx.NodeProto) -> bool:
    return node.op_type == "Mul" and len(node.input) == 2 and node.input[0] == node.input[1]


def _is_statistic(node: onnx.NodeProto, ends: set[str]) -> bool:
    return node.op_type in _REDUCTIONS and bool(ends & set(node.output))


def _constants_too_wide(view: View, node: onnx.NodeProto) -> bool:
    quantizes = node.op_type in ("QuantizeLinear", "DequantizeLinear")
    for place, name in enumerate(node.input):
        value = view.value(name) if name in view.constants else None
        if value is None or value.dtype != np.float32 or not value.size:
            continue
        size = np.abs(value)
        if float(size.max()) > LARGEST:
            return True
        smallest = _SMALLEST_SCALE if quantizes and place == 1 else SMALLEST
        if (value.size == 1 or (quantizes and place == 1)) and bool(np.any((size > 0) & (size < smallest))):
            return True
    return False
