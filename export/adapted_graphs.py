"""What was learned, put into ONNX graphs: ports and the affine correction as constants, trunk and tail as one graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

from edgessl.errors import GateError
from edgessl.export.surgery import part, readers_of, rename_inputs
from edgessl.runtimes.adapt.served import Affine
from edgessl.runtimes.correct import with_affine as corrected
from edgessl.runtimes.framefilter import FrameFilter
from edgessl.runtimes.port import Port
from edgessl.runtimes.spectrum import cosines


def composed(trunk: onnx.ModelProto, ports: tuple[Port, ...], tail: onnx.ModelProto) -> onnx.ModelProto:
    """Trunk, ports as constants, and tail as one graph: frames -> vectors."""
    front = part(trunk, ["latents"])
    given = {f"port{index}.{name}": value for index, port in enumerate(ports) for name, value in _named(port)}
    wanted = [entry for entry in front.graph.input if entry.name != "frames"]
    for entry in wanted:
        size = entry.type.tensor_type.shape.dim[0].dim_value
        still = np.ones if entry.name.endswith(".scale") else np.zeros
        front.graph.initializer.append(
            numpy_helper.from_array(given.get(entry.name, still(size, np.float32)), entry.name)
        )
        front.graph.input.remove(entry)
    whole: onnx.ModelProto = compose.merge_models(front, tail, io_map=[("latents", "latents")], prefix2="learned/")
    whole.graph.name = front.graph.name
    _rename_output(whole, "learned/vectors", "vectors")
    whole.graph.output[0].name = "vectors"
    return whole


def with_ports(trunk: onnx.ModelProto, ports: tuple[Port, ...]) -> onnx.ModelProto:
    """A copy of a trunk whose own ports, and statistics, come behind `ports`: scale and shift `(channels,)` each."""
    moved = onnx.ModelProto()
    moved.CopyFrom(trunk)
    for index, port in enumerate(ports):
        value, rank = _read_by(moved, index)
        names = {name: f"learned.port{index}.{name}" for name in ("scale", "shift", "scaled", "moved")}
        for name, numbers in _named(port):
            shaped = np.asarray(numbers, np.float32).reshape(rank)
            moved.graph.initializer.append(numpy_helper.from_array(shaped, names[name]))
        rename_inputs(moved, {value: names["moved"]})
        place = 1 + next(at for at, node in enumerate(moved.graph.node) if value in node.output)
        nodes = [
            helper.make_node("Mul", [value, names["scale"]], [names["scaled"]], name=names["scaled"]),
            helper.make_node("Add", [names["scaled"], names["shift"]], [names["moved"]], name=names["moved"]),
        ]
        for node in reversed(nodes):
            moved.graph.node.insert(place, node)
    return moved


def with_filter(model: onnx.ModelProto, front: FrameFilter) -> onnx.ModelProto:
    """A copy whose `frames` are filtered first, as `FrameFilter` does it; uint8 comes in and is handed on."""
    filtered, own = onnx.ModelProto(), "learned.filter"
    filtered.CopyFrom(model)
    there, offset, back, base = front.colours
    rows, columns = map(cosines, front.size)
    constants = {"there": there, "offset": offset, "back": back, "base": base, "gains": front.gains}
    constants |= {"rows": rows, "columns": columns, "rows.back": rows.T, "columns.back": columns.T}
    constants |= {part: getattr(front, part).reshape(3, 1, 1) for part in ("mean_gain", "shift")}
    constants |= {"axes": np.array([2, 3]), "least": np.array(0, np.float32), "most": np.array(255, np.float32)}
    first, last = {"perm": [0, 3, 1, 2]}, {"perm": [0, 2, 3, 1]}
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Cast", ["frames"], "levels", {"to": onnx.TensorProto.FLOAT}),
        ("MatMul", ["levels", "there"], "turned", {}),
        ("Add", ["turned", "offset"], "scaled", {}),
        ("Transpose", ["scaled"], "planes", first),
        ("ReduceMean", ["planes", "axes"], "own", {"keepdims": 1}),
        ("Sub", ["planes", "own"], "rest", {}),
        ("MatMul", ["rows", "rest"], "down", {}),
        ("MatMul", ["down", "columns.back"], "coefficients", {}),
        ("Mul", ["coefficients", "gains"], "gained", {}),
        ("MatMul", ["rows.back", "gained"], "up", {}),
        ("MatMul", ["up", "columns"], "equal", {}),
        ("Mul", ["own", "mean_gain"], "brightness", {}),
        ("Add", ["brightness", "shift"], "middle", {}),
        ("Add", ["equal", "middle"], "whole", {}),
        ("Transpose", ["whole"], "pixels", last),
        ("MatMul", ["pixels", "back"], "colours", {}),
        ("Add", ["colours", "base"], "exact", {}),
        ("Round", ["exact"], "rounded", {}),
        ("Clip", ["rounded", "least", "most"], "bounded", {}),
        ("Cast", ["bounded"], "frames", {"to": onnx.TensorProto.UINT8}),
    ]
    rename_inputs(filtered, {"frames": f"{own}.frames"})
    nodes = [
        helper.make_node(
            operator,
            [name if name == "frames" else f"{own}.{name}" for name in reads],
            [f"{own}.{gives}"],
            name=f"{own}.{gives}",
            **attributes,
        )
        for operator, reads, gives, attributes in steps
    ]
    for node in reversed(nodes):
        filtered.graph.node.insert(0, node)
    for name, value in constants.items():
        filtered.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), f"{own}.{name}"))
    return filtered


def with_affine(model: onnx.ModelProto, affine: Affine) -> onnx.ModelProto:
    """A copy whose `vectors` are `unit(vectors @ matrix + shift)`."""
    return onnx.load_model_from_string(corrected(model.SerializeToString(), affine.matrix, affine.shift))


def _named(port: Port) -> tuple[tuple[str, Any], tuple[str, Any]]:
    return ("scale", port[0]), ("shift", port[1])


def _read_by(trunk: onnx.ModelProto, index: int) -> tuple[str, tuple[int, ...]]:
    """The value that a port reads, and the shape that its scale takes beside it.

    Raises:
        GateError: It cannot be found.
    """
    readers, name = readers_of(trunk), f"port{index}.scale"
    stored = {entry.name: numpy_helper.to_array(entry) for entry in trunk.graph.initializer}
    shape: tuple[int, ...] = (-1,)
    while [node.op_type for node in readers.get(name, [])] in (["Reshape"], ["Unsqueeze"]):
        node = readers[name][0]
        sizes = stored[node.input[1]]
        if node.op_type == "Reshape":
            shape = tuple(int(size) for size in sizes)
        else:
            rank = len(shape) + len(sizes)
            new = {int(axis) % rank for axis in sizes}
            rest = iter(shape)
            shape = tuple(1 if axis in new else next(rest) for axis in range(rank))
        name = node.output[0]
    found = readers.get(name, [])
    if [node.op_type for node in found] != ["Mul"]:
        raise GateError(f"the trunk does not multiply by port{index}.scale; export the bundle again")
    return next(given for given in found[0].input if given != name), shape


def _rename_output(model: onnx.ModelProto, name: str, fresh: str) -> None:
    """Give a value another name, but for the graph's own list of outputs; in place."""
    rename_inputs(model, {name: fresh})
    for node in model.graph.node:
        for place, given in enumerate(node.output):
            if given == name:
                node.output[place] = fresh
