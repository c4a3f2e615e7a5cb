"""An engine that runs nothing: for dry runs of nodes and pipelines, and for tests, where no engine library is or a slow one.

Its vectors have the right names, types and shapes, and are hashes of the samples: the same sample gives the same vector, and
two that differ in one bit have nothing in common. Nothing can be found with them. It is taken only when asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl import __version__
from edgessl.errors import EngineError
from edgessl.runtimes.engines.base import Arrays, EngineSettings, TensorInfo, check_feeds, refuse_settings
from edgessl.runtimes.engines.onnxnodes import ends
from edgessl.runtimes.engines.preflight import refuse_endless


class Fake:
    """The ends of a graph, with hashes between them; threads may run it at once.

    Args:
        graph: An ONNX file, or its content.
        settings: Threads change nothing.

    Raises:
        InputError: The settings ask for spinning or cores.
        EngineError: It is no ONNX file.
    """

    def __init__(self, graph: Path | bytes, *, settings: EngineSettings | None = None) -> None:
        refuse_settings("the fake engine", settings or EngineSettings(), without="it runs nothing")
        what = f"a graph of {len(graph)} bytes" if isinstance(graph, bytes) else graph
        try:
            content = graph if isinstance(graph, bytes) else graph.read_bytes()
            refuse_endless(content)
            self.inputs, self.outputs = ends(content)
        except (OSError, ValueError) as error:  # a name that is no UTF-8 is a ValueError too
            raise EngineError(f"the fake engine cannot load {what}: {error}") from error
        self._open = True

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Hash the feeds, sample by sample where there is a batch."""
        if not self._open:
            raise EngineError("this engine is closed; open it again")
        check_feeds("the fake engine", self.inputs, feeds)
        batched = {name for name, info in self.inputs.items() if info.shape[:1] == (None,)}
        sizes = {len(feeds[name]) for name in batched}
        if len(sizes) > 1:
            raise EngineError(f"the fake engine: inputs of one run share their batch, and these have {sorted(sizes)}")
        shared = b"".join(feeds[name].tobytes() for name in self.inputs if name not in batched)
        rows = [
            shared + b"".join(feeds[name][row].tobytes() for name in self.inputs if name in batched)
            for row in range(max(sizes, default=0))
        ]
        return {
            name: _stacked(rows, info)
            if info.shape[:1] == (None,) and batched
            else _drawn(b"".join([shared, *rows]), info)
            for name, info in self.outputs.items()
        }

    def info(self) -> dict[str, Any]:
        """That it is none."""
        return {
            "engine": "fake",
            "version": __version__,
            "provider": "FAKE: no graph is run, and the vectors are hashes of the samples",
            "precision": "none",
            "threads": 1,
            "spin": False,
            "affinity": "any core",
        }

    def fused(self) -> dict[str, int]:
        """Nothing runs, in int8 or otherwise."""
        if not self._open:
            raise EngineError("this engine is closed; open it again")
        return {"int8": 0, "float": 0, "unfused_dequantize": 0}

    def close(self) -> None:
        """Run nothing any more."""
        self._open = False


def _stacked(rows: list[bytes], info: TensorInfo) -> NDArray[Any]:
    inner = TensorInfo(name=info.name, dtype=info.dtype, shape=info.shape[1:])
    shape = [1 if size is None else size for size in inner.shape]
    return np.array([_drawn(row, inner) for row in rows], info.dtype).reshape(len(rows), *shape)


def _drawn(content: bytes, info: TensorInfo) -> NDArray[Any]:
    """Numbers that follow from `content`; a row of floats is of unit length."""
    digest = blake2b(content, digest_size=8, key=info.name.encode()[:64]).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "little"))
    shape = [1 if size is None else size for size in info.shape]
    if np.issubdtype(np.dtype(info.dtype), np.floating):
        values = rng.standard_normal(shape)
        return np.asarray(values / np.linalg.norm(values) if len(shape) == 1 else values).astype(info.dtype)
    return np.asarray(rng.integers(0, 2 if info.dtype == "bool" else 100, shape)).astype(info.dtype)
