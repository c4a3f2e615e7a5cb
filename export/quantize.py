"""fp32 graph -> int8 graph with Q/DQ pairs placed where onnxruntime fuses them.

Two placements, told apart by what stands in the graph:

- convolutional: uint8 activations, outputs of convolutions and residual sums quantized too, since onnxruntime makes an
  integer convolution only when its output is quantized;
- transformer: symmetric int8, only the inputs of products with constant weights. The residual stream, norms, softmax and
  products of two activations stay in float: they carry what a ViT's vector is made of.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgessl.export.graph import IR_VERSION

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

Feeds = dict[str, NDArray[Any]]
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantize_graph(source: Path, target: Path, feeds: Sequence[Feeds]) -> None:
    """Quantize after training, on calibration feeds.

    Args:
        source: The fp32 graph.
        target: The int8 graph to write.
        feeds: Inputs to run the fp32 graph on, each a batch.
    """
    model = onnx.load(source)
    transformer = any(node.op_type in ("LayerNormalization", "Softmax") for node in model.graph.node)
    weights = {entry.name for entry in model.graph.initializer}
    given = {entry.name for entry in model.graph.input}
    excluded: set[str] = set()
    for node in model.graph.node:
        two_activations = node.op_type in ("MatMul", "Gemm") and node.input[1] not in weights
        is_port = node.op_type == "Add" and any(_comes_from(model, name, given) for name in node.input)
        if two_activations or is_port:
            excluded.add(node.name)
    common: dict[str, Any] = {
        "quant_format": QuantFormat.QDQ,
        "per_channel": True,
        "weight_type": QuantType.QInt8,
        "calibrate_method": CalibrationMethod.MinMax,
        "nodes_to_exclude": sorted(excluded),
    }
    if transformer:
        options = common | {
            "activation_type": QuantType.QInt8,
            "op_types_to_quantize": list(_PRODUCTS),
            "extra_options": {
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "ForceQuantizeNoInputCheck": True,
                "QDQDisableWeightAdjustForInt32Bias": True,
                "OpTypesToExcludeOutputQuantization": list(_PRODUCTS),
                "QDQOpTypePerChannelSupportToAxis": {"Conv": 0, "ConvTranspose": 1, "MatMul": 1, "Gemm": 0},
            },
        }
    else:
        options = common | {
            "activation_type": QuantType.QUInt8,
            "op_types_to_quantize": [*_PRODUCTS, "Add", "Relu", "MaxPool"],
            "extra_options": {"WeightSymmetric": True},
        }
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # onnxruntime advises, through the root logger, a preprocessing that is done already
    try:
        quantize_static(str(source), str(target), _Reader(feeds), **options)
    finally:
        root.setLevel(level)
    written = onnx.load(target)
    written.ir_version = IR_VERSION
    domains = {node.domain for node in written.graph.node}
    for entry in [entry for entry in written.opset_import if entry.domain not in domains]:
        written.opset_import.remove(entry)  # a domain that is imported and not used can still be refused
    onnx.save(written, target)


def _comes_from(model: onnx.ModelProto, name: str, given: set[str]) -> bool:
    """Whether a tensor is a port of the graph, or a reshaped one."""
    if name in given:
        return name.startswith("port")
    for node in model.graph.node:
        if name in node.output and node.op_type in ("Reshape", "Unsqueeze"):
            return _comes_from(model, node.input[0], given)
    return False


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._feeds: Iterator[Feeds] = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


def batches_of(frames: NDArray[Any], constants: Feeds, size: int = 32) -> list[Feeds]:
    """Calibration feeds: `frames` in batches beside the inputs that stay the same."""
    parts = np.array_split(frames, max(1, len(frames) // size))
    return [{"frames": part, **constants} for part in parts]
