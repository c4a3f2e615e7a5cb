"""Whether the votes of one shift have come to lie elsewhere: rain that turns into sleet, a lens that fogs up further.

A block of votes that lies far from the shift's others is told at once (`drift.py`). What is nearer than one block scatters
needs several: the mean of the last ones against the mean of those before them, which is a two-sample test of the mean.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgessl.runtimes.adapt.displacement import Floats64, near
from edgessl.runtimes.adapt.state import State

# Squared distance, in units of what two means of blocks are apart by chance, that is a change. Few blocks are looked at more
# often, and scenes of a video are few: one in a thousand blocks of them reached 5.
_CLEAR, _SUDDEN = 2.0, 6.0


@dataclass(frozen=True, kw_only=True)
class ChangeConfig:
    """When it has changed. Values are ours, from corruptions of several severities that follow each other.

    Attributes:
        blocks: The last ones, which are compared with those before.
        before: Of those there must be so many at least.
        memory: Blocks that the mean of those before remembers.
        share: Further apart than this share of the shorter of both, squared, is a change.
    """

    blocks: int = 16
    before: int = 4
    memory: int = 16
    share: float = 0.15


class Lie(NamedTuple):
    """Where votes lie.

    Attributes:
        here: Their mean displacement, clipped, `(dim,)`.
        place: The same, hardly clipped.
    """

    here: Floats64
    place: Floats64


class Block(NamedTuple):
    """A block of votes, or several: as `Lie`, and how well that is known.

    Attributes:
        noise: Squared error of `place`.
    """

    here: Floats64
    place: Floats64
    noise: float


class Change:
    """The last blocks of votes of the present shift, and where those before them lay, shift by shift.

    Args:
        config: When it has changed.

    Attributes:
        suspicious: Whether the last block may be the first of a change.
    """

    def __init__(self, config: ChangeConfig) -> None:
        self._config = config
        self._recent: list[Lie] = []
        self._before: dict[int, Lie] = {}
        self._counts: dict[int, int] = {}  # blocks that were before the last ones
        self._shift = -1
        self.suspicious = False

    @property
    def before(self) -> dict[int, Lie]:
        """Where the votes of each shift lay, but the last ones; of shifts of which there were enough."""
        return {number: one for number, one in self._before.items() if self._enough(number)}

    def update(self, shift: int, block: Block) -> Block | None:
        """Take in a block of votes.

        Args:
            shift: The one that the world is in.
            block: The votes.

        Returns:
            Where the last blocks lie, once that is elsewhere.
        """
        config = self._config
        if shift != self._shift:
            self.restart(shift)
        self._recent.append(Lie(block.here, block.place))
        if len(self._recent) > config.blocks:
            self._keep(self._recent.pop(0))
        if not self._enough(shift):
            return None
        known = self._before[shift]
        self.suspicious = not near(block.place, known.place, block.noise, config.share)
        here, places = (np.stack(part) for part in zip(*self._recent, strict=True))
        # What comes at once is plain from fewer blocks, beside those right before them: dusk is no change in a few blocks.
        for few in (config.blocks // 4, config.blocks // 2):
            last, rest = places[-few:], places[:-few]
            if len(rest) >= few and self._apart(last, rest.mean(0), len(rest), _scatter(last, rest)):
                return self._changed(here[-few:], last)
        count = min(self._counts[shift], config.memory)
        if len(places) == config.blocks and self._apart(places, known.place, count, _scatter(places)):
            return self._changed(here, places)
        return None

    def _apart(self, places: Floats64, before: Floats64, count: int, scatter: float) -> bool:
        """Whether the mean of blocks that scatter so clearly lies elsewhere than that of `count` others."""
        noise = scatter / len(places) + scatter / count
        clear = _CLEAR if len(places) == self._config.blocks else _SUDDEN
        apart = float(np.square(places.mean(0) - before).sum())
        return apart > clear * noise and not near(places.mean(0), before, noise, self._config.share)

    def _changed(self, here: Floats64, places: Floats64) -> Block:
        """The mean of these blocks; what comes next is a stretch of its own."""
        self.restart(self._shift)
        return Block(here.mean(0), places.mean(0), _scatter(places) / len(places))

    def restart(self, shift: int) -> None:
        """The next block is the first of a stretch in this shift."""
        self._shift, self._recent, self.suspicious = shift, [], False

    def forget(self, known: Collection[int]) -> None:
        """Nothing is kept of shifts that are not known any more."""
        self._before = {number: one for number, one in self._before.items() if number in known}
        self._counts = {number: count for number, count in self._counts.items() if number in known}

    def state(self) -> State:
        """A copy."""
        parts = {f"recent.{place}": block for place, block in enumerate(self._recent)}
        parts |= {f"before.{number}": block for number, block in self._before.items()}
        tensors = {
            f"{name}.{part}": getattr(one, part).copy() for name, one in parts.items() for part in ("here", "place")
        }
        counts = {str(number): count for number, count in self._counts.items()}
        own = {"shift": self._shift, "suspicious": self.suspicious, "counts": counts, "recent": len(self._recent)}
        return State(tensors=tensors, values=own)

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        values = state.values

        def lie(name: str) -> Lie:
            return Lie(*(state.tensors[f"{name}.{part}"].copy() for part in ("here", "place")))

        self._shift, self.suspicious = int(values["shift"]), bool(values["suspicious"])
        self._counts = {int(number): int(count) for number, count in values["counts"].items()}
        self._before = {number: lie(f"before.{number}") for number in self._counts}
        self._recent = [lie(f"recent.{place}") for place in range(int(values["recent"]))]

    def _enough(self, shift: int) -> bool:
        return self._counts.get(shift, 0) >= self._config.before

    def _keep(self, block: Lie) -> None:
        shift = self._shift
        count = self._counts[shift] = self._counts.get(shift, 0) + 1
        known, rate = self._before.get(shift, block), max(1 / count, 1 / self._config.memory)
        self._before[shift] = Lie(*((1 - rate) * old + rate * new for old, new in zip(known, block, strict=True)))


def _scatter(*groups: Floats64) -> float:
    """Of blocks about the mean of their group, all dimensions together; in a video they are hardly more alike than scenes."""
    squares = sum(float(np.square(group - group.mean(0)).sum()) for group in groups)
    return squares / sum(len(group) - 1 for group in groups)
