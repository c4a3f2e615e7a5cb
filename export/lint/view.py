"""An ONNX graph as the rules of the linter see it: nodes with named arguments, types, shapes, constants, neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import defs, helper, numpy_helper

#: ONNX element type -> the word that TensorRT's tables use
TYPE_WORDS = {
    "FLOAT": "FP32",
    "FLOAT16": "FP16",
    "BFLOAT16": "BF16",
    "FLOAT8E4M3FN": "FP8",
    "FLOAT4E2M1": "FP4",
    "INT4": "INT4",
    "INT8": "INT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "UINT8": "UINT8",
    "BOOL": "BOOL",
    "DOUBLE": "DOUBLE",
}
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
_SMALL = 1 << 24  # values; larger constants are not needed by any rule but the scales' length
_DEPTH = 64  # graphs in graphs


@dataclass(frozen=True)
class Argument:
    """One input or output of a node: its place in the operator's schema and the tensor that stands there."""

    place: str
    variable: str
    tensor: str


@dataclass
class View:
    """One graph, the names of the graphs around it included.

    Attributes:
        graph, opset: As in the file.
        types: Tensor -> ONNX element type, as a word.
        shapes: Tensor -> shape; None for a length that is not fixed.
        constants: Tensors that do not depend on an input.
        makers, users: Tensor -> the node that makes it, the nodes that use it.
    """

    graph: onnx.GraphProto
    opset: int
    types: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)
    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    users: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    stored: dict[str, onnx.TensorProto] = field(default_factory=dict)

    @property
    def inputs(self) -> list[str]:
        """Inputs that are no initializers."""
        return [entry.name for entry in self.graph.input if entry.name not in self.stored]

    def value(self, tensor: str) -> NDArray[Any] | None:
        """A constant's value, through Cast and Identity; None where it is not stored in the file as such."""
        for _ in range(_DEPTH):
            if tensor in self.stored:
                stored = self.stored[tensor]
                return None if stored.data_location == onnx.TensorProto.EXTERNAL else _array(stored)
            node = self.makers.get(tensor)
            if node is None:
                return None
            if node.op_type == "Constant":
                return _constant_value(node)
            if node.op_type not in ("Cast", "Identity") or not node.input:
                return None
            tensor = node.input[0]
        return None

    def shape(self, tensor: str) -> tuple[int | None, ...] | None:
        """Shape, where it is known."""
        return self.shapes.get(tensor)


def views(model: onnx.ModelProto) -> Iterator[View]:
    """The main graph and every graph inside it. Types and shapes must have been inferred."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    waiting: list[tuple[onnx.GraphProto, View | None, int]] = [(model.graph, None, 0)]
    while waiting:
        graph, around, depth = waiting.pop()
        view = _view(graph, opset, around)
        yield view
        if depth < _DEPTH:
            waiting += [(inner, view, depth + 1) for node in graph.node for inner in subgraphs(node)]


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Graphs that a node carries as attributes."""
    return [entry.g for entry in node.attribute if entry.type == onnx.AttributeProto.GRAPH]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Plain attributes of a node; strings are decoded."""
    values = {}
    for entry in node.attribute:
        if entry.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) or entry.ref_attr_name:
            continue
        value = helper.get_attribute_value(entry)
        values[entry.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return values


def arguments(node: onnx.NodeProto, opset: int) -> tuple[list[Argument], list[Argument]]:
    """Inputs and outputs of a node with their names in the schema; empty where the operator is not known."""
    schema = schema_of(node.op_type, opset)
    if schema is None:
        return [], []
    return _paired(node.input, schema.inputs), _paired(node.output, schema.outputs)


def schema_of(op: str, opset: int) -> defs.OpSchema | None:
    """The operator at that opset, where ONNX has it."""
    try:
        return defs.get_schema(op, opset, "")
    except defs.SchemaError:
        return None


def _paired(tensors: Any, places: Any) -> list[Argument]:
    found = []
    for index, tensor in enumerate(tensors):
        place = places[min(index, len(places) - 1)] if places else None
        if place is None or not tensor:
            continue
        # Only the last place may stand for many, and only there may they differ in type.
        several = place.option == defs.OpSchema.FormalParameterOption.Variadic
        variable = f"{place.type_str}#{index}" if several and not place.is_homogeneous else place.type_str
        found.append(Argument(place.name, variable, tensor))
    return found


def _view(graph: onnx.GraphProto, opset: int, around: View | None) -> View:
    view = View(graph=graph, opset=opset)
    if around is not None:
        view.types.update(around.types)
        view.shapes.update(around.shapes)
        view.constants.update(around.constants)
        view.makers.update(around.makers)
        view.stored.update(around.stored)
    for entry in (*graph.input, *graph.value_info, *graph.output):
        if entry.type.HasField("tensor_type"):
            kind = entry.type.tensor_type
            view.types[entry.name] = type_name(kind.elem_type)
            if kind.HasField("shape"):
                view.shapes[entry.name] = tuple(
                    axis.dim_value if axis.HasField("dim_value") else None for axis in kind.shape.dim
                )
    for tensor in graph.initializer:
        view.stored[tensor.name] = tensor
        view.types[tensor.name] = type_name(tensor.data_type)
        view.shapes[tensor.name] = tuple(tensor.dims)
        view.constants.add(tensor.name)
    for node in graph.node:
        for name in node.output:
            view.makers[name] = node
        for name in node.input:
            view.users.setdefault(name, []).append(node)
        if _folds(node, view):
            view.constants.update(node.output)
    return view


def _folds(node: onnx.NodeProto, view: View) -> bool:
    """Whether a node can be computed before the first run."""
    if node.op_type in _RANDOM or subgraphs(node):
        return False
    if node.op_type == "Shape" and node.input:
        shape = view.shape(node.input[0])
        return shape is not None and None not in shape
    return all(name in view.constants for name in node.input if name)


def type_name(code: int) -> str:
    """ONNX's word for an element type; empty for a number that is none."""
    return onnx.TensorProto.DataType.Name(code) if code in onnx.TensorProto.DataType.values() and code else ""


def _constant_value(node: onnx.NodeProto) -> NDArray[Any] | None:
    for entry in node.attribute:
        if entry.name == "value":
            return _array(entry.t)
        if entry.name in ("value_int", "value_ints", "value_float", "value_floats"):
            return np.asarray(helper.get_attribute_value(entry))
    return None


def _array(tensor: onnx.TensorProto) -> NDArray[Any] | None:
    count = 1
    for length in tensor.dims:
        count *= length
    if not 0 <= count <= _SMALL:
        return None
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError):  # the stored bytes are not what the shape says: `invalid` has said so
        return None
