"""The half of the fake TensorRT that runs plans, in onnxruntime."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
from fake_trt_names import MAGIC, NUMPY, Guarded, Severity, tensor_of


class Runtime:
    def __init__(self, trt: Any, logger: Any) -> None:
        self.trt, self.logger = trt, logger

    def deserialize_cuda_engine(self, content: bytes) -> Any:
        if not content.startswith(MAGIC):
            self.logger.log(Severity.ERROR, "Error Code 1: Serialization (stdArchiveReader magic tag mismatch)")
            return None
        head, _, graph = content[len(MAGIC) :].partition(b"\n")
        facts = json.loads(head)
        if facts["version"] != self.trt._version:
            line = f"expecting library version {self.trt._version} got {facts['version']}, please rebuild."
            self.logger.log(Severity.ERROR, f"Error Code 6: API Usage Error (plan is not compatible, {line})")
            return None
        return Guarded(self.trt, "ICudaEngine", _Engine(self.trt, self.logger, facts, graph))


class _Engine:
    def __init__(self, trt: Any, logger: Any, facts: dict[str, Any], content: bytes) -> None:
        self.trt, self.logger, self.facts, self.name = trt, logger, facts, facts["name"]
        graph = onnx.load_model_from_string(content).graph
        self.inputs = {info.name: tensor_of(info) for info in graph.input}
        self.outputs = {info.name: tensor_of(info) for info in graph.output}
        self.tensors = self.inputs | self.outputs
        self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return self.trt._enums["TensorIOMode"]["INPUT" if name in self.inputs else "OUTPUT"]

    def get_tensor_dtype(self, name: str) -> Any:
        return self.trt._enums["DataType"][self.tensors[name].dtype]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        assert name in self.inputs
        return self.facts["profile"][name]

    def create_execution_context(self) -> Any:
        if self.trt._faults.no_context:
            self.logger.log(Severity.ERROR, "Error Code 2: OutOfMemory (no memory for activations)")
            return None
        return Guarded(self.trt, "IExecutionContext", _Context(self))


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine, self.trt = engine, engine.trt
        self.shapes = {name: tensor.shape for name, tensor in engine.inputs.items()}
        self.addresses: dict[str, int] = {}
        self.changes = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        bounds = self.engine.facts["profile"].get(name)
        low, high = (bounds[0], bounds[2]) if bounds else (self.engine.inputs[name].shape,) * 2
        if not all(least <= size <= most for least, size, most in zip(low, shape, high, strict=True)):
            self.engine.logger.log(Severity.ERROR, f"Error Code 3: API Usage Error ({name} is outside the profile)")
            return False
        self.shapes[name] = tuple(shape)
        self.changes += 1
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.shapes:
            return self.shapes[name]
        return tuple(self.shapes["frames"][0] if size < 0 else size for size in self.engine.outputs[name].shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        self.changes += 1
        return address % 256 == 0

    def execute_async_v3(self, stream: int) -> bool:
        cudart, faults = self.trt._cudart, self.trt._faults
        recorded = stream in cudart.recording
        if faults.not_enqueued or set(self.addresses) != set(self.engine.tensors) or not stream:
            self.engine.logger.log(Severity.ERROR, "Error Code 1: Cuda Runtime (enqueue failed)")
            return False
        if recorded and faults.not_recordable:
            cudart.spoiled.add(stream)
        shapes, changes = dict(self.shapes), self.changes

        def work() -> None:
            if faults.device_fault or (recorded and changes != self.changes):  # NVIDIA: undefined
                raise type(cudart).Fault
            self._compute(shapes, recorded=recorded)

        cudart.enqueue(stream, work)
        return True

    def _compute(self, shapes: dict[str, tuple[int, ...]], *, recorded: bool) -> None:
        view, faults = self.trt._cudart.view, self.trt._faults
        feeds = {
            name: view(self.addresses[name], NUMPY[tensor.dtype], shapes[name]).copy()
            for name, tensor in self.engine.inputs.items()
        }
        precision = self.engine.name.split()[-1]
        wrong = precision in faults.wrong or (precision in faults.wrong_when_strong and self.engine.facts["strong"])
        wrong = wrong or len(feeds["frames"]) in faults.wrong_in_batches or (recorded and faults.wrong_in_graphs)
        for name, value in zip(self.engine.outputs, self.engine.session.run(None, feeds), strict=True):
            if wrong:
                value = np.roll(value, 1, axis=1)
            if precision in faults.nan:
                value = np.full_like(value, np.nan)
            view(self.addresses[name], value.dtype.name, value.shape)[:] = value
