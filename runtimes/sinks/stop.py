"""Ctrl-C and SIGTERM, while something is written."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any


class Stop:
    """Takes both. Use it in a `with`, in the main thread.

    Args:
        at_once: The first raises KeyboardInterrupt; else it is only noted, and the second raises.

    Attributes:
        signal: That came last; 0 when none did.
    """

    def __init__(self, *, at_once: bool) -> None:
        self.signal = 0
        self._at_once = at_once
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """What a shell says of a process that the signal ended; 0 when none came."""
        return 128 + self.signal if self.signal else 0

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._told)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _told(self, number: int, frame: FrameType | None) -> None:
        raises, self.signal = self._at_once or bool(self.signal), number
        if raises:
            raise KeyboardInterrupt
