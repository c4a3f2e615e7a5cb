"""What an engine is: it opens one ONNX graph and runs it, on as many threads as its settings say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import EngineError, InputError

Arrays = dict[str, NDArray[Any]]
Affine = tuple[NDArray[np.float32], NDArray[np.float32]]  #: matrix `(dim, dim)` and shift `(dim,)`

MOST_THREADS = 512  # an engine starts what it is told to, and a machine without threads to spare fails everywhere else


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What an engine may take of the processor. One that cannot do what is asked refuses it.

    Attributes:
        threads: Threads per run, the caller's included; 0 lets the engine choose.
        spin: Workers wait for the next operator awake: quicker where nothing else runs, slower for all that does.
        cores: Processors that the engine's workers are bound to, as the system numbers them. The caller's thread works too,
            and where it runs is the caller's affair.
        cache: What the engine compiles from a file is kept in the user's cache, for a quicker start the next time.
        arena: Memory that a run took is kept for the next, where the engine asks (onnxruntime). A graph that runs now and then
            gives it back instead.

    Raises:
        InputError: Threads or cores that cannot be.
    """

    threads: int = 0
    spin: bool = False
    cores: tuple[int, ...] = ()
    cache: bool = False
    arena: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.threads <= MOST_THREADS:
            raise InputError(f"threads must be 0 (let the engine choose) to {MOST_THREADS}, not {self.threads}")
        if len(set(self.cores)) != len(self.cores) or min(self.cores, default=0) < 0:
            raise InputError(f"cores must be different processors, such as (2, 3), not {self.cores}")
        if self.cores and self.threads == 1:
            raise InputError(
                f"one thread is the caller's, so there is no worker to bind to cores {self.cores}; start the process with: "
                f"taskset -c {','.join(map(str, self.cores))}"
            )


#: For batteries. Without workers nothing is woken, nothing waits, and the other cores sleep: a run takes longer, and less
#: energy, since what a second thread saves in time it loses in waiting for the first.
LOW_POWER = EngineSettings(threads=1)


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Name, numpy dtype and shape of an input or output; `None` is a size that varies."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Engine(Protocol):
    """An open graph. Closing twice is allowed; running after closing is an `EngineError`.

    Threads may share one: each gets the answer to what it gave. Whether two runs go on at once is the engine's affair.
    """

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the graph once; the caller owns the arrays.

        Raises:
            EngineError: A feed is missing, unknown, or of the wrong dtype or shape.
        """
        ...

    def info(self) -> dict[str, Any]:
        """What really runs.

        Returns:
            At least `engine`, `version`, `provider` (the device), `precision` (that float operators compute in), `threads`,
            `spin` and `affinity` (where the workers may run).
        """
        ...

    def fused(self) -> dict[str, int]:
        """What the engine made of the quantization: its convolutions and matrix products, counted when asked.

        Returns:
            `int8` and `float`: products by what they compute in; `unfused_dequantize`: operands of float products that
            are computed back from integers at every run. Many of those make an int8 graph slower than fp32.

        Raises:
            EngineError: The engine is closed.
        """
        ...

    def close(self) -> None:
        """Give the graph's memory back."""
        ...


def check_feeds(engine: str, inputs: Mapping[str, TensorInfo], feeds: Mapping[str, NDArray[Any]]) -> None:
    """Compare feeds with a graph's inputs, for engines that do not.

    Raises:
        EngineError: A feed is missing, unknown, or of the wrong dtype or shape.
    """
    missing, unknown = [name for name in inputs if name not in feeds], [name for name in feeds if name not in inputs]
    if missing or unknown:
        problem = f"no {', '.join(missing)}" if missing else f"{', '.join(unknown)}, which the graph does not take"
        raise EngineError(f"{engine} was given {problem}; the graph's inputs are {', '.join(inputs)}")
    for name, value in feeds.items():
        wanted = inputs[name]
        if not isinstance(value, np.ndarray) or value.dtype != wanted.dtype:
            got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise EngineError(f"{engine}: {name} is {got}, and the graph takes {wanted.dtype}")
        fits = len(value.shape) == len(wanted.shape) and all(
            size is None or size == given for size, given in zip(wanted.shape, value.shape, strict=True)
        )
        if not fits:
            shape = ", ".join("any" if size is None else str(size) for size in wanted.shape)
            raise EngineError(f"{engine}: {name} has shape {value.shape}, and the graph takes ({shape})")


def refuse_settings(engine: str, settings: EngineSettings, *, without: str) -> None:
    """For engines that do not let a caller say how workers wait and where they run.

    Raises:
        InputError: The settings say it; `without` tells what the engine does instead.
    """
    asked = [f"cores {settings.cores}"] * bool(settings.cores) + ["spinning"] * settings.spin
    if asked:
        raise InputError(f"{engine} takes no {' and no '.join(asked)}: {without}")


def physical_cores(sysfs: Path = Path("/sys")) -> int:
    """How many cores this process may use; the two processors of one core count once."""
    allowed = usable_processors()
    try:
        topology = sysfs / "devices" / "system" / "cpu"
        shared = {(topology / f"cpu{number}" / "topology" / "thread_siblings_list").read_text() for number in allowed}
    except OSError:
        return len(allowed)  # a system that does not say it
    return len(shared)


def usable_processors() -> set[int]:
    """Numbers of the processors that the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))
