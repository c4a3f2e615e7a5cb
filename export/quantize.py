"""fp32 graph + ranges -> int8 graph with Q/DQ pairs where one engine fuses them."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnx
from onnx import helper, numpy_helper

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded
from onnxruntime.quantization import CalibrationMethod, QuantType, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from edgessl.export.calibrate import Ranges
from edgessl.export.graph import IR_VERSION
from edgessl.export.placement import PRODUCTS, Placement, attention, options_of, quantizable
from edgessl.export.surgery import in_order, weights_of

_LEAST = 1e-6  # a value that never moved still gets a scale above zero


def quantized(
    model: onnx.ModelProto,
    ranges: Ranges,
    placement: Placement,
    *,
    exclude: Collection[str] = (),
    same: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Quantize after training.

    Args:
        model: The fp32 graph; it is not changed.
        ranges: Of its values, as `calibrate.observe` gives them.
        placement: Where the pairs go.
        exclude: Names of nodes that stay in float.
        same: Values that the ranges do not know -> the value whose range they have: what comes out of a port.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    options = options_of(placement, model)
    products = [] if ranges.trained else attention(placement, model)
    chosen = {*quantizable(model), *products} - set(exclude)
    kinds = options["op_types_to_quantize"]
    ports = {name for node in model.graph.node for name in node.input if name.startswith("port")}
    left_out = {
        node.name
        for node in model.graph.node
        if node.op_type in kinds and ((node.op_type in PRODUCTS and node.name not in chosen) or not node.name)
    }
    left_out |= set(exclude) | _ports(model, ports)
    seen = {
        name: TensorData(
            lowest=np.float32(min(low, 0.0)), highest=np.float32(max(ranges.high[name], low + _LEAST, 0.0))
        )
        for name, low in ranges.low.items()
    }
    seen |= {name: seen[source] for name, source in (same or {}).items() if source in seen}
    # One scale each, for now: see `_round_columns`.
    overrides = {name: [{"quant_type": QuantType.QInt8}] for name in _matrices(model)}
    # Nothing is below zero behind a softmax: all 256 steps are for what is above.
    behind = [node.output[0] for node in model.graph.node if node.op_type == "Softmax"] if products else []
    overrides |= {name: [{"quant_type": QuantType.QUInt8, "symmetric": False}] for name in behind}
    options["extra_options"]["TensorQuantOverrides"] = overrides
    with _quiet():
        quantizer = QDQQuantizer(
            copy,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, seen),
            nodes_to_quantize=[],
            nodes_to_exclude=sorted(left_out),
            **options,
        )
        quantizer.quantize_model()
    written: onnx.ModelProto = quantizer.model.model
    _round_columns(written, model)
    in_order(written)
    written.ir_version = IR_VERSION
    domains = {node.domain for node in written.graph.node}
    for entry in [entry for entry in written.opset_import if entry.domain not in domains]:
        written.opset_import.remove(entry)  # a domain that is imported and not used can still be refused
    return written


def _round_columns(written: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """A scale per column for the weights of MatMul, in place: largest magnitude / 127, as the quantizer has it for channels.

    It would round column by column, in Python, and a transformer has tens of thousands.
    """
    weights, stored = weights_of(model), weights_of(written)
    pairs = {node.input[0]: node for node in written.graph.node if node.op_type == "DequantizeLinear"}
    for name in _matrices(model):
        pair = pairs.get(f"{name}_quantized")
        if pair is None:  # all that read it stay in float
            continue
        matrix = numpy_helper.to_array(weights[name])
        axis = matrix.ndim - 1
        largest = np.abs(matrix).max(tuple(range(axis)))
        scale = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
        rounded = np.clip(np.rint(matrix / scale), -127, 127).astype(np.int8)
        for part, value in zip(pair.input, (rounded, scale, np.zeros(len(scale), np.int8)), strict=True):
            stored[part].CopyFrom(numpy_helper.from_array(value, part))
        pair.attribute.append(helper.make_attribute("axis", axis))


def _matrices(model: onnx.ModelProto) -> list[str]:
    """Weights that MatMul alone reads."""
    readers: dict[str, set[str]] = {name: set() for name in weights_of(model)}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in readers:
                readers[name].add(node.op_type if place == 1 else "")
    return [name for name, kinds in readers.items() if kinds == {"MatMul"}]


def _ports(model: onnx.ModelProto, ports: Collection[str]) -> set[str]:
    """Nodes that apply a port: rounded to the grid of its calibration, all ones, a scale would not move."""
    reached = set(ports)
    applied = set()
    for node in model.graph.node:
        if node.op_type in ("Reshape", "Unsqueeze") and node.input[0] in reached:
            reached.update(node.output)
        elif reached.intersection(node.input):
            applied.add(node.name)
    return applied


@contextmanager
def _quiet() -> Iterator[None]:
    """The engine advises, through the root logger, a preprocessing that is done already."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
