"""Engines by name. A new engine is one file and one line in `ENGINES`."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from edgessl.errors import InputError, MissingExtraError, UnknownNameError
from edgessl.runtimes.correct import with_affine
from edgessl.runtimes.engines.base import LOW_POWER, Affine, Arrays, Engine, EngineSettings, TensorInfo
from edgessl.runtimes.patch import constants_of, with_weights

__all__ = [
    "ENGINES",
    "FAKE",
    "LOW_POWER",
    "Affine",
    "Arrays",
    "Engine",
    "EngineSettings",
    "TensorInfo",
    "open_engine",
    "read_constants",
    "settings_of",
]

FAKE = "fake"  # runs nothing: for dry runs and tests, and only where it is asked for by name

#: name -> (module, class, package to import, extra to install, where one brings it)
ENGINES = {
    "onnxruntime": ("edgessl.runtimes.engines.onnxrt", "OnnxRuntime", "onnxruntime", "onnxruntime"),
    "openvino": ("edgessl.runtimes.engines.openvino", "OpenVino", "openvino", "openvino"),
    "tensorrt": ("edgessl.runtimes.engines.tensorrt", "TensorRt", "tensorrt", ""),
    FAKE: ("edgessl.runtimes.engines.fake", "Fake", "numpy", ""),
}


def open_engine(
    name: str,
    graph: Path | bytes,
    *,
    threads: int = 0,
    settings: EngineSettings | None = None,
    constants: Arrays | None = None,
    affine: Affine | None = None,
) -> Engine:
    """Open a graph with the named engine.

    Args:
        name: A key of `ENGINES`.
        graph: The ONNX file, or its content, or a file of the engine's own.
        threads: Threads per run, where that is all there is to set; 0 lets the engine choose.
        settings: What the engine may take of the processor.
        constants: Name -> the value that stands in place of the file's, of the same type and shape.
        affine: Matrix `(dim, dim)` and shift `(dim,)`: `vectors` become `unit(vectors @ matrix + shift)`.

    Raises:
        UnknownNameError: There is no engine of that name.
        MissingExtraError: The engine's package is not installed.
        InputError: The engine does not take these settings.
        EngineError: The engine cannot load the graph.
        BundleError: A constant is not there, or is another one; there are no `vectors`.
    """
    settings = settings_of(threads, settings)
    module, own = _module(name), dict[str, Any]()
    if (constants or affine) and _is_onnx(graph):
        content = graph if isinstance(graph, bytes) else graph.read_bytes()
        content = with_weights(content, constants) if constants else content
        # OpenVINO makes its NormalizeL2 of the short form, which takes three times as long as the operators it stands for.
        graph = with_affine(content, *affine, short=name == "onnxruntime") if affine else content
    elif constants or affine:
        own = {"constants": constants, "affine": affine}
    opened: Engine = getattr(module, ENGINES[name][1])(graph, settings=settings, **own)
    return opened


def settings_of(threads: int, settings: EngineSettings | None) -> EngineSettings:
    """`settings`, or those that say nothing but `threads`.

    Raises:
        InputError: Both are given, or the threads cannot be.
    """
    if settings is None:
        return EngineSettings(threads=threads)
    if threads:
        raise InputError(f"threads={threads} and settings say the same twice; type EngineSettings(threads={threads})")
    return settings


def read_constants(name: str, graph: Path, names: Collection[str]) -> Arrays:
    """Constants of a graph that `open_engine` can replace.

    Raises:
        BundleError: One is not there.
    """
    if _is_onnx(graph):
        return constants_of(graph.read_bytes(), names)
    found: Arrays = _module(name).read_constants(graph, names)
    return found


def _module(name: str) -> ModuleType:
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    module, _, package, extra = ENGINES[name]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package or not extra:
            raise
        raise MissingExtraError(package, extra) from error


def _is_onnx(graph: Path | bytes) -> bool:
    return isinstance(graph, bytes) or graph.suffix == ".onnx"
