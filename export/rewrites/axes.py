"""How one axis of a value passes through a node of an ONNX graph, entry by entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgessl.export.surgery import weights_of

#: Sizes of a value's axes; a name or nothing where a size is free.
Shape = tuple[int | str | None, ...]

SUMS = ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max")  #: of two operands that are stretched to each other
_BY_ENTRY = (
    *("Cast", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "Neg", "Relu", "Sigmoid"),
    *("Sqrt", "Tanh", "QuantizeLinear", "DequantizeLinear"),
)
_REDUCED = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2")


@dataclass(frozen=True)
class Axes:
    """What is known of a graph's shapes.

    Attributes:
        shapes: Of every value whose rank is known, weights and constants included.
        stored: Constants of at most eight entries, which say where a node cuts.
    """

    shapes: Mapping[str, Shape]
    stored: Mapping[str, NDArray[np.generic]]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Axes:
        """Infer the shapes of a graph."""
        weights = weights_of(model)
        small = {name for name, entry in weights.items() if np.prod(entry.dims, dtype=np.int64) <= 8}
        inferred = onnx.shape_inference.infer_shapes(_light(model, small), data_prop=True).graph
        shapes: dict[str, Shape] = {
            entry.name: tuple(
                size.dim_value if size.HasField("dim_value") else size.dim_param or None
                for size in entry.type.tensor_type.shape.dim
            )
            for entry in (*inferred.input, *inferred.value_info, *inferred.output)
            if entry.type.tensor_type.HasField("shape")
        }
        shapes |= {name: tuple(entry.dims) for name, entry in weights.items()}
        return cls(shapes, {name: numpy_helper.to_array(weights[name]) for name in small})

    def size(self, value: str, axis: int) -> int | None:
        """Entries along an axis, None where that is free or unknown."""
        shape = self.shapes.get(value, ())
        found = shape[axis] if axis < len(shape) else None
        return found if isinstance(found, int) else None

    def through(self, node: onnx.NodeProto, place: int, axis: int) -> int | None:
        """The axis of the first output whose entry i is made of entry i alone of `axis` of the input at `place`.

        None where entries are mixed or put elsewhere, and for operators that are not known here.
        """
        given, made = self.shapes.get(node.input[place]), self.shapes.get(node.output[0])
        if given is None or made is None or not 0 <= axis < len(given):
            return None
        rank, out = len(given), len(made)
        kind = node.op_type
        if kind in SUMS:
            return out - rank + axis
        if kind == "MatMul":
            mixed = rank - 1 if place == 0 else rank - 2
            return None if rank < 2 or out < rank or axis == mixed else out - rank + axis
        if place:  # what comes behind is no sample's
            return None
        if kind in _BY_ENTRY:
            steps = self.shapes.get(node.input[1], (None,)) if kind in ("QuantizeLinear", "DequantizeLinear") else ()
            return axis if all(size == 1 for size in steps) else None  # else a scale per entry of some axis
        if kind in ("LayerNormalization", "Softmax"):
            own = attribute(node, "axis", -1) % rank
            mixes = axis >= own if kind == "LayerNormalization" else axis == own
            return None if mixes else axis
        if kind == "Transpose":
            order = list(attribute(node, "perm", list(range(rank))[::-1]))
            return order.index(axis)
        if kind == "Reshape":
            return _reshaped(given, made, axis) if node.input[1] in self.stored else None
        return self._cut(node, axis, rank)

    def taken(self, node: onnx.NodeProto) -> tuple[int, int, int] | None:
        """Axis, first entry and end of the run that a `Gather` of one entry or a `Slice` takes; None for anything else."""
        rank = len(self.shapes.get(node.input[0], ())) if node.input else 0
        cuts = [self.stored[name] for name in node.input[1:] if name in self.stored]
        if not rank or len(cuts) < len(node.input) - 1 or any(cut.size != 1 for cut in cuts):
            return None
        numbers = [int(cut.ravel()[0]) for cut in cuts]
        if node.op_type == "Gather":
            return attribute(node, "axis", 0) % rank, numbers[0], numbers[0] + 1
        if node.op_type == "Slice" and len(numbers) >= 3 and numbers[3:] in ([], [1]):
            return numbers[2] % rank, numbers[0], numbers[1]
        return None

    def _cut(self, node: onnx.NodeProto, axis: int, rank: int) -> int | None:
        """As `through`, for what takes a part of an axis, or an axis away."""
        kind = node.op_type
        if kind == "Gather":
            own, steps = attribute(node, "axis", 0) % rank, self.shapes.get(node.input[1])
            if axis == own or steps is None:
                return None
            return axis if axis < own else axis - 1 + len(steps)
        if kind not in ("Slice", "Squeeze", "Unsqueeze", *_REDUCED):
            return None
        where = node.input[3 if kind == "Slice" else 1] if len(node.input) > (3 if kind == "Slice" else 1) else ""
        if where not in self.stored or not self.stored[where].size:
            return None
        named = [int(each) for each in self.stored[where].ravel()]
        if kind == "Unsqueeze":
            total = rank + len(named)
            new = {each % total for each in named}
            return [place for place in range(total) if place not in new][axis]
        own_axes = {each % rank for each in named}
        if axis in own_axes:
            return None
        gone = kind == "Squeeze" or (kind in _REDUCED and not attribute(node, "keepdims", 1))
        return axis - sum(each < axis for each in own_axes) if gone else axis


def _light(model: onnx.ModelProto, small: set[str]) -> onnx.ModelProto:
    """A graph of the same shapes whose weights are inputs: inference would copy a hundred megabytes of them twice."""
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.graph.name = model.graph.name
    for field in ("node", "input", "output", "value_info"):
        getattr(light.graph, field).extend(getattr(model.graph, field))
    given = {entry.name for entry in model.graph.input}
    for entry in model.graph.initializer:
        if entry.name in small:
            light.graph.initializer.append(entry)
        elif entry.name not in given:
            light.graph.input.append(helper.make_tensor_value_info(entry.name, entry.data_type, entry.dims))
    return light


def attribute(node: onnx.NodeProto, name: str, otherwise: Any) -> Any:
    """A node's attribute, or what it is where the node does not say."""
    found = next((each for each in node.attribute if each.name == name), None)
    return otherwise if found is None else helper.get_attribute_value(found)


def _reshaped(given: Shape, made: Shape, axis: int) -> int | None:
    """An axis stays whole where as many entries come before it as before one of the same size behind."""
    free = [sum(not isinstance(size, int) for size in shape) for shape in (given, made)]
    # One free size in each is the same one, whatever inference calls it, where the known sizes agree.
    if max(free) > 1 or _entries(given) != _entries(made):
        return None
    for place, size in enumerate(made):
        if size == given[axis] and isinstance(size, int) and _entries(made[:place]) == _entries(given[:axis]):
            return place
    return None


def _entries(shape: Shape) -> tuple[int, int]:
    """Product of the known sizes, and how many are free."""
    known = [size for size in shape if isinstance(size, int)]
    return int(np.prod(known, dtype=np.int64)), len(shape) - len(known)
