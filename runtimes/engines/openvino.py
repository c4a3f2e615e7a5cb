"""OpenVINO, on the CPU: opens ONNX and its own IR, and fuses Q/DQ pairs wherever they stand."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import BundleError, EngineError
from edgessl.runtimes.engines.base import Affine, Arrays, EngineSettings, TensorInfo, check_feeds, refuse_settings
from edgessl.runtimes.engines.ovcache import open_cache, prune
from edgessl.runtimes.engines.ovcore import openvino, shared_core
from edgessl.runtimes.engines.ovcorrect import correct
from edgessl.runtimes.engines.ovfused import count_products, rounded_in
from edgessl.runtimes.engines.ovsingle import Single, model_of_one, shape_of
from edgessl.runtimes.engines.preflight import refuse_endless

_CONTROL_FLOW = ("If", "Loop", "TensorIterator")


class OpenVino:
    """One model on the CPU; runs from several threads take turns.

    It is compiled for single samples when it is opened, which is what a robot runs, and for any batch when the first comes.

    Args:
        graph: An ONNX file, its content, or an IR's `.xml` with its `.bin` beside it.
        settings: It has no spinning and takes no cores; where the process may run, its workers do.
        constants: Name of a constant -> the value that stands in its place, of the same type and shape.
        affine: As in `open_engine`.

    Raises:
        InputError: The settings ask for spinning or cores.
        EngineError: OpenVINO cannot read or compile the graph.
        BundleError: A constant is not there, or is another one; there are no `vectors`.
    """

    def __init__(
        self,
        graph: Path | bytes,
        *,
        settings: EngineSettings | None = None,
        constants: Arrays | None = None,
        affine: Affine | None = None,
    ) -> None:
        settings = settings or EngineSettings()
        refuse_settings(
            "openvino",
            settings,
            without="its workers sleep between runs, and run where the process does; type: taskset -c 2,3 COMMAND",
        )
        self._options: dict[str, Any] = {
            # The default is bf16 where the CPU has it, f16 on ARM: no precision to compare with, or to train in.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if settings.threads:
            self._options["INFERENCE_NUM_THREADS"] = settings.threads
        # Not for other numbers: each version of an adapting encoder would leave a file.
        self._folder, self._cache = None, "off"
        if settings.cache and not constants and affine is None and isinstance(graph, Path):
            self._folder, self._cache = open_cache(graph)
        self._compiled: Any = None  # what was compiled last
        self._single: Single | None = None
        self._request: Any = None  # for any batch
        try:
            if isinstance(graph, bytes) or graph.suffix == ".onnx":
                refuse_endless(graph if isinstance(graph, bytes) else graph.read_bytes())
            # Kept until it is compiled for any batch: its file may be another one by then.
            self._model: Any = shared_core().read_model(graph if isinstance(graph, bytes) else str(graph))
            loops = sorted({node.get_type_name() for node in self._model.get_ops()}.intersection(_CONTROL_FLOW))
            if loops:  # nothing could stop one that does not end
                raise ValueError(f"it holds control flow ({', '.join(loops)}), which has no bound in time")
            _replace(self._model, constants or {})
            if affine is not None:
                correct(self._model, *affine)
            self._describe(self._model)  # compiled, it may call one of two ends that hold the same by the other's name
            one = model_of_one(self._model)
            if one is not None:
                with suppress(RuntimeError):  # its compiler takes no single sample, and may take any batch
                    self._open_single(one)
            if self._single is None:
                self._any_batch()
        except BundleError:
            raise
        except Exception as error:  # openvino raises RuntimeError, TypeError and errors of its bindings
            what = f"a graph of {len(graph)} bytes" if isinstance(graph, bytes) else graph
            raise EngineError(f"openvino {_version()} cannot load {what}: {_gist(error)}") from error
        self._info = self._facts()
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the graph once."""
        with self._lock:
            if self._compiled is None:
                raise EngineError("this engine is closed; open it again")
            try:
                if self._single is not None and self._single.takes(feeds):
                    return self._single.run(feeds)
                # It would convert another dtype without a word.
                check_feeds("openvino", self.inputs, feeds)
                return self._run_batch(feeds)
            except EngineError:
                raise
            except Exception as error:  # as above
                raise EngineError(f"openvino cannot run the graph: {_gist(error)}") from error

    def info(self) -> dict[str, Any]:
        """What really runs; see `Engine.info`. `cache` says whether the compiled graph is kept, or why not."""
        return dict(self._info)

    def fused(self) -> dict[str, int]:
        """Products of the compiled graph by what they compute in; see `Engine.fused`."""
        with self._lock:
            compiled, model = self._compiled, self._model
        if compiled is None:
            raise EngineError("this engine is closed; open it again")
        return count_products(compiled, () if model is None else rounded_in(model))

    def close(self) -> None:
        """Drop the model."""
        with self._lock:
            self._request = self._compiled = self._single = self._model = None

    def _open_single(self, one: Any) -> None:
        model = self._model
        compiled = self._compile(one, "-one")
        inputs, outputs = (list(map(_name, ports)) for ports in (model.inputs, model.outputs))
        single = Single(compiled, inputs, outputs, partial(openvino.Tensor, shared_memory=True))
        self._compiled, self._single = compiled, single

    def _any_batch(self) -> Any:
        """The request for any batch."""
        if self._request is None:
            compiled = self._compile(self._model)
            self._request = compiled.create_infer_request()
            self._compiled, self._model = compiled, None
        return self._request

    def _compile(self, model: Any, form: str = "") -> Any:
        options = dict(self._options)
        if self._folder is not None:  # one for each form: what OpenVINO tells apart in a folder depends on its version
            options["CACHE_DIR"] = str(self._folder.with_name(self._folder.name + form))
        compiled = shared_core().compile_model(model, "CPU", options)
        if self._folder is not None:
            prune(self._folder.parent)
        return compiled

    def _describe(self, graph: Any) -> None:
        # A name need not be UTF-8 in a damaged file; openvino takes it, and Python does not.
        self.inputs = {info.name: info for info in map(_tensor_info, graph.inputs)}
        self.outputs = {info.name: info for info in map(_tensor_info, graph.outputs)}

    def _run_batch(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        try:
            request = self._any_batch()
        except Exception as error:  # as above
            raise EngineError(f"openvino cannot compile the graph for a batch: {_gist(error)}") from error
        # Some operators of it refuse an empty batch: one sample of zeros runs instead, and its rows are dropped.
        empty = {name for name, value in feeds.items() if value.ndim and not len(value)}
        if empty:
            feeds = {**feeds} | {name: np.zeros((1, *feeds[name].shape[1:]), feeds[name].dtype) for name in empty}
        # Copied: a request keeps what it was given, and the caller may free that. The copy takes no time to speak of.
        values = request.infer(dict(feeds), share_inputs=False)
        rows = slice(0, 0) if empty else slice(None)
        return {
            name: np.array(values[name][rows] if info.shape[:1] == (None,) else values[name])
            for name, info in self.outputs.items()
        }

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


def _version() -> str:
    return str(openvino.__version__).partition("-")[0]


def _gist(error: Exception) -> str:
    """The lines of an OpenVINO message that say something: not where in its source, nor blank ones."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("Exception from "))


def _tensor_info(port: Any) -> TensorInfo:
    return TensorInfo(name=_name(port), dtype=np.dtype(port.get_element_type().to_dtype()).name, shape=shape_of(port))


def _name(port: Any) -> str:
    """An input behind which OpenVINO took out what does nothing has the names of that too; its node keeps its own."""
    own = str(port.get_node().get_friendly_name())
    return own if own in port.get_names() else str(port.get_any_name())
