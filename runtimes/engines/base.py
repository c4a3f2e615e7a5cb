"""What an engine is: it opens one ONNX graph and runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import EngineError

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Name, numpy dtype and shape of an input or output; `None` is a size that varies."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Engine(Protocol):
    """An open graph. Closing twice is allowed; running after closing is an `EngineError`."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the graph once; the caller owns the arrays.

        Raises:
            EngineError: A feed is missing, unknown, or of the wrong dtype or shape.
        """
        ...

    def info(self) -> dict[str, Any]:
        """What really runs: engine, version, provider, threads."""
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
