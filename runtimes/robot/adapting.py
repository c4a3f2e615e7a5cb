"""`Beside` for a node: what embeds is asked with a deadline, as the watchdog asks an engine.

A graph of an adapting version may hang as the factory's may. Then the thread is left behind, the factory's encoder takes
over, and the learner, which runs on sessions of its own, writes what it has.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.beside import Beside
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.worker import Worker

TIMEOUT_S = 10.0  # as the watchdog's


class Adapting:
    """An encoder that adapts beside itself. Closing twice is allowed.

    Args:
        encoder: What `beside` was made from; belongs to this object from now on, as `beside` does.
        beside: Embeds and learns.
        timeout_s: A run that takes longer hangs.
    """

    def __init__(self, encoder: Encoder, beside: Beside, *, timeout_s: float = TIMEOUT_S) -> None:
        self._encoder, self._beside, self._timeout_s = encoder, beside, timeout_s
        self._version = 0
        runs: Any = SimpleNamespace(embed=self._run, close=lambda: None)  # what a worker asks of an encoder
        self._worker = Worker(lambda: runs)
        self._worker.opened(timeout_s)

    @property
    def events(self) -> list[dict[str, Any]]:
        """As of `Beside`."""
        return self._beside.events

    def info(self) -> dict[str, Any]:
        """As of `Beside`."""
        return self._beside.info()

    def embed_with_version(self, frames: NDArray[Any]) -> tuple[NDArray[np.float32], int]:
        """As of `Beside`, for one thread.

        Raises:
            HangError: No answer in time; this cannot be used any more.
        """
        return self._worker.ask(frames, self._timeout_s), self._version

    def close(self) -> None:
        """Write what was learned, and give the memory back."""
        self._worker.leave()
        self._worker.join(self._timeout_s)
        self._beside.close()
        self._encoder.close()

    def _run(self, frames: NDArray[Any]) -> NDArray[np.float32]:
        vectors, self._version = self._beside.embed_with_version(frames)
        return vectors
