"""Only what is read: where one token of the last block is taken, the others are not computed.

A vision transformer that pools by its class token computes 196 more in its last block for nobody. Their queries, their
projection and their share of the MLP are five sixths of what a block costs. The same holds for any graph that computes
along an axis and then takes one entry of it; the vector does not change.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgessl.export.rewrites.axes import SUMS, Axes
from edgessl.export.surgery import part, readers_of, sliced, weights_of


@dataclass(frozen=True)
class Entry:
    """One entry of an axis."""

    axis: int
    index: int


def narrowed(model: onnx.ModelProto, keep: Collection[str] = ()) -> onnx.ModelProto:
    """A copy without what is computed and not read; values keep their names, and those of one entry an axis of size 1.

    Args:
        model: The graph; it is not changed.
        keep: Values that stay whole.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    axes = Axes.of(model)
    wanted = _wanted(copy, axes, keep)
    if wanted:
        _rewrite(copy, axes, wanted)
        del copy.graph.value_info[:]  # of the shapes before
    return part(copy, [entry.name for entry in copy.graph.output])


def _wanted(model: onnx.ModelProto, axes: Axes, keep: Collection[str]) -> dict[str, Entry]:
    """Values of which one entry is all that is read, and whose nodes can compute it alone."""
    readers = readers_of(model)
    given = {entry.name for entry in model.graph.output}.union(keep)
    wanted: dict[str, Entry] = {}
    for node in reversed(model.graph.node):
        if len(node.output) != 1 or node.output[0] in given:
            continue
        value = node.output[0]
        asked = {_asked(reader, place, axes, wanted) for reader, place in _uses(readers.get(value, []), value)}
        entry = asked.pop() if len(asked) == 1 else None
        if entry is not None and (axes.size(value, entry.axis) or 1) > 1 and _inputs(node, axes, entry):
            wanted[value] = entry
    return wanted


def _uses(nodes: list[onnx.NodeProto], value: str) -> list[tuple[onnx.NodeProto, int]]:
    return [(node, place) for node in nodes for place, name in enumerate(node.input) if name == value]


def _asked(node: onnx.NodeProto, place: int, axes: Axes, wanted: dict[str, Entry]) -> Entry | None:
    """The only entry of its input that a node reads; None where it reads more."""
    if place == 0 and (taken := _taken(node, axes)) is not None:
        return taken
    entry = wanted.get(node.output[0])
    axis = _inputs(node, axes, entry).get(place) if entry is not None else None
    return None if entry is None or axis is None else Entry(axis, entry.index)


def _taken(node: onnx.NodeProto, axes: Axes) -> Entry | None:
    """The entry that a node takes of its first input, where it is made to take one."""
    axis, index, end = axes.taken(node) or (0, 0, 0)
    size = axes.size(node.input[0], axis) if axis > 0 and end - index == 1 else None
    return Entry(axis, index) if size is not None and 0 <= index < size else None


def _inputs(node: onnx.NodeProto, axes: Axes, entry: Entry) -> dict[int, int]:
    """Places of a node's inputs -> the axis of them that becomes `entry.axis` of its output; none where that is not known."""
    size, rank = axes.size(node.output[0], entry.axis), len(axes.shapes.get(node.output[0], ()))
    found = {}
    for place, name in enumerate(node.input):
        shape = axes.shapes.get(name)
        if node.op_type in (*SUMS, "MatMul"):
            beside = None if shape is None else shape[entry.axis - rank] if rank - entry.axis <= len(shape) else 1
            if beside is None or (node.op_type in SUMS and beside not in (1, size)):
                return {}  # it may be stretched, or as long
        for axis in range(len(shape or ())):
            if axes.size(name, axis) == size and axes.through(node, place, axis) == entry.axis:
                found[place] = axis
    return found


def _rewrite(model: onnx.ModelProto, axes: Axes, wanted: dict[str, Entry]) -> None:
    """Let every node of a wanted value compute its entry, in place."""
    nodes: list[onnx.NodeProto] = []
    cut: dict[tuple[str, Entry], str] = {}
    for node in model.graph.node:
        entry = wanted.get(node.output[0]) if node.output else None
        source = node.input[0] if node.input else ""
        first = source in wanted and _taken(node, axes) == wanted[source]
        if entry is not None:
            for place, axis in _inputs(node, axes, entry).items():
                name, own = node.input[place], Entry(axis, entry.index)
                if wanted.get(name) == own:
                    continue
                if (name, own) not in cut:
                    cut[name, own] = f"{name}.{axis}.{entry.index}"
                    nodes.append(_cut(model, name, own, cut[name, own]))
                node.input[place] = cut[name, own]
            if node.op_type == "Reshape":
                _one(model, node, axes, entry)
        if first:
            _take_first(model, node)
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _cut(model: onnx.ModelProto, name: str, entry: Entry, fresh: str) -> onnx.NodeProto:
    """One entry of a value under another name. Also of a weight: a tail's keep their names, and engines fold the rest."""
    node, constants = sliced(name, entry.axis, entry.index, entry.index + 1, fresh)
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    return node


def _one(model: onnx.ModelProto, node: onnx.NodeProto, axes: Axes, entry: Entry) -> None:
    """The target shape of a Reshape with 1 where all entries were."""
    sizes = np.array(axes.stored[node.input[1]], np.int64)
    sizes[entry.axis] = 1 if sizes[entry.axis] != -1 else -1
    node.input[1] = f"{node.output[0]}.shape"
    model.graph.initializer.append(numpy_helper.from_array(sizes, node.input[1]))


def _take_first(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """What took one entry of many takes the only one."""
    for place, number in ((1, 0), (2, 1)) if node.op_type == "Slice" else ((1, 0),):
        stored = weights_of(model)[node.input[place]]
        value = np.full(stored.dims, number, helper.tensor_dtype_to_np_dtype(stored.data_type))
        node.input[place] = f"{node.output[0]}.{place}"
        model.graph.initializer.append(numpy_helper.from_array(value, node.input[place]))
