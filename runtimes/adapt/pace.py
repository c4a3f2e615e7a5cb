"""How many frames it takes until a stream shows something else: what is averaged over scenes must be that much longer.

Of independent frames the mean of a block varies as one frame does, divided by their number. Of a video, whose block is one
scene, it varies nearly as one frame does. The factor between the two is had from neighbouring blocks (batch means, as in
`dependence.py`), of the displacements that drift is judged by; the median over the last ones, since where the world shifts
two neighbours differ for another reason.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.state import State

_KEPT = 8  # pairs of neighbouring blocks
_FEWEST = 4  # of them: with two, a shift right after the start looked like a video
_PER_STRETCH = 1.5  # frames worth an independent one, that a block as it is puts up with; ours


class Pace:
    """Blocks of displacements `(dim,)`, in the order of the stream.

    Args:
        dim: Of a displacement.
        block: Frames of a block.
        most: Largest stretch.
    """

    def __init__(self, dim: int, block: int, most: int) -> None:
        self._block, self._most = block, most
        self._open = np.zeros((0, dim))  # of the block that is not whole
        self._last = np.zeros((0, dim))  # mean of the block before, once there was one
        self._factors = np.zeros(0)

    @property
    def factor(self) -> float:
        """How many frames are worth an independent one, 1 or more."""
        return max(1.0, float(np.median(self._factors))) if len(self._factors) >= _FEWEST else 1.0

    @property
    def stretch(self) -> int:
        """By how much longer than a block what is averaged must be, 1 or more."""
        return int(min(self._most, max(1, round(self.factor / _PER_STRETCH))))

    def update(self, moved: NDArray[np.float64]) -> None:
        """Take in displacements `(frames, dim)`."""
        self._open = np.concatenate([self._open, moved])
        while len(self._open) >= self._block:
            block, self._open = self._open[: self._block], self._open[self._block :]
            mean, within = block.mean(0), float(block.var(0).sum())
            if len(self._last):
                between = float(np.square(mean - self._last[0]).sum()) / 2
                factor = self._block * between / max(within + between, np.finfo(float).tiny)
                self._factors = np.append(self._factors, factor)[-_KEPT:]
            self._last = mean[None]

    def state(self) -> State:
        """A copy."""
        return State(tensors={"open": self._open.copy(), "last": self._last.copy(), "factors": self._factors.copy()})

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        self._open, self._last, self._factors = (state.tensors[name].copy() for name in ("open", "last", "factors"))
