"""PyTorch module -> one plain ONNX file: opset 20, IR 10, named inputs and outputs, no local functions, no data file."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgessl.errors import GateError, InputError
from edgessl.export.cast_first import cast_inputs_first
from edgessl.export.surgery import drop_notes

OPSET = 20  #: the newest that TensorRT 10.0 to 10.3 (JetPack 6) take
IR_VERSION = 10  #: the newest that onnxruntime 1.20 to 1.23 (JetPack 6) take


def write_graph(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Sequence[str] = (),
    constants: Mapping[str, Tensor] | None = None,
) -> None:
    """Trace and write a graph.

    Args:
        module: What to export; its positional arguments are `example`.
        example: Example inputs; a batch must be at least 2, since torch makes a constant of 1.
        path: The file to write.
        inputs, outputs: Names, in order.
        dynamic: Inputs whose first axis is a batch of any size.
        constants: Inputs that become initializers of that name with these values.

    Raises:
        GateError: The file that came out is not what was promised.
        InputError: The module cannot be traced.
    """
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    shapes = tuple({0: batch} if name in dynamic else None for name in inputs)
    with _quiet(), torch.no_grad():
        try:
            traced = torch.export.export(_Positional(module), example, dynamic_shapes=(shapes,), strict=False)
        except Exception as error:  # whatever the model's own code raises when it is traced
            said = str(error).strip().partition("\n")[0][:300] or type(error).__name__
            raise InputError(
                f"torch cannot trace this encoder for {path.name}: {said}. It must take any batch by the same operations; "
                "EDGESSL_DEBUG=1 shows where"
            ) from error
        program = torch.onnx.export(
            traced,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
        )
    if program is None:
        raise GateError(f"torch gave no graph for {path.name}")
    model = program.model_proto
    model.ir_version = IR_VERSION
    _name_by_scope(model)
    for name, value in (constants or {}).items():
        _make_constant(model.graph, name, value)
    cast_inputs_first(model)
    check_graph(
        model, inputs=[name for name in inputs if name not in (constants or {})], outputs=outputs, name=path.name
    )
    onnx.save(model, path)


def check_graph(model: onnx.ModelProto, *, inputs: Sequence[str], outputs: Sequence[str], name: str) -> None:
    """Refuse a graph that other engines than this machine's may not take.

    Raises:
        GateError: Wrong opset, IR version, names, local functions, or external data.
    """
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    problems = []
    if opsets.get("", 0) != OPSET:
        problems.append(f"opset {opsets.get('')} instead of {OPSET}")
    if model.ir_version > IR_VERSION:
        problems.append(f"IR version {model.ir_version} above {IR_VERSION}")
    if model.functions:
        problems.append(f"{len(model.functions)} local functions")
    if any(tensor.external_data for tensor in model.graph.initializer):
        problems.append("external data")
    if [entry.name for entry in model.graph.input] != list(inputs):
        problems.append(f"inputs {[entry.name for entry in model.graph.input]} instead of {list(inputs)}")
    if [entry.name for entry in model.graph.output] != list(outputs):
        problems.append(f"outputs {[entry.name for entry in model.graph.output]} instead of {list(outputs)}")
    foreign = sorted({node.domain for node in model.graph.node if node.domain})
    if foreign:
        problems.append(f"operators of {', '.join(foreign)}")
    if problems:
        raise GateError(f"{name} came out with {'; '.join(problems)}")
    onnx.checker.check_model(model, full_check=True)


def _name_by_scope(model: onnx.ModelProto) -> None:
    """Call nodes after the module that they come from, `stages.0.attn.qkv/MatMul`, and drop the exporter's notes.

    The notes hold stack traces: paths of this machine, and other bytes wherever the project lies.
    """
    seen: Counter[str] = Counter()
    for node in model.graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}.get("pkg.torch.onnx.name_scopes", "[]")
        modules = [scope for scope in ast.literal_eval(scopes)[:-1] if scope.partition(".")[0] == "module"]
        place = (modules[-1] if modules else "").removeprefix("module").removeprefix(".").removeprefix("encoder.")
        name = f"{place}/{node.op_type}".lstrip("/")
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}.{seen[name]}"
    drop_notes(model)


class _Positional(nn.Module):
    """One signature for every module, since dynamic shapes are given per parameter."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.module(*arguments)  # type: ignore[no-any-return]


def _make_constant(graph: onnx.GraphProto, name: str, value: Tensor) -> None:
    entry = next((entry for entry in graph.input if entry.name == name), None)
    if entry is None:
        raise GateError(f"the graph has no input {name!r} to make a constant of")
    graph.input.remove(entry)
    graph.initializer.append(numpy_helper.from_array(value.detach().contiguous().numpy(), name))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress and advice off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
