"""ONNX -> plan, by TensorRT's builder, on the device that will run it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgessl.errors import EngineError
from edgessl.runtimes.engines.tensorrt import NAMED
from edgessl.runtimes.engines.trtlib import keeping_logger, made, version_of

_MIB = 1 << 20
_SMALL_BOARD_MIB = 8 << 10
_STRONG_FROM = (10, 12)  # NVIDIA calls strong typing fully available from here on; the flag is older
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "failed_allocation", "insufficient memory")


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """How a plan is built.

    Attributes:
        precision: Of the graph: `fp32`, `fp16` or `int8`.
        batches: Smallest, usual and largest batch of one run.
        workspace_mib: Scratch memory that a layer may use; None is TensorRT's own limit.
        tactic_mib: Memory that the builder may use while it tries kernels; None is TensorRT's own limit.
        strong: The graph says every type. Otherwise TensorRT may choose a cheaper one per layer.
    """

    precision: str
    batches: tuple[int, int, int]
    workspace_mib: int | None = None
    tactic_mib: int | None = None
    strong: bool = True


def typings(trt: Any, precision: str) -> tuple[bool, ...]:
    """Values of `PlanOptions.strong` to try, best first.

    Before 10.12 a graph that fails strongly typed may still come out right weakly typed; 11 has no weak typing.
    """
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return (True,)  # there is one way only, and it is this
    weak = precision != "fp32" and version_of(trt) < _STRONG_FROM and hasattr(trt.BuilderFlag, "FP16")
    return (True, False) if weak else (True,)


def build_plan(trt: Any, onnx: Path, options: PlanOptions, timing: bytes = b"") -> tuple[bytes, bytes]:
    """Build a plan.

    Args:
        trt: The `tensorrt` module.
        onnx: The graph; inputs whose first size varies get `options.batches`.
        options: How.
        timing: What an earlier build found out about kernels here; empty for nothing.

    Returns:
        The plan, and what is known about kernels now.

    Raises:
        EngineError: TensorRT cannot read the graph or build it; with all that it said.
    """
    logger = keeping_logger(trt)
    builder = made(trt, "Builder", logger, logger=logger)
    network = builder.create_network(_network_flags(trt, strong=options.strong))
    parser = made(trt, "OnnxParser", network, logger, logger=logger)
    if not parser.parse_from_file(str(onnx)):
        errors = "; ".join(_parser_errors(parser)) or logger.said()
        raise EngineError(f"TensorRT {trt.__version__} cannot read {onnx}: {errors}")
    network.name = f"{NAMED}{options.precision}"
    config = builder.create_builder_config()
    _set_types(trt, config, options)
    _set_memory(trt, config, options)
    _set_batches(builder, network, config, options.batches, onnx)
    cache = config.create_timing_cache(timing)
    if cache is None:  # of another version, or damaged: begin again
        cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, False)
    memory = builder.build_serialized_network(network, config)
    if memory is None:
        raise _build_failure(trt, onnx, options, logger.said())
    return bytes(memory), bytes(config.get_timing_cache().serialize())


def memory_limits(workspace_mib: int | None, meminfo: Path = Path("/proc/meminfo")) -> tuple[int | None, int | None]:
    """Limits for workspace and for trying kernels, in MiB.

    TensorRT takes all of the device's memory for the one and three quarters for the other, which on a board whose GPU
    shares 8 GiB or less with everything else ends builds by the kernel's out-of-memory killer. There, a workspace
    that was not asked for is a quarter of what is available, and trying kernels gets half.
    """
    sizes = {}
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return workspace_mib, None  # a system that does not say it
    for line in lines:
        key, _, value = line.partition(":")
        if value.split():
            sizes[key] = value.split()[0]
    total, available = (int(sizes.get(key, "0")) // 1024 for key in ("MemTotal", "MemAvailable"))
    if not 0 < total <= _SMALL_BOARD_MIB or not available:
        return workspace_mib, None
    return workspace_mib or max(available // 4, 1), max(available // 2, 1)


def _network_flags(trt: Any, *, strong: bool) -> int:
    # By name: the flag's number is not the same in 10 and 11, where it means nothing any more.
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED) if strong and hasattr(flags, "STRONGLY_TYPED") else 0


def _set_types(trt: Any, config: Any, options: PlanOptions) -> None:
    if options.precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default, and no more exact than fp16
    if options.strong:
        return
    config.set_flag(trt.BuilderFlag.FP16)
    if options.precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)


def _set_memory(trt: Any, config: Any, options: PlanOptions) -> None:
    pools = trt.MemoryPoolType
    for pool, limit_mib in ((pools.WORKSPACE, options.workspace_mib), (pools.TACTIC_DRAM, options.tactic_mib)):
        if limit_mib is not None:
            config.set_memory_pool_limit(pool, limit_mib * _MIB)


def _set_batches(builder: Any, network: Any, config: Any, batches: tuple[int, int, int], onnx: Path) -> None:
    profile, varies = builder.create_optimization_profile(), False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(int(size) for size in tensor.shape)
        if min(shape, default=1) >= 0:
            continue
        if min(shape[1:], default=1) < 0:
            raise EngineError(f"{onnx}: {tensor.name!r} is {shape}; only the first size, the batch, may vary")
        profile.set_shape(tensor.name, *((batch, *shape[1:]) for batch in batches))
        varies = True
    if varies and config.add_optimization_profile(profile) < 0:
        raise EngineError(f"TensorRT does not take batches of {batches} for {onnx}")


def _parser_errors(parser: Any) -> Iterator[str]:
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        yield f"{error.node_operator() or 'graph'} {error.node_name()!r}: {error.desc()} ({error.code()})"


def _build_failure(trt: Any, onnx: Path, options: PlanOptions, said: str) -> EngineError:
    hint = ""
    if any(words in said.lower() for words in _OUT_OF_MEMORY):
        smaller = max((options.workspace_mib or 1024) // 2, 1)
        hint = f". Close what else uses memory, or add --workspace-mib {smaller}"
    return EngineError(f"TensorRT {trt.__version__} cannot build {onnx} in {options.precision}: {said}{hint}")
