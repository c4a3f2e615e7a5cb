"""What a graph can be linted for: engines, their versions, and the tables of what each takes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from edgessl.errors import UnknownNameError

Version = tuple[int, int]

#: onnxruntime from this version on -> newest opset and IR version. Later versions than the last are not judged.
ONNXRUNTIME: dict[Version, tuple[int, int]] = {(1, 20): (21, 10), (1, 21): (22, 10)}
ONNXRUNTIME_UNJUDGED: Version = (1, 24)


@dataclass(frozen=True, kw_only=True)
class Target:
    """An engine at a version.

    Attributes:
        name: As it was asked for.
        engine: tensorrt, onnxruntime or openvino.
        version: Major and minor; None where no version was given.
        newer: The version is newer than the newest that the tables know of, and is judged by that one.
    """

    name: str
    engine: str
    version: Version | None = None
    newer: bool = False


@dataclass(frozen=True, kw_only=True)
class OpRow:
    """What a TensorRT version says of one operator.

    Attributes:
        supported: Whether its parser takes it.
        since: The version that began to, where the table names one.
        types: Tensor types that it takes.
        limits: By the keys of `lint_limits.LIMITS`.
    """

    supported: bool
    since: str = ""
    types: tuple[str, ...] = ()
    limits: dict[str, Any] = field(default_factory=dict)


def parse_target(text: str) -> Target:
    """`tensorrt:10.3`, `jetpack:6.2`, `onnxruntime:1.20` or `openvino` -> the target.

    Raises:
        UnknownNameError: There is no such engine, or no table for so old a version.
    """
    engine, _, version = text.strip().lower().partition(":")
    table = tensorrt_table()
    if engine == "jetpack":
        if version not in table["jetpack"]:
            raise UnknownNameError("target", text, choices())
        return Target(name=text, engine="tensorrt", version=version_of(table["jetpack"][version]))
    numbers = re.fullmatch(r"(\d{1,4})(?:\.(\d{1,4}))?(?:\.\d{1,6}){0,2}", version)
    if engine == "openvino" and (numbers or not version):
        return Target(name=text, engine=engine)
    if engine not in ("tensorrt", "onnxruntime") or not numbers:
        raise UnknownNameError("target", text, choices())
    asked = (int(numbers[1]), int(numbers[2] or 0))
    oldest = (10, 0) if engine == "tensorrt" else min(ONNXRUNTIME)
    if asked < oldest:
        raise UnknownNameError("target", text, choices())
    newer = engine == "tensorrt" and asked > version_of(table["newest"])
    return Target(name=text, engine=engine, version=asked, newer=newer)


def choices() -> list[str]:
    """Targets to choose from: some versions stand for all between them."""
    jetpacks = [f"jetpack:{name}" for name in tensorrt_table()["jetpack"]]
    return [
        "tensorrt:10.0",
        "tensorrt:10.3",
        "tensorrt:10.16",
        "tensorrt:11.1",
        "onnxruntime:1.20",
        "openvino",
        *jetpacks,
    ]


def tensorrt_row(op: str, version: Version) -> OpRow | None:
    """What the table says of `op` at `version`; None where it does not know the operator at all."""
    ops = tensorrt_table()["ops"]
    if op not in ops:
        return None
    row = ops[op]
    if row is None:
        return OpRow(supported=False)
    since = row.get("since", "")
    if since and version < version_of(since):
        return OpRow(supported=False, since=since)
    # An older row holds until the version that changed it.
    before = row.get("before", {})
    old = before if before and version < version_of(before["until"]) else {}
    return OpRow(
        supported=True,
        since=since,
        types=tuple(old.get("types", row["types"])),
        limits=dict(old.get("limits", row.get("limits", {}))),
    )


def tensorrt_opsets(version: Version) -> tuple[int, int]:
    """Oldest and newest opset that `version` takes: those of the nearest version at or below it."""
    rows = {version_of(name): span for name, span in tensorrt_table()["opsets"].items()}
    first, last = rows[max(known for known in rows if known <= version)]
    return int(first), int(last)


def onnxruntime_limits(version: Version | None) -> tuple[int, int] | None:
    """Newest opset and IR version of an onnxruntime; None where it is not known."""
    if version is None or version >= ONNXRUNTIME_UNJUDGED:
        return None
    return ONNXRUNTIME[max(known for known in ONNXRUNTIME if known <= version)]


def version_of(text: str) -> Version:
    """`"10.3"` -> `(10, 3)`."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


@cache
def tensorrt_table() -> dict[str, Any]:
    """The facts, with their sources: `export/data/tensorrt_ops.json`."""
    text = resources.files("edgessl.export").joinpath("data/tensorrt_ops.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table
