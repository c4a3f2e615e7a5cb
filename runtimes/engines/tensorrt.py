"""TensorRT, on a plan that `edgessl build` made on this device."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import EngineError
from edgessl.runtimes.engines.base import Arrays, EngineSettings, TensorInfo, refuse_settings
from edgessl.runtimes.engines.cuda import Buffer, Cuda, Graph
from edgessl.runtimes.engines.trtlib import keeping_logger, load_trt, made

PLAN = ".plan"
BUILD = "type: edgessl build BUNDLE"
NAMED = "edgessl "  # a plan's own name is this and its precision

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}
Shape = tuple[int, ...]


class TensorRt:
    """One plan, one execution context, one stream, and memory for the largest batch that the plan was built for.

    A batch larger than that runs in parts. Where a shape comes a second time in a row its work is recorded as a CUDA
    graph, and launched by one call from then on. Another shape changes the context that the graph was recorded from,
    so the graph goes.

    Args:
        graph: A plan, or its content.
        settings: The GPU has its own threads. Those asked for are of the graphs beside it, and shown in `info`.
        cuda: The CUDA runtime; found on this machine when it is None.
        cuda_graph: Record graphs.

    Raises:
        InputError: The settings ask for spinning or cores.
        EngineError: The plan is not one, is of another TensorRT or GPU, or does not fit into memory.
    """

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]

    def __init__(
        self,
        graph: Path | bytes,
        *,
        settings: EngineSettings | None = None,
        cuda: Cuda | None = None,
        cuda_graph: bool = True,
    ) -> None:
        settings = settings or EngineSettings()
        refuse_settings("tensorrt", settings, without="the GPU runs the plan, and none of the processor's cores do")
        self._threads = settings.threads
        self._lock = threading.Lock()  # a context holds the shapes of one run
        what = f"a plan of {len(graph)} bytes" if isinstance(graph, bytes) else str(graph)
        if isinstance(graph, Path) and graph.suffix != PLAN:
            raise EngineError(
                f"TensorRT cannot load {what}: it runs plans, which are built on the device that runs them; {BUILD}"
            )
        self._trt = load_trt()
        self._logger = keeping_logger(self._trt)
        self._cuda = cuda or Cuda()
        self._buffers: dict[str, Buffer] = {}
        self._recorded: Graph | None = None
        self._shapes: dict[str, Shape] = {}
        self._runs = 0  # since the shapes changed
        self._graphs = "on" if cuda_graph else "off"
        content = graph if isinstance(graph, bytes) else _content(graph)
        self._runtime = made(self._trt, "Runtime", self._logger, logger=self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise EngineError(
                f"TensorRT {self._trt.__version__} cannot load {what}: {self._logger.said()}. A plan runs on the "
                f"TensorRT and the GPU that it was built with; {BUILD}"
            )
        self._stream = self._cuda.stream()
        try:
            self._context = self._engine.create_execution_context()
            if self._context is None:
                raise self._failure("cannot make an execution context; a smaller batch needs less memory")
            self.inputs, self.outputs = self._tensors("INPUT"), self._tensors("OUTPUT")
            self._bounds = {name: self._profile(info) for name, info in self.inputs.items()}
            self._batches = self._batch_bounds()
            self._allocate()
        except BaseException:
            self.close()
            raise

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the plan, in parts where the batch is larger than it was built for."""
        with self._lock:
            if self._engine is None:
                raise EngineError("this engine is closed; open it again")
            batch = self._check(feeds)
            if batch is None:
                return self._run_part(feeds)
            least, most = self._batches
            starts = range(0, batch, most)
            if batch == 0 or batch - starts[-1] < least:
                raise EngineError(f"a batch of {batch} does not fit this plan, which takes {least} to {most} at a time")
            parts = [self._run_part(self._rows(feeds, start, start + most)) for start in starts]
            if len(parts) == 1:
                return parts[0]
            return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def info(self) -> dict[str, Any]:
        """What really runs; see `Engine.info`. Also the GPU, and whether CUDA graphs are in use."""
        name = str(self._engine.name) if self._engine is not None else ""
        return {
            "engine": "tensorrt",
            "version": str(self._trt.__version__),
            "provider": self._cuda.device,
            "gpu": self._cuda.device,
            "compute_capability": self._cuda.compute_capability,
            "cuda": self._cuda.runtime,
            "precision": name.removeprefix(NAMED) if name.startswith(NAMED) else "unknown",
            "batches": list(self._batches),
            "cuda_graph": self._graphs,
            "threads": self._threads,
            "spin": False,
            "affinity": "any core",
        }

    def fused(self) -> dict[str, int]:
        """Nothing: TensorRT makes kernels of whole blocks, and a plan does not say which of them compute in int8."""
        if self._engine is None:
            raise EngineError("this engine is closed; open it again")
        return {}

    def close(self) -> None:
        """Give memory and stream back."""
        self._forget_graph()
        for buffer in self._buffers.values():
            buffer.close()
        self._buffers = {}
        self._stream.close()
        self._context = self._engine = self._runtime = None  # in this order: each needs the next

    def _run_part(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        shapes: dict[str, Shape] = {name: feeds[name].shape for name in self.inputs}
        if not shapes.items() <= self._shapes.items():
            self._set_shapes(shapes)
        for name, info in self.inputs.items():
            self._buffers[name].view(info.dtype, shapes[name])[...] = feeds[name]
        if self._recorded is None and self._runs and self._graphs == "on":
            self._record()
        if self._recorded is not None:
            self._recorded.launch(self._stream)
        else:
            self._enqueue()
        self._runs += 1
        try:
            self._stream.synchronize()
        except EngineError as error:
            raise self._failure(f"failed while it ran: {error}") from error
        return {
            name: self._buffers[name].view(info.dtype, self._shapes[name]).copy() for name, info in self.outputs.items()
        }

    def _enqueue(self) -> None:
        for name in self.inputs:
            self._buffers[name].upload(self._size_bytes(name), self._stream)
        if not self._context.execute_async_v3(self._stream.handle):
            raise self._failure("cannot run the plan")
        for name in self.outputs:
            self._buffers[name].download(self._size_bytes(name), self._stream)

    def _record(self) -> None:
        try:
            self._recorded = self._stream.record(self._enqueue)
        except EngineError as error:
            self._graphs = f"off: {error}"  # slower by some microseconds per launch, and right

    def _forget_graph(self) -> None:
        graph, self._recorded = self._recorded, None
        if graph is not None:
            graph.close()

    def _set_shapes(self, shapes: Mapping[str, Shape]) -> None:
        self._forget_graph()
        self._shapes, self._runs = {}, 0  # unknown, should one of the next calls fail
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise self._failure(f"does not take {name!r} of shape {shape}")
        known = dict(shapes)
        for name in self.outputs:
            shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
            if min(shape, default=1) < 0:
                raise self._failure(f"does not say the shape of {name!r}, only {shape}")
            known[name] = shape
        self._shapes = known

    def _allocate(self) -> None:
        largest = {name: bounds[1] for name, bounds in self._bounds.items()}
        self._set_shapes(largest)
        for name in (*self.inputs, *self.outputs):
            buffer = self._buffers[name] = self._cuda.buffer(self._size_bytes(name))
            if not self._context.set_tensor_address(name, buffer.address):
                raise self._failure(f"does not take memory for {name!r}")

    def _check(self, feeds: Mapping[str, NDArray[Any]]) -> int | None:
        """The batch that all feeds share; None where the plan has no batch."""
        wrong = sorted(set(feeds) ^ set(self.inputs))
        if wrong:
            raise EngineError(f"this plan takes {', '.join(self.inputs)}; missing or unknown: {', '.join(wrong)}")
        batches = {}
        for name, info in self.inputs.items():
            value = feeds[name]
            same = len(value.shape) == len(info.shape) and all(
                wanted in (None, size) for wanted, size in zip(info.shape, value.shape, strict=True)
            )
            if not same or value.dtype != info.dtype:
                raise EngineError(
                    f"{name!r} is {value.dtype} {value.shape}; this plan takes {info.dtype} {_shown(info.shape)}"
                )
            if info.shape[:1] == (None,):
                batches[name] = len(value)
        if len(set(batches.values())) > 1:
            raise EngineError(f"inputs of one run share their batch, and these do not: {batches}")
        return next(iter(batches.values()), None)

    def _rows(self, feeds: Mapping[str, NDArray[Any]], start: int, stop: int) -> dict[str, NDArray[Any]]:
        return {
            name: value[start:stop] if self.inputs[name].shape[:1] == (None,) else value
            for name, value in feeds.items()
        }

    def _tensors(self, mode: str) -> dict[str, TensorInfo]:
        wanted, found = getattr(self._trt.TensorIOMode, mode), {}
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        for name in names:
            if self._engine.get_tensor_mode(name) != wanted:
                continue
            dtype = self._engine.get_tensor_dtype(name).name
            if dtype not in _DTYPES:
                raise EngineError(f"{name!r} is {dtype}, which numpy does not have; export the bundle again")
            shape = tuple(int(size) if size >= 0 else None for size in self._engine.get_tensor_shape(name))
            found[name] = TensorInfo(name=name, dtype=_DTYPES[dtype], shape=shape)
        return found

    def _profile(self, info: TensorInfo) -> tuple[Shape, Shape]:
        """Smallest and largest shape of an input."""
        if None not in info.shape:
            fixed = tuple(size for size in info.shape if size is not None)
            return fixed, fixed
        least, _, most = self._engine.get_tensor_profile_shape(info.name, 0)
        return tuple(int(size) for size in least), tuple(int(size) for size in most)

    def _batch_bounds(self) -> tuple[int, int]:
        bounds = [self._bounds[name] for name, info in self.inputs.items() if info.shape[:1] == (None,)]
        return (max(low[0] for low, _ in bounds), min(high[0] for _, high in bounds)) if bounds else (1, 1)

    def _size_bytes(self, name: str) -> int:
        info = self.inputs.get(name) or self.outputs[name]
        return int(np.prod(self._shapes[name], dtype=np.int64)) * np.dtype(info.dtype).itemsize

    def _failure(self, what: str) -> EngineError:
        return EngineError(f"TensorRT {self._trt.__version__} {what}: {self._logger.said()}")


def _content(plan: Path) -> bytes:
    try:
        return plan.read_bytes()
    except OSError as error:
        raise EngineError(f"TensorRT cannot load {plan}: {error}; {BUILD}") from error


def _shown(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('batch' if size is None else str(size) for size in shape)})"
