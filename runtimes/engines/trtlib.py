"""TensorRT's Python package, whatever its version: found, told apart, and made to say what went wrong."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from edgessl.errors import EngineError

OLDEST = (10, 0)  # before it, what a graph's types mean was another question
SYSTEM_PACKAGES = Path("/usr/lib")  # JetPack installs TensorRT below it, in python3*/dist-packages

_KEPT_LINES = 20


def load_trt() -> Any:
    """The `tensorrt` module.

    Raises:
        EngineError: It is not on this machine, or cannot be used: too old, out of this environment's sight, not whole.
    """
    try:
        trt = import_module("tensorrt")
    except ImportError as error:
        raise _unimportable(error) from error
    version = version_of(trt)
    if version < OLDEST:
        raise EngineError(
            f"TensorRT {trt.__version__} is too old: edgessl needs 10.0 or newer, and JetPack 6.1 brings 10.3. "
            "Until then, run with --engine onnxruntime"
        )
    return trt


def version_of(trt: Any) -> tuple[int, ...]:
    """`"10.16.2.10"` -> `(10, 16)`."""
    return tuple(int(part) for part in str(trt.__version__).split(".")[:2] if part.isdigit())


def keeping_logger(trt: Any) -> Any:
    """A logger of TensorRT that keeps the lines of errors, newest last, in `lines`, and prints nothing."""
    severe = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)

    class KeepingLogger(trt.ILogger):  # type: ignore[misc]
        """TensorRT calls fail by what they return; why stands in the log only."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT, from any of its threads."""
            if severity in severe:
                self.lines = [*self.lines[1 - _KEPT_LINES :], str(message).strip()]

        def said(self) -> str:
            """The lines kept since the last call, in one."""
            lines, self.lines = self.lines, []
            return "; ".join(lines) or "it gave no reason"

    return KeepingLogger()


def made(trt: Any, kind: str, *arguments: Any, logger: Any) -> Any:
    """`trt.KIND(*arguments)`.

    Raises:
        EngineError: TensorRT made none: its bindings tell that by a `TypeError` about a null pointer.
    """
    try:
        return getattr(trt, kind)(*arguments)
    except TypeError as error:
        raise EngineError(
            f"TensorRT {trt.__version__} has no {kind} here: {logger.said()} ({error}). Type: edgessl doctor"
        ) from error


def _unimportable(error: ImportError) -> EngineError:
    if isinstance(error, ModuleNotFoundError) and error.name == "tensorrt":
        seen = _system_package()
        if not seen:
            return EngineError(
                "TensorRT is not on this machine. On Jetson type: sudo apt install nvidia-jetpack; on another machine with "
                "an NVIDIA GPU type: pip install tensorrt; without one, run with --engine onnxruntime"
            )
        return EngineError(
            f"TensorRT is installed in {seen}, where this environment (Python {sys.version_info[0]}."
            f"{sys.version_info[1]}) does not look. With the system's own Python type: "
            "python3 -m venv --system-site-packages .venv"
        )
    if "libnvdla_compiler" in str(error):
        return EngineError(
            f"TensorRT cannot be imported: {error}. In a container on JetPack 7.2 use the host's TensorRT, or a "
            "container of the SBSA kind; on a thin JetPack 6 type: sudo apt install nvidia-l4t-dla-compiler"
        )
    return EngineError(f"TensorRT cannot be imported: {error}. Type: edgessl doctor")


def _system_package() -> str:
    found = sorted(SYSTEM_PACKAGES.glob("python3*/dist-packages/tensorrt/__init__.py"))
    return str(found[0].parent) if found else ""
