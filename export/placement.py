"""Where each engine wants its Q/DQ pairs: what one fuses into integer arithmetic, another runs in float after all.

onnxruntime makes an integer convolution only when the convolution's output is quantized too, and takes uint8
activations; a product with a constant matrix it makes from a quantized input alone. TensorRT and OpenVINO take symmetric
int8 and want the inputs of convolutions and products quantized, and nothing else: outputs, norms and softmax stay in float.
The products of two activations stay in float for TensorRT, whose own kernels for attention want floats; OpenVINO computes
them in integers, from queries, keys, values and weights of attention that are rounded. In a convolutional net the residual
sums are quantized as well, so that the convolution in front of one can stay in integers; in a transformer never: its residual
stream carries what the vector is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
from onnxruntime.quantization import QuantType

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MATRICES = ("Gemm", "MatMul")
RECTIFIERS = ("Relu", "Clip")  #: a quantizer leaves them out where the range of a convolution's output does their work


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A way to place Q/DQ pairs.

    Attributes:
        name: For the manifest.
        symmetric: int8 activations without zero points; else uint8 with them.
        outputs: Operators whose outputs are quantized as well as their inputs.
        residual: Sums of a convolutional net are quantized.
        attention: The two products of attention are quantized.
        trained: The placement whose trained ranges hold here too, but for attention.
    """

    name: str
    symmetric: bool
    outputs: tuple[str, ...]
    residual: tuple[str, ...] = ()
    attention: bool = False
    trained: str = ""


PLACEMENTS = {
    "onnxruntime": Placement(
        name="onnxruntime", symmetric=False, outputs=("Conv", "ConvTranspose"), residual=("Add", *RECTIFIERS, "MaxPool")
    ),
    "symmetric": Placement(name="symmetric", symmetric=True, outputs=(), residual=("Add",)),
    "openvino": Placement(
        name="openvino", symmetric=True, outputs=(), residual=("Add",), attention=True, trained="symmetric"
    ),
}


def is_transformer(model: onnx.ModelProto) -> bool:
    """Whether a residual stream runs through the graph that must stay in float."""
    return any(node.op_type in ("LayerNormalization", "Softmax") for node in model.graph.node)


def quantizable(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that hold constant weights: what int8 pays for, in the graph's order.

    What stands in front of the first convolution or weight on the way from the sensor, such as a resize, is not among
    them: frames are not rounded before they are seen.
    """
    weights = {entry.name for entry in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in PRODUCTS and node.input[1] in weights and not _prepares(node)
    ]


def sums(placement: Placement, model: onnx.ModelProto) -> list[str]:
    """Names of the residual sums that a placement quantizes."""
    if is_transformer(model) or "Add" not in placement.residual:
        return []
    stored = {entry.name for entry in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type == "Add" and not stored.intersection(node.input)]


def attention(placement: Placement, model: onnx.ModelProto) -> list[str]:
    """Names of the products of two activations that a placement quantizes: queries with keys, their softmax with values."""
    if not placement.attention or not any(node.op_type == "Softmax" for node in model.graph.node):
        return []
    return [node.name for node in _of_two(model)]


def _of_two(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    stored = {entry.name for entry in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type == "MatMul" and not stored.intersection(node.input)]


def watched(model: onnx.ModelProto) -> set[str]:
    """Values that some placement gives a range.

    They are the activations that a product with weights reads, what a convolution gives, in a transformer what the products
    of attention read, and in a convolutional net what its sums, ReLUs and poolings read and give.
    """
    weighted = set(quantizable(model))
    stored = {entry.name for entry in model.graph.initializer}
    between = () if is_transformer(model) else tuple(kind for each in PLACEMENTS.values() for kind in each.residual)
    names: set[str] = set()
    for node in model.graph.node:
        if node.name in weighted:
            names.add(node.input[0])
            if node.op_type not in MATRICES:
                names.add(node.output[0])
        elif node.op_type in between:
            names.update((*node.input, *node.output))
    if is_transformer(model):
        names.update(name for node in _of_two(model) for name in node.input)
    return names - stored - {""}


def _prepares(node: onnx.NodeProto) -> bool:
    return any("resize." in name for name in node.input)


def options_of(placement: Placement, model: onnx.ModelProto) -> dict[str, Any]:
    """Arguments of onnxruntime's quantizer: types and operators."""
    residual = () if is_transformer(model) else placement.residual
    kinds = [*PRODUCTS, *residual]
    activation = QuantType.QInt8 if placement.symmetric else QuantType.QUInt8
    extra: dict[str, Any] = {
        "WeightSymmetric": True,
        "ActivationSymmetric": placement.symmetric,
        "ForceQuantizeNoInputCheck": placement.symmetric,
        "OpTypesToExcludeOutputQuantization": [
            kind for kind in kinds if kind not in placement.outputs and (placement.symmetric or kind in MATRICES)
        ],
        "QDQOpTypePerChannelSupportToAxis": {"Conv": 0, "ConvTranspose": 1, "Gemm": 0},
    }
    if placement.symmetric:  # an int32 bias is no type of TensorRT's
        extra |= {"QuantizeBias": False, "QDQDisableWeightAdjustForInt32Bias": True}
    return {"activation_qType": activation, "op_types_to_quantize": kinds, "extra_options": extra}
