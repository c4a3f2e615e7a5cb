"""What OpenVINO made of the quantization, read from the graph that it runs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

_PRODUCTS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
_INTEGERS = ("i8", "u8")
_PASSES_ON = ("Convert", "Eltwise", "Reorder", "Reshape", "Transpose")  # what may stand between numbers and their scale
_COMPUTES_BACK = (
    "Convert",
    "Multiply",
    "Reshape",
    "Subtract",
    "Transpose",
)  # the same, in a graph that is not compiled


def count_products(compiled: Any, rounded: Collection[str] = ()) -> dict[str, int]:
    """As in `Engine.fused`; attention that became one operator is none.

    Args:
        compiled: The graph.
        rounded: `rounded_in` of what it was compiled from, where its sizes are fixed: quantizing is then part of operators
            that say nothing but the name of what they end with.
    """
    count = {"int8": 0, "float": 0, "unfused_dequantize": 0}
    for node in compiled.get_runtime_model().get_ops():
        if _fact(node, "layerType") not in _PRODUCTS:
            continue
        integer = _fact(node, "runtimePrecision") in _INTEGERS
        count["int8" if integer else "float"] += 1
        if not integer:
            count["unfused_dequantize"] += sum(_is_quantized(port, rounded) for port in node.input_values())
    return count


def rounded_in(model: Any) -> set[str]:
    """Names of a graph's operators that give numbers as integers, or computed back from integers."""
    found: set[str] = set()
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if (
            kind == "FakeQuantize"
            or (kind == "Constant" and node.get_element_type().get_type_name() in _INTEGERS)
            or (kind in _COMPUTES_BACK and node.input_value(0).get_node().get_friendly_name() in found)
        ):
            found.add(str(node.get_friendly_name()))
    return found


def _fact(node: Any, name: str) -> str:
    return str(node.get_rt_info()[name].value)


def _is_quantized(port: Any, rounded: Collection[str]) -> bool:
    """Whether a float operand was quantized and is computed back to float before it is used."""
    node = port.get_node()
    kind = _fact(node, "layerType")
    if kind == "FakeQuantize":
        return True
    if kind == "Subgraph":
        return node.get_friendly_name() in rounded
    if kind == "Const":
        return _fact(node, "runtimePrecision") in _INTEGERS
    return kind in _PASSES_ON and node.get_input_size() > 0 and _is_quantized(node.input_value(0), rounded)
