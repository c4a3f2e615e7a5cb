"""What TensorRT asks of QuantizeLinear and DequantizeLinear: the hard rules of its explicit quantization.

Sources: NvInfer.h (IQuantizeLayer, IDequantizeLayer), the parser's QuantDequantLinearHelper, and the page on explicit
quantization in the developer guide. A graph that breaks one fails to parse or to build.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from edgessl.export.lint.limits import Site
from edgessl.export.lint.view import View, type_name

#: rule -> what it asks
QDQ_RULES = {
    "qdq-type": "Q and DQ are int8, or one of the float8 and 4-bit types",
    "qdq-zero-point": "zero points are constant, all zero, and as many as scales",
    "qdq-scale": "scales are constant, positive and finite",
    "qdq-activation": "activations have one scale; only constants have one per channel",
    "qdq-channel": "scales per channel are one axis as long as the tensor's, and that axis is the operator's channels",
    "qdq-input": "what is quantized is no scalar, and a scale is given",
    "qdq-scale-type": "a scale has the type of the tensor that it scales",
    "qdq-pair": "what Q gives goes to DQ and nowhere else",
    "qdq-bias": "biases stay float",
}
_QUANTIZED = ("INT8", "FLOAT8E4M3FN", "FLOAT4E2M1", "INT4")


def qdq_broken(site: Site) -> Iterator[tuple[str, str, str]]:
    """`(level, rule, what is wrong)` for each rule that a Q or DQ node breaks."""
    node, view = site.node, site.view
    quantizes = node.op_type == "QuantizeLinear"
    if len(node.input) < 2 or not node.input[1]:
        yield "error", "qdq-input", "it has no scale; TensorRT needs one"
        return
    shape = view.shape(node.input[0])
    if quantizes and shape == ():
        yield "error", "qdq-input", "it quantizes a scalar; leave the scalar float"
    kind = quantized_type(site)
    if kind == "INT32" and not quantizes:
        yield "error", "qdq-bias", "an int32 bias is not TensorRT's; quantize with QuantizeBias=False"
    elif kind and kind not in _QUANTIZED:
        word = "no zero point, which ONNX reads as uint8" if len(node.input) < 3 and quantizes else kind.lower()
        yield "error", "qdq-type", f"it has {word}; quantize symmetric to int8, with an int8 zero point of 0"
    if kind == "INT4" and shape and shape[-1] is not None and shape[-1] % 2:
        yield "error", "qdq-type", f"the last axis of an int4 tensor has {shape[-1]} values and must be even"
    yield from _zero_point(site)
    yield from _scale(site, quantizes)
    if quantizes:
        others = sorted(
            {user.op_type for user in view.users.get(node.output[0], []) if user.op_type != "DequantizeLinear"}
        )
        outputs = [entry.name for entry in view.graph.output if entry.name == node.output[0]]
        if others or outputs:
            yield (
                "error",
                "qdq-pair",
                f"its output goes to {', '.join(others + outputs)}; put a DequantizeLinear between",
            )


def quantized_type(site: Site) -> str:
    """Element type on the quantized side, in ONNX's word; empty where it is not known."""
    node, view = site.node, site.view
    if node.op_type == "DequantizeLinear":
        return view.types.get(node.input[0], "") if node.input else ""
    if len(node.input) > 2 and node.input[2]:
        return view.types.get(node.input[2], "")
    return type_name(int(site.attributes.get("output_dtype", 0))) or "UINT8"


def _zero_point(site: Site) -> Iterator[tuple[str, str, str]]:
    node, view = site.node, site.view
    if len(node.input) < 3 or not node.input[2]:
        return
    if node.input[2] not in view.constants:
        yield "error", "qdq-zero-point", "the zero point must be a constant"
        return
    zero, scale = view.value(node.input[2]), view.shape(node.input[1])
    if zero is None:
        return
    if np.any(zero.astype(np.float32) != 0):
        yield (
            "error",
            "qdq-zero-point",
            "the zero point is not 0; quantize symmetric (ActivationSymmetric, WeightSymmetric)",
        )
    if scale is not None and None not in scale and zero.size != int(np.prod(scale, dtype=np.int64)):  # type: ignore[arg-type]
        yield "error", "qdq-zero-point", f"{zero.size} zero points stand beside a scale of shape {list(scale)}"


def _scale(site: Site, quantizes: bool) -> Iterator[tuple[str, str, str]]:
    node, view = site.node, site.view
    data, scale = node.input[0], node.input[1]
    if scale not in view.constants:
        yield "error", "qdq-scale", "the scale must be a constant"
        return
    value = view.value(scale)
    if value is not None and not bool(np.all((value > 0) & np.isfinite(value))):
        yield (
            "error",
            "qdq-scale",
            "a scale is not positive; clamp the scale of a dead channel to a small positive value",
        )
    kinds = view.types.get(data, ""), view.types.get(scale, "")
    if quantizes and all(kinds) and kinds[0] != kinds[1]:
        word = f"the scale is {kinds[1].lower()}, the tensor {kinds[0].lower()}"
        yield "error", "qdq-scale-type", f"{word}; a strongly typed network wants one type (opset 19 or newer)"
    shape, length = view.shape(data), view.shape(scale)
    count = int(np.prod(length, dtype=np.int64)) if length is not None and None not in length else 1  # type: ignore[arg-type]
    if count == 1 or site.attributes.get("block_size", 0):
        return
    if data not in view.constants:
        yield "error", "qdq-activation", f"an activation has {count} scales; it must have one"
        return
    axis = int(site.attributes.get("axis", 1))
    if length is not None and len(length) != 1:
        yield "error", "qdq-channel", f"the scale has {len(length)} axes and must have one"
    elif shape is not None:
        if not -len(shape) <= axis < len(shape):
            yield "error", "qdq-channel", f"axis {axis} is not in a tensor of {len(shape)} axes"
        elif shape[axis] is not None and shape[axis] != count:
            yield "error", "qdq-channel", f"{count} scales for axis {axis}, which has {shape[axis]} channels"
        elif not quantizes:
            yield from _channel_axis(view, node, axis % len(shape), len(shape))


def _channel_axis(view: View, node: onnx.NodeProto, axis: int, rank: int) -> Iterator[tuple[str, str, str]]:
    for user in view.users.get(node.output[0], []):
        if len(user.input) < 2 or user.input[1] != node.output[0]:
            continue
        transposed = any(entry.name == "transB" and entry.i for entry in user.attribute)
        wanted = {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1, "Gemm": 0 if transposed else 1}.get(user.op_type)
        if wanted is not None and axis != wanted:
            yield (
                "error",
                "qdq-channel",
                f"its weight goes to {user.op_type}, whose channels are axis {wanted}, not {axis}",
            )
