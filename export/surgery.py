"""Cuts and changes in an ONNX graph: one trace of the encoder gives every graph that must agree with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper


def without_ports(model: onnx.ModelProto) -> dict[str, str]:
    """Take the ports out of a graph, in place: each `x * scale + shift` becomes `x`.

    Returns:
        What came out of each port -> what went into it.
    """
    graph = model.graph
    producer = {name: node for node in graph.node for name in node.output}
    ports = {entry.name for entry in graph.input if entry.name.startswith("port")}

    def port_side(node: onnx.NodeProto) -> str:
        """The other input of a node that applies a port, empty where it applies none."""
        for place, name in enumerate(node.input[:2]):
            while name in producer and producer[name].op_type in ("Reshape", "Unsqueeze"):
                name = producer[name].input[0]
            if name in ports and node.op_type in ("Mul", "Add"):
                return str(node.input[1 - place])
        return ""

    passed = {node.output[0]: side for node in graph.node if (side := port_side(node))}
    replaced = {name: _last(passed, name) for name in passed}
    rename_inputs(model, replaced)
    return replaced


def _last(chain: dict[str, str], name: str) -> str:
    while name in chain:
        name = chain[name]
    return name


def rename_inputs(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Let every node read `names[x]` in place of `x`."""
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in names:
                node.input[place] = names[name]


def part(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """A copy that gives `outputs` of the graph, and holds only what they need."""
    graph = model.graph
    needed, nodes = set(outputs), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    given = {entry.name: entry for entry in graph.output}
    cut = onnx.ModelProto(
        ir_version=model.ir_version, producer_name=model.producer_name, producer_version=model.producer_version
    )
    cut.opset_import.extend(model.opset_import)
    cut.graph.name = graph.name
    cut.graph.node.extend(reversed(nodes))
    cut.graph.output.extend(given[name] for name in outputs)
    for field in ("initializer", "input", "value_info"):
        getattr(cut.graph, field).extend(entry for entry in getattr(graph, field) if entry.name in needed)
    return cut


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy that gives these inner float values as well, and nothing is pruned."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    there = {entry.name for entry in copy.graph.output}
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in there
    )
    return copy


def keep(field: object, entries: list[object]) -> None:
    """Let a repeated field of protobuf hold `entries`, which are its own."""
    copies = [type(entry)() for entry in entries]
    for copy, entry in zip(copies, entries, strict=True):
        copy.CopyFrom(entry)  # type: ignore[attr-defined]
    del field[:]  # type: ignore[attr-defined]
    field.extend(copies)  # type: ignore[attr-defined]


def in_order(model: onnx.ModelProto) -> None:
    """Sort the nodes so that each stands behind what it reads, otherwise as they were; in place."""
    maker = {name: index for index, node in enumerate(model.graph.node) for name in node.output if name}
    nodes, done, order = list(model.graph.node), set[int](), list[int]()
    for start in range(len(nodes)):
        stack = [start]
        while stack:
            index = stack[-1]
            missing = [maker[name] for name in nodes[index].input if name in maker and maker[name] not in done]
            if missing and index not in done:
                stack += missing
                continue
            stack.pop()
            if index not in done:
                done.add(index)
                order.append(index)
    keep(model.graph.node, [nodes[index] for index in order])


def static_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy that takes exactly `batch` samples per run; what follows from the size is computed once, here."""
    from onnxscript import optimizer

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for entry in (*copy.graph.input, *copy.graph.output):
        if entry.type.tensor_type.shape.dim[0].dim_param:
            entry.type.tensor_type.shape.dim[0].dim_value = batch
    del copy.graph.value_info[:]
    folded: onnx.ModelProto = optimizer.optimize(copy, input_size_limit=1024, output_size_limit=1024 * 1024)
    drop_notes(folded)
    return folded


def drop_notes(model: onnx.ModelProto) -> None:
    """Take out what exporter and optimizer say of their work, in place: no engine reads it."""
    graph = model.graph
    for entry in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del entry.metadata_props[:]
        entry.doc_string = ""
    del model.metadata_props[:], graph.metadata_props[:]


def readers_of(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Value -> the nodes that read it, in the graph's order."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def weights_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initializers by name."""
    return {entry.name: entry for entry in model.graph.initializer}


def set_weight(model: onnx.ModelProto, name: str, value: np.ndarray, *, copy_for: Collection[str] = ()) -> str:
    """Give an initializer other values; where `copy_for` names nodes, a copy that only these nodes read.

    Returns:
        The name of what was written.
    """
    if not copy_for:
        weights_of(model)[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name
    fresh = f"{name}.{sorted(copy_for)[0]}"
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), fresh))
    for node in model.graph.node:
        if node.name in copy_for:
            for place, given in enumerate(node.input):
                if given == name:
                    node.input[place] = fresh
    return fresh


def sliced(value: str, axis: int, first: int, end: int, output: str) -> tuple[onnx.NodeProto, dict[str, np.ndarray]]:
    """The node that takes entries `first` to `end` of an axis, and the constants that it reads, by name."""
    bounds = {f"{output}.from": first, f"{output}.to": end, f"{output}.axis": axis}
    node = helper.make_node("Slice", [value, *bounds], [output], name=output)
    return node, {name: np.array([number], np.int64) for name, number in bounds.items()}
