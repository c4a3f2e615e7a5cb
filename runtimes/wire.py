"""The fields of a protobuf message, read from its bytes: what an ONNX file is made of, without the onnx package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5  # wire types
_GRAPH = 7  # of ModelProto (onnx.proto)


class Field(NamedTuple):
    """A field that has a length: a message, a text or packed numbers.

    Attributes:
        number: Of the field.
        start, stop: Where it stands in its message, tag included.
        value: Its content.
    """

    number: int
    start: int
    stop: int
    value: memoryview


def fields(content: memoryview) -> Iterator[Field]:
    """The fields that have a length, in their order; the others are passed over.

    Raises:
        ValueError: It is no serialized message.
    """
    at = 0
    while at < len(content):
        start = at
        tag, at = varint(content, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = varint(content, at)
        elif kind in (_EIGHT, _FOUR):
            at += 8 if kind == _EIGHT else 4
        elif kind == _LENGTH:
            size, at = varint(content, at)
            if at + size <= len(content):
                yield Field(tag >> 3, start, at + size, content[at : at + size])
            at += size
        else:
            raise ValueError(f"it is no ONNX file: a field has wire type {kind}")
        if at > len(content):
            raise ValueError("it is no ONNX file: it ends inside a field")


def graph_of(content: bytes) -> Field:
    """The graph of a serialized ONNX model.

    Raises:
        ValueError: It is no serialized message, or does not hold one graph.
    """
    graphs = [field for field in fields(memoryview(content)) if field.number == _GRAPH]
    if len(graphs) != 1:
        raise ValueError(f"it holds {len(graphs)} graphs")
    return graphs[0]


def numbers(content: memoryview, field: int) -> list[int]:
    """The values of a repeated integer field, packed or not."""
    found, at = [], 0
    while at < len(content):
        tag, at = varint(content, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = varint(content, at)
            found += [value] * (tag >> 3 == field)
            continue
        if kind == _LENGTH:
            size, at = varint(content, at)
            inner = at
            while tag >> 3 == field and inner < at + size:
                value, inner = varint(content, inner)
                found.append(value)
            at += size
        else:
            at += 8 if kind == _EIGHT else 4
    return found


def varint(content: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends.

    Raises:
        ValueError: It does not end, or is no number of 64 bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it is no ONNX file: a number does not end")


def encoded(field: int, value: bytes) -> bytes:
    """A field that has a length, as it stands in a message."""
    return lead(field, len(value)) + value


def lead(field: int, size: int) -> bytes:
    """What stands in front of a field's `size` bytes."""
    return _encoded_number(field << 3 | _LENGTH) + _encoded_number(size)


def replaced(content: bytes, field: Field, parts: Sequence[bytes | memoryview]) -> bytes:
    """The message `content` with `parts`, one behind the other, as the value of a field of it. They are copied once."""
    whole, size = memoryview(content), sum(map(len, parts))
    return b"".join([whole[: field.start], lead(field.number, size), *parts, whole[field.stop :]])


def encoded_integer(field: int, value: int) -> bytes:
    """An integer field, as it stands in a message; `value` is 0 or more."""
    return _encoded_number(field << 3 | _VARINT) + _encoded_number(value)


def _encoded_number(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])
