"""Frames that wait for the learner: few, copied only where the budget grants them, the oldest let go when there are too many."""

from __future__ import annotations

from collections import deque
from threading import Condition
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.budget import Budget

Frames = NDArray[Any]


class Waiting:
    """A bounded queue between the threads that embed and the one that learns; putting never blocks.

    Args:
        size: Frames, at most.
        budget: Says which frames may be learned from.

    Attributes:
        dropped: Frames that were granted and let go, so far.
        behind: Some were let go since the queue was last empty.
    """

    def __init__(self, size: int, budget: Budget) -> None:
        self._size, self._budget = size, budget
        self._frames: deque[Frames] = deque()
        self._changed = Condition()  # held for a few assignments, never while anything runs
        self._closed = False
        self.dropped = 0
        self.behind = False

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frames: Frames) -> None:
        """Leave copies of what the budget grants of `(batch, *sample)`; of a batch, frames in even distances."""
        if self._closed:
            return
        granted = self._budget.grant(len(frames))
        if not granted:
            return
        rows = (np.arange(granted) * len(frames) // granted)[-self._size :]
        try:
            copies = [frames[row].copy() for row in rows]
        except MemoryError:  # the caller has its vectors; it is learning that goes short
            copies = []
        with self._changed:
            if self._ended():  # meanwhile
                return
            self._frames.extend(copies)
            over = max(0, len(self._frames) - self._size)
            for _ in range(over):
                self._frames.popleft()
            over += granted - len(copies)
            self.dropped += over
            self.behind = self.behind or over > 0
            self._changed.notify_all()
        self._budget.refund(over)

    def take(self, count: int, *, timeout_s: float) -> list[Frames]:
        """The oldest frames, `count` at most; waits for the first, and gives none after `timeout_s` or when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._frames, timeout_s)
            taken = [self._frames.popleft() for _ in range(min(count, len(self._frames)))]
            self.behind = self.behind and bool(self._frames)
            return taken

    def sleep(self, timeout_s: float) -> None:
        """Wait until it is closed, but no longer than this."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, timeout_s)

    def close(self) -> None:
        """Let everything go that waits, take nothing more, and wake whoever waits."""
        with self._changed:
            self._closed = True
            self._frames.clear()
            self._changed.notify_all()

    def _ended(self) -> bool:
        return self._closed
