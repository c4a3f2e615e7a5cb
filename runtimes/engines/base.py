"""What an engine is: it opens one ONNX graph and runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

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
        """What really runs: engine, version, provider, threads, nodes by quantization."""
        ...

    def close(self) -> None:
        """Give the graph's memory back."""
        ...
