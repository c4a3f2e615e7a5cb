"""A `tensorrt` module that has the names of one version and no others, runs plans in onnxruntime, and can misbehave.

Which names a version has stands in `trt_api.json`. Every name that is asked for is kept in `touched`.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from fake_trt_names import (
    API,
    ENUMS,
    MAGIC,
    MODULE,
    Faults,
    Guarded,
    ILogger,
    Severity,
    bare,
    names_of,
    tensor_of,
)
from fake_trt_runtime import Runtime


class FakeTensorRt:
    """The module; `version` begins with one of the table's tags."""

    def __init__(self, version: str, cudart: Any) -> None:
        self._tag = next(tag for tag in reversed(API["versions"]) if version.startswith(tag))
        self._version, self._cudart = version, cudart
        self._touched: set[tuple[str, str]] = set()
        self._faults = Faults()
        self._builds: list[dict[str, Any]] = []
        self._enums = {}
        for cls in ENUMS:
            names = sorted(names_of(cls, self._tag))
            if cls == "NetworkDefinitionCreationFlag":  # its numbers are part of what changed
                names.sort(key=lambda name: name != "EXPLICIT_BATCH")
            self._enums[cls] = enum.IntEnum(cls, names, start=0)

    def __getattr__(self, name: str) -> Any:
        if name not in MODULE:
            raise AttributeError(name)
        if name == "__version__":
            return self._version
        if name == "ILogger":
            return ILogger
        if name in ENUMS:
            return Guarded(self, name, self._enums[name])
        return {"Builder": self._builder, "Runtime": self._runtime, "OnnxParser": self._parser}[name]

    def _builder(self, logger: Any) -> Any:
        if self._faults.no_builder:
            logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return Guarded(self, "Builder", _Builder(self, logger))

    def _runtime(self, logger: Any) -> Any:
        return Guarded(self, "Runtime", Runtime(self, logger))

    def _parser(self, network: Any, logger: Any) -> Any:
        return Guarded(self, "OnnxParser", _Parser(self, bare(network), logger))


class _Builder:
    def __init__(self, trt: FakeTensorRt, logger: Any) -> None:
        self.trt, self.logger = trt, logger

    def create_network(self, flags: int = 0) -> Any:
        strong = self.trt._enums["NetworkDefinitionCreationFlag"]["STRONGLY_TYPED"]
        network = _Network()
        network.strong = self.trt._tag >= "11" or bool(flags >> strong & 1)
        return Guarded(self.trt, "INetworkDefinition", network)

    def create_builder_config(self) -> Any:
        return Guarded(self.trt, "IBuilderConfig", _Config(self.trt))

    def create_optimization_profile(self) -> Any:
        return Guarded(self.trt, "IOptimizationProfile", _Profile())

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        network, config, faults = bare(network), bare(config), self.trt._faults
        precision = network.name.split()[-1]
        flags = sorted(flag.name for flag in config.flags)
        self.trt._builds.append({"precision": precision, "strong": network.strong, "flags": flags, **config.pools})
        if network.strong and {"FP16", "INT8"} & set(flags):
            return self._fails("Error Code 3: API Usage Error (precision flags in a strongly typed network)")
        if any(-1 in tensor.shape for tensor in network.inputs) and not config.profiles:
            return self._fails("Error Code 4: Internal Error (Network has dynamic inputs, but no optimization profile)")
        limit = config.pools.get("WORKSPACE")
        if faults.out_of_memory_above is not None and (limit is None or limit > faults.out_of_memory_above):
            return self._fails("Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.)")
        if precision in faults.build:
            self.logger.log(Severity.WARNING, "a warning")
            self.logger.log(Severity.ERROR, "Error Code 10: Internal Error (Could not find any implementation)")
            return self._fails("Error Code 2: second line")
        if config.cache is not None:
            config.cache.kernels += 1
        head = {
            "version": self.trt._version,
            "gpu": self.trt._cudart.name,
            "name": network.name,
            "strong": network.strong,
            "profile": config.profiles[0] if config.profiles else {},
        }
        return Guarded(self.trt, "IHostMemory", MAGIC + json.dumps(head).encode() + b"\n" + network.content)

    def _fails(self, line: str) -> None:
        self.logger.log(Severity.ERROR, line)


class _Network:
    def __init__(self) -> None:
        self.name, self.strong, self.content, self.inputs = "", False, b"", []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> Any:
        return self.inputs[index]


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        self.shapes[name] = [list(least), list(usual), list(most)]


class _TimingCache:
    def __init__(self, trt: FakeTensorRt, kernels: int) -> None:
        self.trt, self.kernels = trt, kernels

    def serialize(self) -> Any:
        return Guarded(self.trt, "IHostMemory", f"{self.trt._version} {self.kernels}".encode())


class _Config:
    def __init__(self, trt: FakeTensorRt) -> None:
        self.trt, self.cache = trt, None
        self.flags: set[Any] = {trt._enums["BuilderFlag"]["TF32"]}
        self.pools: dict[str, int] = {}
        self.profiles: list[dict[str, Any]] = []

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.pools[pool.name] = size

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(bare(profile).shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> Any:
        version, _, kernels = content.decode(errors="replace").partition(" ")
        if content and (version != self.trt._version or not kernels.isdigit()):
            return None
        return Guarded(self.trt, "ITimingCache", _TimingCache(self.trt, int(kernels or 0)))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.cache = bare(cache)
        return True

    def get_timing_cache(self) -> Any:
        return Guarded(self.trt, "ITimingCache", self.cache)


class _Parser:
    def __init__(self, trt: FakeTensorRt, network: _Network, logger: Any) -> None:
        self.trt, self.network, self.errors = trt, network, []

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> Any:
        return Guarded(self.trt, "ParserError", self.errors[index])

    def parse_from_file(self, path: str) -> bool:
        if Path(path).name in self.trt._faults.parse:
            self.errors = [_ParserError("GridSample", "grid"), _ParserError("Det", "volume")]
            return False
        self.network.content = Path(path).read_bytes()
        graph = onnx.load_model_from_string(self.network.content).graph
        self.network.name = graph.name
        self.network.inputs = [Guarded(self.trt, "ITensor", tensor_of(info)) for info in graph.input]
        return True


@dataclass
class _ParserError:
    operator: str
    name: str

    def desc(self) -> str:
        return "no importer registered"

    def code(self) -> str:
        return "UNSUPPORTED_NODE"

    def node_name(self) -> str:
        return self.name

    def node_operator(self) -> str:
        return self.operator
