"""Queries, keys and values by a product each, where a model computes all three in one and takes the result apart.

The numbers are the same: a product's columns know nothing of each other. Each of the three then has a range of its own to
be rounded in, comes out of its product rounded, and is turned to heads as bytes; and the one token of a last block that is
read needs one row of one product. The queries' scale goes into their weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgessl.export.rewrites.axes import attribute
from edgessl.export.surgery import in_order, part, readers_of, weights_of

_PERM = [2, 0, 3, 1, 4]  #: (batch, tokens, 3, heads, width) -> (3, batch, heads, tokens, width)


@dataclass(frozen=True)
class _Fused:
    """A product that makes queries, keys and values.

    Attributes:
        product: `(batch, tokens, channels)` x `(channels, 3 * channels)`.
        bias: The constant that is added; None where none is.
        tokens, heads, width: Of the result.
        taken: The three values `(batch, heads, tokens, width)` in their order.
    """

    product: onnx.NodeProto
    bias: NDArray[np.float32] | None
    tokens: int
    heads: int
    width: int
    taken: tuple[str, ...]


def separated(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with three products in the place of each that makes queries, keys and values; these keep their names."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights, readers = weights_of(copy), readers_of(copy)
    found = [fused for node in copy.graph.node if (fused := _fused(node, weights, readers)) is not None]
    for fused in found:
        _separate(copy, fused, weights, readers)
    in_order(copy)
    return part(copy, [entry.name for entry in copy.graph.output]) if found else model


def _fused(
    node: onnx.NodeProto, weights: dict[str, onnx.TensorProto], readers: dict[str, list[onnx.NodeProto]]
) -> _Fused | None:
    """The pattern that timm's attention leaves; None for anything else."""
    if node.op_type != "MatMul" or node.input[1] not in weights:
        return None
    value, bias = node.output[0], None
    after = readers.get(value, [])
    if len(after) == 1 and after[0].op_type == "Add":
        other = next((name for name in after[0].input if name != value), "")
        if other not in weights:
            return None
        bias, value = numpy_helper.to_array(weights[other]), after[0].output[0]
        after = readers.get(value, [])
    if len(after) != 1 or after[0].op_type != "Reshape" or after[0].input[1] not in weights:
        return None
    shape = numpy_helper.to_array(weights[after[0].input[1]]).tolist()
    turned = readers.get(after[0].output[0], [])
    if len(shape) != 5 or shape[2] != 3 or min(shape[1:]) < 1 or [each.op_type for each in turned] != ["Transpose"]:
        return None
    columns = 3 * shape[3] * shape[4]
    if weights[node.input[1]].dims[1:] != [columns] or (bias is not None and bias.shape != (columns,)):
        return None
    taken = _taken(readers.get(turned[0].output[0], []), weights, readers)
    if list(attribute(turned[0], "perm", [])) != _PERM or len(taken) != 3:
        return None
    return _Fused(node, bias, shape[1], shape[3], shape[4], taken)


def _taken(
    nodes: list[onnx.NodeProto], weights: dict[str, onnx.TensorProto], readers: dict[str, list[onnx.NodeProto]]
) -> tuple[str, ...]:
    """The values that are made of entry 0, 1 and 2 of the first axis; nothing where it is read in another way."""
    made: dict[int, str] = {}
    for node in nodes:
        if any(name not in weights for name in node.input[1:]) or (node.op_type == "Slice" and len(node.input) < 4):
            return ()
        cuts = [numpy_helper.to_array(weights[name]) for name in node.input[1:]]
        after = readers.get(node.output[0], [])
        if node.op_type == "Gather" and attribute(node, "axis", 0) == 0 and not cuts[0].ndim:
            made[int(cuts[0])] = node.output[0]
        elif node.op_type == "Slice" and [each.op_type for each in after] == ["Squeeze"] and cuts[2].tolist() == [0]:
            if int(cuts[1][0]) - int(cuts[0][0]) != 1:
                return ()
            made[int(cuts[0][0])] = after[0].output[0]
        else:
            return ()
    return tuple(made[index] for index in range(3)) if sorted(made) == [0, 1, 2] else ()


def _separate(
    model: onnx.ModelProto,
    fused: _Fused,
    weights: dict[str, onnx.TensorProto],
    readers: dict[str, list[onnx.NodeProto]],
) -> None:
    graph, product = model.graph, fused.product
    matrix = numpy_helper.to_array(weights[product.input[1]])
    columns = fused.heads * fused.width
    shape = f"{product.output[0]}.heads"
    sizes = np.array([-1, fused.tokens, fused.heads, fused.width], np.int64)
    graph.initializer.append(numpy_helper.from_array(sizes, shape))
    for index, value in enumerate(fused.taken):
        own = slice(index * columns, (index + 1) * columns)
        scale, out = _scaled(value, weights, readers)
        name = f"{product.name}.{'qkv'[index]}"
        steps = [("MatMul", f"{name}.weight", matrix[:, own] * scale)]
        if fused.bias is not None:
            steps.append(("Add", f"{name}.bias", fused.bias[own] * scale))
        given = product.input[0]
        for kind, constant, numbers in steps:
            made = f"{name}.product" if kind == "MatMul" else f"{name}.sum"
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(numbers), constant))
            # The product is a layer, and has the name that says where it stands.
            graph.node.append(
                helper.make_node(kind, [given, constant], [made], name=name if kind == "MatMul" else made)
            )
            given = made
        graph.node.append(helper.make_node("Reshape", [given, shape], [f"{name}.heads"], name=f"{name}.heads"))
        _forget(graph, out)
        graph.node.append(
            helper.make_node("Transpose", [f"{name}.heads"], [out], perm=[0, 2, 1, 3], name=f"{name}.turned")
        )


def _scaled(
    value: str, weights: dict[str, onnx.TensorProto], readers: dict[str, list[onnx.NodeProto]]
) -> tuple[np.float32, str]:
    """The number that all readers of a value multiply it by, and the value that is then."""
    after = readers.get(value, [])
    if len(after) == 1 and after[0].op_type == "Mul":
        other = next((name for name in after[0].input if name != value), "")
        if other in weights and not weights[other].dims:
            return np.float32(numpy_helper.to_array(weights[other])), after[0].output[0]
    return np.float32(1), value


def _forget(graph: onnx.GraphProto, value: str) -> None:
    """Take out the node that made a value."""
    for node in graph.node:
        if value in node.output:
            graph.node.remove(node)
            return
