"""OpenVINO, on the CPU: opens ONNX and its own IR, and fuses Q/DQ pairs wherever they stand."""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Importing openvino reports itself through this package; with None there the stub that it ships answers instead.
if "openvino_telemetry" not in sys.modules:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino

from edgessl.errors import BundleError, EngineError
from edgessl.runtimes.engines.base import Arrays, EngineSettings, TensorInfo, check_feeds, refuse_settings
from edgessl.runtimes.engines.ovcache import open_cache, prune

_PRODUCTS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
_CONTROL_FLOW = ("If", "Loop", "TensorIterator")
_INTEGERS = ("i8", "u8")
_PASSES_ON = ("Convert", "Eltwise", "Reorder", "Reshape", "Transpose")  # what may stand between numbers and their scale


class OpenVino:
    """One compiled model on the CPU; runs from several threads take turns.

    Args:
        graph: An ONNX file, its content, or an IR's `.xml` with its `.bin` beside it.
        settings: It has no spinning and takes no cores; where the process may run, its workers do.
        constants: Name of a constant -> the value that stands in its place, of the same type and shape.

    Raises:
        InputError: The settings ask for spinning or cores.
        EngineError: OpenVINO cannot read or compile the graph.
        BundleError: A constant is not there, or is another one.
    """

    def __init__(
        self, graph: Path | bytes, *, settings: EngineSettings | None = None, constants: Arrays | None = None
    ) -> None:
        settings = settings or EngineSettings()
        refuse_settings(
            "openvino",
            settings,
            without="its workers sleep between runs, and run where the process does; type: taskset -c 2,3 COMMAND",
        )
        options: dict[str, Any] = {
            # The default is bf16 where the CPU has it, f16 on ARM: no precision to compare with, or to train in.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if settings.threads:
            options["INFERENCE_NUM_THREADS"] = settings.threads
        # Not for other constants: each version of an adapting encoder would leave a file.
        folder, self._cache = None, "off"
        if settings.cache and not constants and isinstance(graph, Path):
            folder, self._cache = open_cache(graph)
        if folder is not None:
            options["CACHE_DIR"] = str(folder)
        try:
            core = shared_core()
            model = core.read_model(graph if isinstance(graph, bytes) else str(graph))
            loops = sorted({node.get_type_name() for node in model.get_ops()}.intersection(_CONTROL_FLOW))
            if loops:  # nothing could stop one that does not end
                raise ValueError(f"it holds control flow ({', '.join(loops)}), which has no bound in time")
            _replace(model, constants or {})
            self._compiled: Any = core.compile_model(model, "CPU", options)
            self._request: Any = self._compiled.create_infer_request()
            # A name need not be UTF-8 in a damaged file; openvino takes it, and Python does not.
            self.inputs = {info.name: info for info in map(_tensor_info, self._compiled.inputs)}
            self.outputs = {info.name: info for info in map(_tensor_info, self._compiled.outputs)}
            self._single = _Single.of(self._compiled, self.inputs, self.outputs)
        except BundleError:
            raise
        except Exception as error:  # openvino raises RuntimeError, TypeError and errors of its bindings
            what = f"a graph of {len(graph)} bytes" if isinstance(graph, bytes) else graph
            raise EngineError(f"openvino {_version()} cannot load {what}: {_gist(error)}") from error
        if folder is not None:
            prune(folder.parent)
        self._info = self._facts()
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the graph once."""
        with self._lock:
            if self._request is None:
                raise EngineError("this engine is closed; open it again")
            # It would convert another dtype without a word.
            check_feeds("openvino", self.inputs, feeds)
            if self._single is not None and self._single.takes(feeds):
                return self._single.run(feeds)
            # Some operators of it refuse an empty batch: one sample of zeros runs instead, and its rows are dropped.
            empty = {name for name, value in feeds.items() if value.ndim and not len(value)}
            if empty:
                feeds = {**feeds} | {name: np.zeros((1, *feeds[name].shape[1:]), feeds[name].dtype) for name in empty}
            try:
                # Copied: a request keeps what it was given, and the caller may free that. The copy takes no time to speak of.
                values = self._request.infer(dict(feeds), share_inputs=False)
                rows = slice(0, 0) if empty else slice(None)
                return {
                    name: np.array(values[name][rows] if info.shape[:1] == (None,) else values[name])
                    for name, info in self.outputs.items()
                }
            except Exception as error:  # as above
                raise EngineError(f"openvino cannot run the graph: {_gist(error)}") from error

    def info(self) -> dict[str, Any]:
        """What really runs; see `Engine.info`. `cache` says whether the compiled graph is kept, or why not."""
        return dict(self._info)

    def fused(self) -> dict[str, int]:
        """Products of the compiled graph by what they compute in; attention that became one operator is none."""
        if self._compiled is None:
            raise EngineError("this engine is closed; open it again")
        count = {"int8": 0, "float": 0, "unfused_dequantize": 0}
        for node in self._compiled.get_runtime_model().get_ops():
            if _fact(node, "layerType") not in _PRODUCTS:
                continue
            integer = _fact(node, "runtimePrecision") in _INTEGERS
            count["int8" if integer else "float"] += 1
            if not integer:
                count["unfused_dequantize"] += sum(_is_quantized(port) for port in node.input_values())
        return count

    def close(self) -> None:
        """Drop the model."""
        with self._lock:
            self._request = self._compiled = self._single = None

    def _facts(self) -> dict[str, Any]:
        get = self._compiled.get_property
        return {
            "engine": "openvino",
            "version": _version(),
            "provider": ",".join(get("EXECUTION_DEVICES")),
            "precision": get("INFERENCE_PRECISION_HINT").get_type_name().replace("f", "fp", 1),
            "threads": int(get("INFERENCE_NUM_THREADS")),
            "spin": False,
            "affinity": "bound to cores that openvino chose" if get("ENABLE_CPU_PINNING") else "any core",
            "cache": self._cache,
        }


class _Single:
    """A request for one sample whose arrays stay in their places.

    Most of what a run costs beside the graph is telling OpenVINO where its arrays are.
    """

    def __init__(self, request: Any, given: Arrays, made: Arrays) -> None:
        self._request, self._given, self._made = request, given, made

    @classmethod
    def of(cls, compiled: Any, inputs: Mapping[str, TensorInfo], outputs: Mapping[str, TensorInfo]) -> _Single | None:
        """None where the graph has no batch, or a size varies that is none."""
        infos = (*inputs.values(), *outputs.values())
        if not any(info.shape[:1] == (None,) for info in inputs.values()) or any(None in i.shape[1:] for i in infos):
            return None
        request = compiled.create_infer_request()
        given, made = ({name: _array_of_one(info) for name, info in infos.items()} for infos in (inputs, outputs))
        for name, array in (given | made).items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        return cls(request, given, made)

    def takes(self, feeds: Mapping[str, NDArray[Any]]) -> bool:
        """They hold one sample."""
        return all(value.shape == self._given[name].shape for name, value in feeds.items())

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run it; feeds that were checked."""
        for name, value in feeds.items():
            self._given[name][...] = value
        try:
            self._request.infer()
        except Exception as error:  # as in OpenVino
            raise EngineError(f"openvino cannot run the graph: {_gist(error)}") from error
        return {name: array.copy() for name, array in self._made.items()}


def _array_of_one(info: TensorInfo) -> NDArray[Any]:
    return np.zeros([1 if size is None else size for size in info.shape], info.dtype)


def read_constants(graph: Path, names: Collection[str]) -> Arrays:
    """Copies of a graph's constants, by name.

    Raises:
        BundleError: One is not there.
        EngineError: OpenVINO cannot read the graph.
    """
    try:
        model = shared_core().read_model(str(graph))
        return {name: np.array(node.data) for name, node in _constants(model, names).items()}
    except RuntimeError as error:
        raise EngineError(f"openvino {_version()} cannot read {graph}: {_gist(error)}") from error


def _replace(model: Any, constants: Arrays) -> None:
    for name, node in _constants(model, constants).items():
        was, value = node.data, constants[name]
        if was.dtype != value.dtype or was.shape != value.shape:
            raise BundleError(
                f"the graph's constant {name!r} is {was.dtype} {was.shape}, not {value.dtype} {value.shape}; export it again"
            )
        node.output(0).replace(openvino.op.Constant(np.ascontiguousarray(value)).output(0))


def _constants(model: Any, names: Collection[str]) -> dict[str, Any]:
    """The nodes of constants; each name must stand once."""
    nodes = [
        node for node in model.get_ops() if node.get_type_name() == "Constant" and node.get_friendly_name() in names
    ]
    found = {str(node.get_friendly_name()): node for node in nodes}
    if len(found) != len(names) or len(found) != len(nodes):
        missing = ", ".join(sorted(set(names) - set(found))) or "each of its constants once"
        raise BundleError(f"the graph does not have {missing}; export it again")
    return found


@cache
def shared_core() -> Any:
    """The one core of this process, never destroyed.

    A core puts a signal stack of its own in place, and puts back what it found when it goes. Of two that go in the order in
    which they came the second puts back the first one's, which is freed: the next signal with a handler, Ctrl-C say, is then a
    segmentation fault (openvino 2026.4.1).
    """
    return openvino.Core()


def _version() -> str:
    return str(openvino.__version__).partition("-")[0]


def _gist(error: Exception) -> str:
    """The lines of an OpenVINO message that say something: not where in its source, nor blank ones."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("Exception from "))


def _tensor_info(port: Any) -> TensorInfo:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorInfo(name=_name(port), dtype=np.dtype(port.get_element_type().to_dtype()).name, shape=shape)


def _name(port: Any) -> str:
    """An input behind which OpenVINO took out what does nothing has the names of that too; its node keeps its own."""
    own = str(port.get_node().get_friendly_name())
    return own if own in port.get_names() else str(port.get_any_name())


def _fact(node: Any, name: str) -> str:
    return str(node.get_rt_info()[name].value)


def _is_quantized(port: Any) -> bool:
    """Whether a float operand was quantized and is computed back to float before it is used."""
    node = port.get_node()
    kind = _fact(node, "layerType")
    if kind == "FakeQuantize":
        return True
    if kind == "Const":
        return _fact(node, "runtimePrecision") in _INTEGERS
    return kind in _PASSES_ON and node.get_input_size() > 0 and _is_quantized(node.input_value(0))
