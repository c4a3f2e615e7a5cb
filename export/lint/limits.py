"""The structured limits of TensorRT's operator table: one function per key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import onnx

from edgessl.export.lint.view import View, arguments, attributes, schema_of, subgraphs

Limit = Callable[["Site", Any], Iterator[str]]


class Site:
    """One node in its graph."""

    def __init__(self, view: View, node: onnx.NodeProto) -> None:
        self.view = view
        self.node = node
        self.inputs, self.outputs = arguments(node, view.opset)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the node, the schema's defaults included."""
        schema = schema_of(self.node.op_type, self.view.opset)
        values: dict[str, Any] = {}
        for entry in (schema.attributes if schema else {}).values():
            if entry.default_value.name:
                values |= attributes(onnx.NodeProto(attribute=[entry.default_value]))
        return values | attributes(self.node)

    @property
    def given(self) -> set[str]:
        """Names of the attributes that stand at the node."""
        return {entry.name for entry in self.node.attribute}

    def input(self, place: str) -> str:
        """Tensor at a named input; empty where nothing is given."""
        return next((found.tensor for found in self.inputs if found.place == place), "")

    def output(self, place: str) -> str:
        """Tensor at a named output; empty where nothing is given."""
        return next((found.tensor for found in self.outputs if found.place == place), "")

    def value(self, place: str) -> Any:
        """Constant value of a named input, or None."""
        tensor = self.input(place)
        return self.view.value(tensor) if tensor else None

    def rank(self, tensor: str) -> int | None:
        """Number of axes of a tensor, where it is known."""
        shape = self.view.shape(tensor) if tensor else None
        return None if shape is None else len(shape)


def broken(site: Site, limits: dict[str, Any]) -> Iterator[str]:
    """What of the limits a node breaks, in words."""
    for key, limit in limits.items():
        yield from LIMITS[key](site, limit)


def _attr_must_be(site: Site, limit: dict[str, Any]) -> Iterator[str]:
    for name, wanted in limit.items():
        if name in site.attributes and site.attributes[name] != wanted:
            yield f"{name} is {site.attributes[name]!r} and must be {wanted!r}"


def _attr_in(site: Site, limit: dict[str, list[Any]]) -> Iterator[str]:
    for name, wanted in limit.items():
        if name in site.attributes and site.attributes[name] not in wanted:
            yield f"{name} is {site.attributes[name]!r} and must be one of {', '.join(map(str, wanted))}"


def _attr_all_ones(site: Site, limit: list[str]) -> Iterator[str]:
    for name in limit:
        if any(value != 1 for value in site.attributes.get(name, ())):
            yield f"{name} is {list(site.attributes[name])} and must be all ones"


def _initializer_inputs(site: Site, limit: list[str]) -> Iterator[str]:
    for place in limit:
        tensor = site.input(place)
        maker = site.view.makers.get(tensor)
        if tensor and tensor not in site.view.stored and not (maker is not None and maker.op_type == "Constant"):
            yield f"input {place} must be an initializer; fold constants before the export"


def _build_time_constant_inputs(site: Site, limit: list[str]) -> Iterator[str]:
    for place in limit:
        tensor = site.input(place)
        if tensor and tensor not in site.view.constants:
            yield f"input {place} must be known when the engine is built, and depends on an input of the graph"


def _unsupported_inputs(site: Site, limit: list[str]) -> Iterator[str]:
    for place in limit:
        if site.input(place):
            yield f"input {place} is not supported; leave it out"


def _unsupported_outputs(site: Site, limit: list[str]) -> Iterator[str]:
    for place in limit:
        if site.output(place):
            yield f"output {place} is not supported; leave it out"


def _unsupported_attributes(site: Site, limit: list[str]) -> Iterator[str]:
    for name in limit:
        if name in site.given and site.attributes.get(name) != 0:  # 0 is the default of those that have one
            yield f"attribute {name} is not supported; leave it out"


def _rank(site: Site, limit: dict[str, int]) -> Iterator[str]:
    for place, wanted in limit.items():
        rank = site.rank(site.input(place))
        if rank is not None and rank != wanted:
            yield f"input {place} has {rank} axes and must have {wanted}"


def _input_rank(site: Site, limit: int) -> Iterator[str]:
    rank = site.rank(site.node.input[0]) if site.node.input else None
    if rank is not None and rank != limit:
        yield f"the input has {rank} axes and must have {limit}"


def _spatial_dims(site: Site, limit: list[int]) -> Iterator[str]:
    rank = site.rank(site.node.input[0]) if site.node.input else None
    if rank is not None and rank - 2 not in limit:
        yield f"{rank - 2} spatial axes; it takes {' or '.join(map(str, limit))}"


def _zero_point_must_be_zero(site: Site, limit: bool) -> Iterator[str]:
    return iter(())  # `qdq` says it, with the rest of the zero point


def _max_outputs(site: Site, limit: int) -> Iterator[str]:
    used = [name for name in site.node.output[limit:] if name]
    if used:
        yield f"only {limit} output is supported; {', '.join(used)} must go"


def _k_less_than(site: Site, limit: int) -> Iterator[str]:
    k = site.value("K")
    if k is not None and k.size == 1 and int(k.item()) >= limit:
        yield f"K is {int(k.item())} and must be below {limit}"


def _input_types(site: Site, limit: dict[str, list[str]]) -> Iterator[str]:
    for place, wanted in limit.items():
        kind = site.view.types.get(site.input(place), "")
        if kind and kind not in wanted:
            yield f"input {place} is {kind} and must be {' or '.join(wanted)}"


def _symmetric_pads(site: Site, limit: bool) -> Iterator[str]:
    pads = list(site.attributes.get("pads", ()))
    if pads[: len(pads) // 2] != pads[len(pads) // 2 :]:
        yield f"pads {pads} must be the same at both ends"


def _training_mode_must_be(site: Site, limit: bool) -> Iterator[str]:
    mode = site.value("training_mode")
    if mode is not None and mode.size == 1 and bool(mode.item()) != limit:
        yield "training_mode must be false; export the module in eval mode"


def _static_input_shape(site: Site, limit: bool) -> Iterator[str]:
    shape = site.view.shape(site.node.input[0]) if site.node.input else None
    if shape is not None and None in shape:
        yield "the input must have a fixed shape"


def _bidirectional_same_activations(site: Site, limit: bool) -> Iterator[str]:
    names = site.attributes.get("activations", [])
    half = len(names) // 2
    if site.attributes.get("direction") == "bidirectional" and names[:half] != names[half:]:
        yield "both directions must have the same activations"


def _build_time_constant_axis_dim(site: Site, limit: bool) -> Iterator[str]:
    shape = site.view.shape(site.node.input[0]) if site.node.input else None
    axis = site.attributes.get("axis", -1)
    if shape and -len(shape) <= axis < len(shape) and shape[axis] is None:
        yield f"axis {axis} must have a fixed length"


def _branches_same_rank(site: Site, limit: bool) -> Iterator[str]:
    branches = subgraphs(site.node)
    for left, right in zip(*(branch.output for branch in branches[:2]), strict=False) if len(branches) > 1 else ():
        ranks = [
            len(entry.type.tensor_type.shape.dim) if entry.type.tensor_type.HasField("shape") else None
            for entry in (left, right)
        ]
        if None not in ranks and ranks[0] != ranks[1]:
            yield f"branches give {left.name} with {ranks[0]} and {right.name} with {ranks[1]} axes; they must agree"


def _branches_distinct_names(site: Site, limit: bool) -> Iterator[str]:
    made = [{name for node in branch.node for name in node.output if name} for branch in subgraphs(site.node)[:2]]
    if len(made) > 1 and (both := sorted(made[0] & made[1])):
        yield f"both branches make a tensor named {both[0]!r}; give them their own names"


def _scan_output_length_static(site: Site, limit: bool) -> Iterator[str]:
    scans = len(site.node.output) - max(len(site.node.input) - 2, 0)
    if scans > 0 and site.input("M") not in site.view.constants:
        yield "the length of its scan outputs must be known when the engine is built; make the trip count a constant"


def _carried_shape_invariant(site: Site, limit: bool) -> Iterator[str]:
    for body in subgraphs(site.node)[:1]:
        for entry, leaves in zip(body.input[2:], body.output[1:], strict=False):
            kinds = [item.type.tensor_type for item in (entry, leaves)]
            shapes = [tuple(axis.dim_value for axis in kind.shape.dim) for kind in kinds if kind.HasField("shape")]
            if len(shapes) == 2 and shapes[0] != shapes[1]:
                yield f"{entry.name} enters as {list(shapes[0])} and leaves as {list(shapes[1])}; it must keep its shape"


def _axes_must_be_iota(site: Site, limit: bool) -> Iterator[str]:
    axes = site.attributes.get("axes")
    if axes and site.input("scales") and list(axes) != list(range(len(axes))):
        yield f"axes {list(axes)} must be 0, 1, 2, ... beside scales"


def _real_input(site: Site, limit: bool) -> Iterator[str]:
    shape = site.view.shape(site.input("signal"))
    if shape and len(shape) == 3 and shape[-1] == 2:
        yield "the signal must be real"


def _nothing(site: Site, limit: Any) -> Iterator[str]:
    return iter(())  # `seed_ignored` is said as a warning by `tensorrt`


#: Key of the table -> what checks it. A key that is not here is an error when the data file is read.
LIMITS: dict[str, Limit] = {
    "attr_must_be": _attr_must_be,
    "attr_in": _attr_in,
    "attr_all_ones": _attr_all_ones,
    "initializer_inputs": _initializer_inputs,
    "build_time_constant_inputs": _build_time_constant_inputs,
    "unsupported_inputs": _unsupported_inputs,
    "unsupported_outputs": _unsupported_outputs,
    "unsupported_attributes": _unsupported_attributes,
    "rank": _rank,
    "input_rank": _input_rank,
    "spatial_dims": _spatial_dims,
    "zero_point_must_be_zero": _zero_point_must_be_zero,
    "max_outputs": _max_outputs,
    "k_less_than": _k_less_than,
    "input_types": _input_types,
    "symmetric_pads": _symmetric_pads,
    "training_mode_must_be": _training_mode_must_be,
    "static_input_shape": _static_input_shape,
    "bidirectional_same_activations": _bidirectional_same_activations,
    "build_time_constant_axis_dim": _build_time_constant_axis_dim,
    "branches_same_rank": _branches_same_rank,
    "branches_distinct_names": _branches_distinct_names,
    "scan_output_length_static": _scan_output_length_static,
    "carried_shape_invariant": _carried_shape_invariant,
    "axes_must_be_iota_if_scales_is_tensor": _axes_must_be_iota,
    "real_input": _real_input,
    "seed_ignored": _nothing,
}
