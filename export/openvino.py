"""ONNX file -> OpenVINO's own format: an `.xml` with the graph and a `.bin` with the weights, the same bytes every time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgessl.errors import EngineError
from edgessl.runtimes.constants import ConvConstants
from edgessl.runtimes.engines.ovcore import openvino, shared_core

_COUNTED = re.compile(r"[A-Z][A-Za-z0-9]*_\d+")  # `Reshape_10359`: OpenVINO's name for what has none


def write_ir(onnx_file: Path, xml: Path, *, half: bool = False) -> None:
    """Convert a graph; inputs, outputs, free sizes and Q/DQ pairs stay as they are.

    Args:
        onnx_file: The graph.
        xml: The file to write; its weights go beside it, with the suffix `.bin`.
        half: Store the weights of a float graph as fp16. That halves the file; the device still computes in the
            precision it is asked for. OpenVINO leaves a graph with Q/DQ pairs as it is.

    Raises:
        EngineError: OpenVINO cannot convert the graph, or the files cannot be written.
    """
    if xml.suffix != ".xml":
        raise EngineError(
            f"OpenVINO finds the weights of a graph by its suffix: name it {xml.with_suffix('.xml').name}"
        )
    try:
        model = openvino.convert_model(onnx_file)
        _forget_this_run(model)
        openvino.save_model(model, xml, compress_to_fp16=half)
    except Exception as error:  # openvino raises RuntimeError, OpConversionFailure and errors of its bindings
        version = str(openvino.__version__).partition("-")[0]
        raise EngineError(f"openvino {version} cannot convert {onnx_file.name} to {xml.name}: {error}") from error


def _forget_this_run(model: Any) -> None:
    """Take out the input's name, and numbers that count every node of the process, not of the graph."""
    for key in list(model.get_rt_info()):
        del model.get_rt_info()[key]
    model.set_friendly_name("edgessl")
    for place, node in enumerate(model.get_ordered_ops()):
        if _COUNTED.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}.{place}")


def conv_constants(xml: Path, name: str) -> ConvConstants | None:
    """What one convolution of an IR computes with, in float or rounded; None where it has something else.

    Args:
        xml: The graph, its weights beside it.
        name: Of the convolution in the ONNX graph; OpenVINO calls the sum with the bias so.
    """
    nodes = {node.get_friendly_name(): node for node in shared_core().read_model(xml).get_ordered_ops()}
    product, bias = _operands(nodes.get(name), "Add")
    _, weight = _operands(product, "Convolution")
    scale = None
    if weight is not None and weight.get_type_name() == "Multiply":
        converted, scale = (weight.input_value(place).get_node() for place in (0, 1))
        weight = converted.input_value(0).get_node() if converted.get_type_name() == "Convert" else None
    if weight is None or bias is None or not _is_float_constant(bias):
        return None
    if scale is None and not _is_float_constant(weight):
        return None
    if scale is not None and not (_is_float_constant(scale) and weight.get_type_name() == "Constant"):
        return None
    return ConvConstants(
        weight=weight.get_friendly_name(),
        scale="" if scale is None else scale.get_friendly_name(),
        bias=bias.get_friendly_name(),
        steps="",
    )


def _operands(node: Any, *kinds: str) -> tuple[Any, Any]:
    if node is None or node.get_type_name() not in kinds:
        return None, None
    return node.input_value(0).get_node(), node.input_value(1).get_node()


def _is_float_constant(node: Any) -> bool:
    return bool(
        node.get_type_name() == "Constant"
        and node.get_element_type().get_type_name() == "f32"
        and len(node.output(0).get_target_inputs()) == 1
    )
