"""What an export can be made for: one line per target. A target has its engine, its placement and its kind of file."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from edgessl.bundle import Kind
from edgessl.export.placement import PLACEMENTS, Placement

#: model, file, precision, nodes that stay fp32 in fp16 files
Write = Callable[[onnx.ModelProto, Path, str, Collection[str]], None]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A target.

    Attributes:
        engine: A key of the runtime's `ENGINES`.
        precisions: What can be written for it.
        automatic: What of that can pay, and is tried without being asked for.
        placement: Of its Q/DQ pairs.
        folder: In the bundle; empty for the top.
        suffix: Of a graph's file.
        data: Suffix of the file with the weights beside it, where there is one.
        write: Writes a graph.
        here: Its files can be opened on the machine that exports.
    """

    engine: str
    precisions: tuple[str, ...]
    automatic: tuple[str, ...]
    placement: Placement
    folder: str
    suffix: str
    data: str
    write: Write
    here: bool

    def path(self, role: str, precision: str) -> str:
        """Where a graph goes, inside the bundle."""
        name = f"{role}.{precision}{self.suffix}"
        return f"{self.folder}/{name}" if self.folder else name

    def files(self, role: str, precision: str) -> dict[str, Kind]:
        """What `write` leaves for a graph."""
        graph = Path(self.path(role, precision))
        found = {graph.as_posix(): Kind(role, precision, self.engine)}
        if self.data:
            found[graph.with_suffix(self.data).as_posix()] = Kind("data", precision, self.engine)
        return found


def _onnx(model: onnx.ModelProto, file: Path, precision: str, keep: Collection[str]) -> None:
    onnx.save(model, file)


def _openvino(model: onnx.ModelProto, file: Path, precision: str, keep: Collection[str]) -> None:
    from edgessl.export.openvino import write_ir
    from edgessl.export.rewrites.hoist import hoisted
    from edgessl.export.rewrites.pad import padded

    with TemporaryDirectory() as folder:
        source = Path(folder) / "graph.onnx"
        onnx.save(hoisted(padded(model)), source)
        write_ir(source, file, half=precision == "fp16")


def _tensorrt(model: onnx.ModelProto, file: Path, precision: str, keep: Collection[str]) -> None:
    from edgessl.export.typed import write_half

    with TemporaryDirectory() as folder:
        source = Path(folder) / "graph.onnx"
        onnx.save(model, source)
        have = {node.name for node in model.graph.node}
        write_half(source, file, keep=have.intersection(keep))


#: name in `--to` -> target
TARGETS = {
    "onnx": Target(
        engine="onnxruntime",
        precisions=("int8",),  # fp32 is encoder.onnx; in fp16 onnxruntime is ten times slower on a CPU
        automatic=("int8",),
        placement=PLACEMENTS["onnxruntime"],
        folder="",
        suffix=".onnx",
        data="",
        write=_onnx,
        here=True,
    ),
    "openvino": Target(
        engine="openvino",
        precisions=("fp32", "fp16", "int8"),
        automatic=("fp32", "int8"),  # fp16 halves the file and computes in fp32
        placement=PLACEMENTS["openvino"],
        folder="openvino",
        suffix=".xml",
        data=".bin",
        write=_openvino,
        here=True,
    ),
    "tensorrt": Target(
        engine="tensorrt",
        precisions=("fp16", "int8"),  # fp32 is built from encoder.onnx
        automatic=("fp16", "int8"),
        placement=PLACEMENTS["symmetric"],
        folder="tensorrt",
        suffix=".onnx",
        data="",
        write=_tensorrt,
        here=False,
    ),
}
