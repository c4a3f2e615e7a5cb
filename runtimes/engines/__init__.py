"""Engines by name. A new engine is one file and one line in `ENGINES`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from edgessl.errors import MissingExtraError, UnknownNameError
from edgessl.runtimes.engines.base import Arrays, Engine, TensorInfo

__all__ = ["ENGINES", "Arrays", "Engine", "TensorInfo", "open_engine"]

#: name -> (module, class, package to import, extra to install, where one brings it)
ENGINES = {
    "onnxruntime": ("edgessl.runtimes.engines.onnxrt", "OnnxRuntime", "onnxruntime", "onnxruntime"),
    "openvino": ("edgessl.runtimes.engines.openvino", "OpenVino", "openvino", "openvino"),
    "tensorrt": ("edgessl.runtimes.engines.tensorrt", "TensorRt", "tensorrt", ""),
}


def open_engine(name: str, graph: Path | bytes, *, threads: int = 0) -> Engine:
    """Open an ONNX graph with the named engine.

    Args:
        name: A key of `ENGINES`.
        graph: The ONNX file, or its content.
        threads: Threads per run; 0 lets the engine choose.

    Raises:
        UnknownNameError: There is no engine of that name.
        MissingExtraError: The engine's package is not installed.
        EngineError: The engine cannot load the graph.
    """
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    module, cls, package, extra = ENGINES[name]
    try:
        opened: Engine = getattr(import_module(module), cls)(graph, threads=threads)
    except ModuleNotFoundError as error:
        if error.name != package or not extra:
            raise
        raise MissingExtraError(package, extra) from error
    return opened
