"""What can be done to an ONNX file that stays well-formed: for `benchmarks/fuzz_bundles.py`.

`fields` changes one field anywhere in the protobuf and mends every length around it, without knowing what the field means;
`bombs` writes graphs that no exporter would.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import mutations
import onnx
from onnx import TensorProto, helper

Field = tuple[int, int, Any]  # number, wire type, value: int or bytes


def fields(folder: Path, rng: random.Random) -> None:
    """One to three fields of a graph with another value, left out, or repeated."""
    file = rng.choice(sorted(folder.rglob("*.onnx")))
    content = file.read_bytes()
    for _ in range(rng.choice((1, 1, 3))):
        content = _changed(content, rng)
    file.write_bytes(content)
    mutations.relisted(folder)


def bombs(folder: Path, rng: random.Random) -> None:
    """A graph with a loop without end, a constant without bounds, data from elsewhere ..."""
    file = rng.choice(sorted(folder.rglob("*.onnx")))
    model = onnx.load(file)
    size = rng.choice((2**20, 2**31, 2**36, 2**62))
    graph, node, old = model.graph, helper.make_node, model.graph.output[0].name
    how = rng.randrange(9)
    if how < 4:  # something large, which the first output depends on
        for each in graph.node:
            for index, name in enumerate(each.output):
                if name == old:
                    each.output[index] = "before"
        graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [1], [size]))
        graph.initializer.append(helper.make_tensor("axes", TensorProto.INT64, [1], [0]))
        extra = {
            0: [node("ConstantOfShape", ["size"], ["much"])],
            1: [node("Cast", ["axes"], ["zero"], to=1), node("Expand", ["zero", "size"], ["much"])],
            2: [node("Cast", ["axes"], ["zero"], to=1), node("Tile", ["zero", "size"], ["much"])],
            3: [_loop(size), node("Cast", ["looped"], ["much"], to=1)],
        }[how]
        graph.node.extend([*extra, node("ReduceSum", ["much", "axes"], ["sum"], keepdims=0)])
        graph.node.append(node("Add", ["before", "sum"], [old]))
    elif how == 4:  # dimensions that its data does not have
        rng.choice(graph.initializer).dims[:] = rng.choice(([size, size], [size] * 30, [-1], [0], [-size, -1]))
    elif how == 5:  # data from a file of somebody else
        tensor = rng.choice(graph.initializer)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        place = rng.choice(("/etc/passwd", "../outside", "/dev/zero", "encoder.onnx", "golden.safetensors", "pipe"))
        for key, value in (("location", place), ("offset", "0"), ("length", str(rng.choice((16, size))))):
            tensor.external_data.add(key=key, value=value)
    elif how == 6:  # a circle
        graph.node[0].input[0] = graph.node[-1].output[0]
    elif how == 7:  # graphs in graphs
        inner = helper.make_graph([node("Identity", [graph.input[0].name], ["out"])], "g", [], [_bare("out")])
        for _ in range(rng.choice((5, 20))):
            step = node(
                "If", ["yes"], ["out"], then_branch=inner, else_branch=inner if rng.random() < 0.01 else inner_leaf()
            )
            inner = helper.make_graph([step], "g", [], [_bare("out")])
        graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
        graph.node.append(node("If", ["yes"], ["deep"], then_branch=inner, else_branch=inner_leaf()))
    else:  # shapes that its outputs and inputs do not have
        info = rng.choice([*graph.input, *graph.output])
        for dimension in info.type.tensor_type.shape.dim:
            dimension.dim_value = rng.choice((size, 1, 0, -1, 7))
    file.write_bytes(model.SerializeToString())
    mutations.relisted(folder)


def inner_leaf() -> onnx.GraphProto:
    leaf = helper.make_node("Constant", [], ["out"], value_float=1.0)
    return helper.make_graph([leaf], "leaf", [], [_bare("out")])


def _bare(name: str) -> onnx.ValueInfoProto:
    return helper.make_empty_tensor_value_info(name)


def _loop(count: int) -> onnx.NodeProto:
    """Counts to `count`."""
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Constant", [], ["one"], value_ints=[1]),
            helper.make_node("Add", ["at", "one"], ["next"]),
        ],
        "body",
        [scalar("i", TensorProto.INT64, []), scalar("go", TensorProto.BOOL, []), scalar("at", TensorProto.INT64, [1])],
        [scalar("go_on", TensorProto.BOOL, []), scalar("next", TensorProto.INT64, [1])],
    )
    return helper.make_node("Loop", ["size", "", "axes"], ["looped"], body=body)


def _changed(content: bytes, rng: random.Random) -> bytes:
    parsed = _parsed(content)
    if not parsed:
        return content + rng.randbytes(rng.choice((0, 1, 8)))
    index = rng.randrange(len(parsed))
    number, wire, value = parsed[index]
    if wire == 2 and _parsed(value) and rng.random() < 0.85:
        parsed[index] = (number, wire, _changed(value, rng))
        return _encoded(parsed)
    how = rng.randrange(6)
    if how == 0:
        del parsed[index]
    elif how == 1:
        parsed.insert(rng.randrange(len(parsed) + 1), parsed[index])
    elif how == 2:
        parsed[index] = (rng.choice((number + 1, number - 1 or 1, 2**20)), wire, value)
    elif isinstance(value, int):
        parsed[index] = (number, wire, rng.choice((0, 1, value + 1, 2**31, 2**62, 2**64 - 1, rng.randrange(32))))
    else:
        other = rng.choice((b"", value * 2, value[:-1], rng.randbytes(len(value)), b"A" * 100_000, value[::-1]))
        parsed[index] = (number, wire, other)
    return _encoded(parsed)


def _parsed(content: bytes) -> list[Field]:
    """The fields of a message; none where it is none."""
    found: list[Field] = []
    at = 0
    try:
        while at < len(content):
            tag, at = _varint(content, at)
            number, wire = tag >> 3, tag & 7
            value: Any
            if wire == 0:
                value, at = _varint(content, at)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
                value, at = content[at : at + size], at + size
            elif wire == 2:
                size, at = _varint(content, at)
                value, at = content[at : at + size], at + size
            else:
                return []
            if at > len(content) or not 1 <= number < 2**16:
                return []
            found.append((number, wire, value))
    except IndexError:
        return []
    return found


def _encoded(parsed: list[Field]) -> bytes:
    out = bytearray()
    for number, wire, value in parsed:
        out += _to_varint(number << 3 | wire)
        if wire == 0:
            out += _to_varint(value)
        else:
            out += (_to_varint(len(value)) if wire == 2 else b"") + value
    return bytes(out)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value & (2**64 - 1), at
        if shift > 63:
            raise IndexError("no varint")


def _to_varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


GRAPHS: dict[str, mutations.Change] = {"listed ONNX fields": fields, "listed ONNX bombs": bombs}
