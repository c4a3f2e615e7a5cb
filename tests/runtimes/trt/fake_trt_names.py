"""What the fake TensorRT's parts share: which names a version has, and a guard that lets no other through."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

API = json.loads(Path(__file__).with_name("trt_api.json").read_text())
MAGIC = b"FAKE PLAN "
ENUMS = ("BuilderFlag", "NetworkDefinitionCreationFlag", "TensorIOMode", "DataType", "MemoryPoolType")
MODULE = {*API["classes"], "ILogger", "Logger", "__version__"}
_TYPES = {1: "FLOAT", 10: "HALF", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 2: "UINT8"}
NUMPY = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64", "UINT8": "uint8"}


@dataclass
class Faults:
    """Ways to go wrong; sets hold precisions."""

    no_builder: bool = False
    parse: set[str] = field(default_factory=set)  # file names
    build: set[str] = field(default_factory=set)
    out_of_memory_above: int | None = None  # bytes of workspace
    wrong: set[str] = field(default_factory=set)
    wrong_when_strong: set[str] = field(default_factory=set)
    wrong_in_batches: set[int] = field(default_factory=set)
    wrong_in_graphs: bool = False
    nan: set[str] = field(default_factory=set)
    no_context: bool = False
    not_enqueued: bool = False
    device_fault: bool = False
    not_recordable: bool = False


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity


def names_of(cls: str, tag: str) -> set[str]:
    return {name for name, where in API["classes"][cls].items() if where == "all" or tag in where}


class Guarded:
    """An object, through the names that its class has in this version."""

    def __init__(self, trt: Any, cls: str, value: Any) -> None:
        object.__setattr__(self, "_guarded", (trt, cls, value))

    def __getattr__(self, name: str) -> Any:
        trt, cls, value = self._guarded
        trt._touched.add((cls, name))
        if name not in names_of(cls, trt._tag):
            raise AttributeError(f"{cls} has no {name} in {trt._tag}")
        return getattr(value, name)

    def __setattr__(self, name: str, new: Any) -> None:
        self.__getattr__(name)
        setattr(self._guarded[2], name, new)

    def __bytes__(self) -> bytes:
        return bytes(self._guarded[2])


def bare(value: Any) -> Any:
    return value._guarded[2] if isinstance(value, Guarded) else value


@dataclass
class Tensor:
    name: str
    shape: tuple[int, ...]
    dtype: str


def tensor_of(info: Any) -> Tensor:
    kind = info.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim)
    return Tensor(info.name, shape, _TYPES[kind.elem_type])
