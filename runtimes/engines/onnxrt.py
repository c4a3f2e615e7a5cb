"""onnxruntime, on the CPU: the engine that every device has."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

# The Linux wheels report usage from 1.29 on; the switch is read when the library is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

from edgessl.errors import EngineError, InputError
from edgessl.runtimes.engines.base import Arrays, EngineSettings, TensorInfo, physical_cores, usable_processors
from edgessl.runtimes.engines.onnxnodes import count_products
from edgessl.runtimes.engines.preflight import refuse_endless

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}


class OnnxRuntime:
    """One `InferenceSession` on the CPU provider; threads may run it at once.

    Args:
        graph: An ONNX file, or its content.
        settings: 0 threads are one per physical core that this process may use.

    Raises:
        InputError: The system does not let this process use one of the cores.
        EngineError: onnxruntime cannot load the graph.
    """

    def __init__(self, graph: Path | bytes, *, settings: EngineSettings | None = None) -> None:
        what = f"a graph of {len(graph)} bytes" if isinstance(graph, bytes) else graph
        self._graph, self._settings = graph, settings or EngineSettings()
        # Counted here: what onnxruntime counts are the machine's cores, to which it then binds its workers one by one, and
        # in a container or beside another engine those are not this process's to use.
        self._threads = self._settings.threads or max(physical_cores(), 1 + bool(self._settings.cores))
        _refuse_cores(self._settings.cores)
        try:
            refuse_endless(graph if isinstance(graph, bytes) else graph.read_bytes())
            self._session: Any = self._open()
            # A name need not be UTF-8 in a damaged file; onnxruntime takes it, and Python does not.
            self.inputs = {info.name: _tensor_info(info) for info in self._session.get_inputs()}
            self.outputs = {info.name: _tensor_info(info) for info in self._session.get_outputs()}
            self._names = list(self.outputs)  # a hostile graph names one twice
        except Exception as error:  # onnxruntime's exceptions share no base below Exception
            raise EngineError(f"onnxruntime {onnxruntime.__version__} cannot load {what}: {error}") from error

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the graph once."""
        if self._session is None:
            raise EngineError("this engine is closed; open it again")
        try:
            values = self._session.run(self._names, dict(feeds))
        except Exception as error:  # as above
            raise EngineError(f"onnxruntime cannot run the graph: {error}") from error
        return dict(zip(self._names, values, strict=True))

    def info(self) -> dict[str, Any]:
        """What really runs; see `Engine.info`."""
        cores = ", ".join(map(str, self._settings.cores))
        return {
            "engine": "onnxruntime",
            "version": onnxruntime.__version__,
            "provider": "CPUExecutionProvider",
            "precision": "fp32",
            "threads": self._threads,
            "spin": self._settings.spin,
            "affinity": f"workers on cores {cores}" if cores else "any core",
        }

    def fused(self) -> dict[str, int]:
        """Products of the optimized graph by what they compute in; opens the graph once more to see it."""
        if self._session is None:
            raise EngineError("this engine is closed; open it again")
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "optimized.onnx"
            try:
                self._open(written)
                return count_products(written.read_bytes())
            except Exception as error:  # as above
                raise EngineError(f"onnxruntime does not show what it made of the graph: {error}") from error

    def close(self) -> None:
        """Drop the session."""
        self._session, self._graph = None, b""

    def _open(self, optimized: Path | None = None) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self._threads
        options.enable_cpu_mem_arena = options.enable_mem_pattern = self._settings.arena
        # Spinning workers make whatever runs next on the same cores two to three times slower.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if self._settings.spin else "0")
        if self._settings.cores:  # for each worker, all of them; onnxruntime counts processors from 1
            each = ",".join(str(core + 1) for core in self._settings.cores)
            options.add_session_config_entry(
                "session.intra_op_thread_affinities", ";".join([each] * (self._threads - 1))
            )
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        return onnxruntime.InferenceSession(
            self._graph if isinstance(self._graph, bytes) else str(self._graph),
            options,
            providers=["CPUExecutionProvider"],
            # With it a static MatMul + Add becomes a Gemm before Q/DQ pairs are fused, and int8 weights are
            # dequantized at every run.
            disabled_optimizers=["MatMulAddFusion"],
        )


def _refuse_cores(cores: tuple[int, ...]) -> None:
    """Beforehand: onnxruntime prints a line about a core that it cannot have, and runs anywhere."""
    usable = usable_processors()
    if missing := sorted(set(cores) - usable):
        raise InputError(f"there is no core {missing} for this process; it may use {sorted(usable)}")


def _tensor_info(info: Any) -> TensorInfo:
    shape = tuple(size if isinstance(size, int) else None for size in info.shape)
    return TensorInfo(name=info.name, dtype=_DTYPES.get(info.type, info.type), shape=shape)
