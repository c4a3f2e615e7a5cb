"""fp32 ONNX, plain or with int8 Q/DQ, -> the same graph with its types written out: fp16 for a strongly typed TensorRT network.

TensorRT 11 takes types from the graph alone, and 10.x can. Inputs and outputs keep their types, with Casts inside. In fp32 stay
the way from the sensor to the first learned layer, sums of squares with the division that ends them, and every node that is
named in `keep`; see `typed_rules`. Scales of Q and DQ are fp16 where they fit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgessl.errors import GateError, InputError
from edgessl.export.cast_first import cast_inputs_first
from edgessl.export.graph import IR_VERSION
from edgessl.export.lint import INVALID, read_model
from edgessl.export.lint.view import View, arguments, schema_of, subgraphs, views
from edgessl.export.typed_rules import float_nodes, revive_dead_scales

FIRST_OPSET = 19  #: Q and DQ have fp16 scales from here on
LIMIT = 1e4  #: activations above it are kept in fp32: fp16 ends at 65504, and other inputs may go further


def write_half(source: Path, target: Path, *, keep: Collection[str] = ()) -> int:
    """Write the fp16 form of a graph; the same source gives the same bytes.

    Args:
        source: fp32 ONNX of opset 19 or newer, its weights inside.
        target: The file to write.
        keep: Names of nodes that stay fp32, such as those of `overflowing`.

    Returns:
        How many nodes compute in fp16.

    Raises:
        InputError: `source` is no ONNX file, or `keep` names a node that it does not have.
        GateError: The graph cannot be typed: too old an opset, control flow, or weights in another file.
    """
    model = _named(read_model(source))
    have = {node.name for node in model.graph.node}
    if unknown := sorted(set(keep) - have):
        raise InputError(
            f"{source} has no node {unknown[0]!r} to keep in fp32; its {len(have)} nodes are named in the file"
        )
    _check(model, source)
    _lift_constants(model.graph)
    cast_inputs_first(model)
    with _judged(source):
        view = _inferred(model)
    revive_dead_scales(view)
    halves = _Halves(view, float_nodes(view, keep))
    count = halves.rewrite(model)
    model.ir_version = IR_VERSION
    with _judged(target):
        onnx.checker.check_model(model, full_check=True)
    target.write_bytes(model.SerializeToString(deterministic=True))
    return count


def overflowing(source: Path, feeds: Iterable[Mapping[str, NDArray[Any]]], *, limit: float = LIMIT) -> set[str]:
    """Nodes that make or take a tensor with a magnitude above `limit`, or that is not finite, on the given inputs.

    Args:
        source: The fp32 graph.
        feeds: Inputs by name, one mapping per run.
        limit: The largest magnitude that is left to fp16.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    model = _named(read_model(source))
    types = _inferred(model).types
    made = [name for node in model.graph.node for name in node.output if types.get(name) == "FLOAT"]
    ends = {entry.name for entry in model.graph.output}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made if name not in ends
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    large: set[str] = set()
    for feed in feeds:
        for name, value in zip(made, session.run(made, dict(feed)), strict=True):
            if value.size and not float(np.abs(value).max()) <= limit:  # NaN is not below
                large.add(name)
    return {node.name for node in model.graph.node if large & {*node.input, *node.output}}


class _Halves:
    """Rewrites the nodes of one graph in order, with Casts where the type changes."""

    def __init__(self, view: View, floats: set[str]) -> None:
        self.view = view
        self.floats = floats
        self.ends = {entry.name for entry in view.graph.output}
        # Tensor of the source -> its name in fp32 and in fp16, where it exists in that type by now.
        self.as_float = {name: name for name in view.inputs if view.types[name] == "FLOAT"}
        self.as_half: dict[str, str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, onnx.TensorProto] = {}

    def rewrite(self, model: onnx.ModelProto) -> int:
        """Replace nodes and initializers of the model; returns the number of nodes in fp16."""
        count = sum([self._node(node) for node in self.view.graph.node])
        for name in self.ends & set(self.view.stored):
            self._stored(name, half=False)
        graph = model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.stored.values())
        return count

    def _node(self, source: onnx.NodeProto) -> bool:
        node = onnx.NodeProto.FromString(source.SerializeToString())
        del node.metadata_props[:]
        node.ClearField("doc_string")
        inputs, outputs = arguments(source, self.view.opset)
        variables = {"": "", **{found.tensor: found.variable for found in (*inputs, *outputs)}}
        half = source.name not in self.floats and any(self._may_be_half(source, name, variables) for name in variables)
        for place, name in enumerate(source.input):
            if name:
                node.input[place] = self._as(name, half=half and self._may_be_half(source, name, variables))
        after = []
        for place, name in enumerate(source.output):
            if self.view.types.get(name) != "FLOAT":
                continue
            if not (half and self._may_be_half(source, name, variables)):
                self.as_float[name] = name
            elif name in self.ends:
                node.output[place] = self.as_half[name] = f"{name}.half"
                self.as_float[name] = name
                after.append(_cast(f"{name}.half", name, TensorProto.FLOAT))
            else:
                self.as_half[name] = name
        self.nodes += [node, *after]
        return half

    def _may_be_half(self, node: onnx.NodeProto, tensor: str, variables: Mapping[str, str]) -> bool:
        """Whether the operator takes this tensor in fp16; some have inputs that are always fp32."""
        schema = schema_of(node.op_type, self.view.opset)
        if schema is None or self.view.types.get(tensor) != "FLOAT":
            return False
        variable = variables.get(tensor, "").partition("#")[0]
        return any(
            entry.type_param_str == variable and "tensor(float16)" in entry.allowed_type_strs
            for entry in schema.type_constraints
        )

    def _as(self, name: str, *, half: bool) -> str:
        if name in self.view.stored:
            return self._stored(name, half=half)
        if self.view.types.get(name) != "FLOAT":
            return name
        names, other = (self.as_half, self.as_float) if half else (self.as_float, self.as_half)
        if name not in names:
            names[name] = f"{name}.half" if half else f"{name}.float32"
            self.nodes.append(_cast(other[name], names[name], TensorProto.FLOAT16 if half else TensorProto.FLOAT))
        return names[name]

    def _stored(self, name: str, *, half: bool) -> str:
        tensor = self.view.stored[name]
        if not half or tensor.data_type != TensorProto.FLOAT:
            self.stored[name] = tensor
            return name
        copied = f"{name}.half"
        if copied not in self.stored:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            self.stored[copied] = numpy_helper.from_array(values, copied)
        return copied


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}.cast", to=to)


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every node has a name of its own."""
    taken = {node.name for node in model.graph.node}
    seen = {""}
    for index, node in enumerate(model.graph.node):
        name = node.name
        if name in seen:
            name = f"{node.op_type}.{index}"
            while name in taken:
                name += "_"
            node.name = name
        seen.add(name)
        taken.add(name)
    return model


def _check(model: onnx.ModelProto, source: Path) -> None:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    problems = []
    if opset < FIRST_OPSET:
        problems.append(f"is of opset {opset}; export it with opset {FIRST_OPSET} or newer")
    if any(subgraphs(node) for node in model.graph.node) or model.functions:
        problems.append("has control flow or local functions; export it without")
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        problems.append("has its weights in another file; save it in one")
    if any(node.domain not in ("", "ai.onnx") for node in model.graph.node):
        problems.append("has operators that are not ONNX's")
    if problems:
        raise GateError(f"{source} cannot be written in fp16: it {'; it '.join(problems)}")
    with _judged(source):
        onnx.checker.check_model(model)


@contextlib.contextmanager
def _judged(path: Path) -> Iterator[None]:
    """What onnx finds wrong with a graph, as our error."""
    try:
        yield
    except INVALID as error:
        said = " ".join(str(error).split())[:300]
        raise GateError(f"{path} is no valid graph: {said}. Copy or export it again") from error


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Constant nodes become initializers, so that both are typed in one place."""
    kept = []
    for node in graph.node:
        value = {entry.name: entry for entry in node.attribute} if node.op_type == "Constant" else {}
        if "value" in value:
            graph.initializer.append(value["value"].t)
            graph.initializer[-1].name = node.output[0]
        elif "value_float" in value or "value_floats" in value:
            plain = helper.get_attribute_value(next(iter(value.values())))
            graph.initializer.append(numpy_helper.from_array(np.asarray(plain, np.float32), node.output[0]))
        elif "value_int" in value or "value_ints" in value:
            plain = helper.get_attribute_value(next(iter(value.values())))
            graph.initializer.append(numpy_helper.from_array(np.asarray(plain, np.int64), node.output[0]))
        else:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(kept)


def _inferred(model: onnx.ModelProto) -> View:
    """The main graph with the type of every tensor."""
    view = next(views(onnx.shape_inference.infer_shapes(model, data_prop=True)))
    lost = [name for node in view.graph.node for name in node.output if name and not view.types.get(name)]
    if lost:
        raise GateError(f"the type of {lost[0]!r} is not known, and so the graph cannot be typed")
    return view
