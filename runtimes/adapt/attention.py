"""Which frames of a stream are looked at: a few where nothing new is expected, all of them where something has changed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Attention:
    """How long all frames are still to be looked at.

    Args:
        every: Otherwise one frame in so many is.

    Attributes:
        left: Frames that are all to be looked at.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self.left = 0

    def call(self, frames: int) -> None:
        """Look at so many at least."""
        self.left = max(self.left, frames)

    def looked(self, frames: int) -> None:
        """So many have been looked at."""
        self.left = max(0, self.left - frames)

    def chosen(self, start: int, count: int) -> NDArray[np.bool_]:
        """Which of the stream's next `count` frames, the first of which has number `start`, are looked at, `(count,)`."""
        frames = np.arange(count)
        return np.asarray((frames < self.left) | ((start + frames) % self._every == 0))
