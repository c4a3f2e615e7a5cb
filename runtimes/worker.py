"""One encoder in a thread of its own, asked with a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import EngineError
from edgessl.runtimes.encoder import Encoder


class HangError(EngineError):
    """No answer until the deadline."""


class Worker:
    """The thread. A daemon: the process need not wait for one that hangs.

    Args:
        open_it: Opens the encoder, in the thread.
    """

    def __init__(self, open_it: Callable[[], Encoder]) -> None:
        self._open_it = open_it
        self._asked: SimpleQueue[tuple[int, NDArray[Any]] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self._number = 0  # of the question; 0 is the opening
        self._thread = threading.Thread(target=self._serve, name="edgessl-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """The thread is still there."""
        return self._thread.is_alive()

    def opened(self, timeout_s: float) -> Encoder:
        """The encoder, once; or what opening it raised.

        Raises:
            HangError: It takes longer.
        """
        encoder: Encoder = self._answer(timeout_s, "opening")
        return encoder

    def ask(self, frames: NDArray[Any], timeout_s: float) -> NDArray[np.float32]:
        """Vectors of `frames`, or what embedding them raised.

        Raises:
            HangError: It takes longer.
        """
        self._number += 1
        self._asked.put((self._number, frames))
        vectors: NDArray[np.float32] = self._answer(timeout_s, "a run")
        return vectors

    def leave(self) -> None:
        """Close the encoder when there is time, and end."""
        self._asked.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout_s)

    def _answer(self, timeout_s: float, what: str) -> Any:
        number = -1
        try:
            while number != self._number:  # Ctrl-C may have left an answer that nobody took
                number, answer = self._answers.get(timeout=timeout_s)
        except Empty:
            raise HangError(f"{what} took longer than {timeout_s:g} s") from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _serve(self) -> None:
        try:
            encoder = self._open_it()
        except BaseException as error:  # noqa: BLE001 (it is raised where somebody waits)
            self._answers.put((0, error))
            return
        self._answers.put((0, encoder))
        while (asked := self._asked.get()) is not None:
            self._answers.put((asked[0], _embedded(encoder, asked[1])))
            del asked  # the next frames may be a long time coming
        encoder.close()


def _embedded(encoder: Encoder, frames: NDArray[Any]) -> Any:
    try:
        return encoder.embed(frames)
    except BaseException as error:  # noqa: BLE001 (it is raised where somebody waits)
        return error
