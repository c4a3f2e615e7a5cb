"""Bytes become floats right behind the input: TensorRT has uint8 as an input, and no operator for it but Cast."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

_LAYOUT = ("Transpose", "Reshape", "Slice", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Gather")


def cast_inputs_first(model: onnx.ModelProto) -> None:
    """Move the Cast of each uint8 input in front of everything else that reads it, in place.

    Layout operators between the input and its Cast then move floats; the values are the same. What asks for the input's
    shape asks the Cast's output. Graphs without a uint8 input stay as they are, and so do those whose bytes are cast to
    something else than float32, or go into an operator that is neither a Cast nor one of layout.
    """
    for entry in model.graph.input:
        if entry.type.tensor_type.elem_type == TensorProto.UINT8:
            _cast(model.graph, entry.name)


def _cast(graph: onnx.GraphProto, name: str) -> None:
    users = [node for node in graph.node if name in node.input]
    if all(node.op_type == "Cast" for node in users):
        return
    tensors, casts = {name}, []
    for node in graph.node:  # in topological order
        if not tensors & set(node.input) or node.op_type == "Shape":
            continue
        if node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == TensorProto.FLOAT:
            casts.append(node)
        elif node.op_type in _LAYOUT and node.input[0] in tensors:
            tensors.update(node.output)
        else:
            return
    if tensors & {entry.name for entry in graph.output}:
        return
    taken = {tensor for node in graph.node for tensor in (*node.input, *node.output)}
    floats = f"{name}.float"
    while floats in taken:
        floats += "_"
    # Later casts of the moved floats would change nothing: their readers read what they read.
    renamed = {name: floats, **{node.output[0]: node.input[0] for node in casts}}
    renamed |= {node.output[0]: floats for node in casts if node.input[0] == name}
    ends = {entry.name for entry in graph.output}
    kept = [node for node in graph.node if node not in casts or node.output[0] in ends]
    for node in kept:
        for place, tensor in enumerate(node.input):
            node.input[place] = renamed.get(tensor, tensor)
    first = helper.make_node("Cast", [name], [floats], name=f"{name}.to_float", to=TensorProto.FLOAT)
    stale = tensors | {node.output[0] for node in casts}
    known = [entry for entry in graph.value_info if entry.name not in stale]
    nodes = [first, *kept]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(copies)
    graph.value_info.extend(known)
