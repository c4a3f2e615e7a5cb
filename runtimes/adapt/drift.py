"""Whether the world has shifted, and to which of the shifts that are known.

Drift is judged by statistics taken before the first port: they do not depend on what was learned, so the decision is
the same whatever state the learner is in, and the way back to the factory is always open. Each frame is compared with
the source frame that is most like it, and displacements are averaged: scenes cancel out, a change of light or sensor stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.change import Block, Change, ChangeConfig
from edgessl.runtimes.adapt.displacement import Floats64, Reference, alike, along, near, score_of
from edgessl.runtimes.adapt.pace import Pace
from edgessl.runtimes.adapt.shifts import Shifts
from edgessl.runtimes.adapt.state import State, joined
from edgessl.runtimes.split import DRIFT_BLOCK

_FEW_FRAMES = 4  # that make one suspicious
_FEW_BLOCKS = 4  # of votes, which say how far a shift goes
#: where votes turn out to be: in the present shift, in one near to it, in one far from it
Turn = Literal["", "near", "far"]


@dataclass(frozen=True, kw_only=True)
class DriftConfig:
    """When the world has shifted. Values are ours, from drives over photographs by day and by night.

    Attributes:
        block: Frames whose displacements are averaged; export sets the threshold for this length. Where frames follow each
            other, as in a video, up to `stretch` times as many: see `pace.Pace`.
        stretch: A block of 32 frames of a video is one scene, and scenes, not frames, have to average out.
        least: Frames that must be seen before a shift can be declared, and that are enough for one to have come back; of
            a video, as many times as many.
        score_clip: Largest squared distance of one frame, in thresholds, so that a single flash is no shift.
        vote_clip: The same of a vote, when it is asked which of the shifts it is of: strong ones differ in how far they go.
        alarm: A block's score above so many thresholds is a shift: a new lap by day reached 1.3 of them, the darkest
            place of a night never fewer than 4.4.
        slow: Blocks of frames that look unlike each other, averaged to see a weak shift.
        slow_alarm: Their score above so many thresholds is a shift: clean images in the order of their classes reached .45,
            and at .15 adaptation cost them 2 points.
        enter, leave: A known shift has come back when the last `least` frames moved more than `enter` of its way, which
            days never did (.30), and is over when a block moved less than `leave`, which hardly a night's did (1 %).
        order: What is not a known shift must reach this share of the score of the last one: a new viewpoint by day may go
            beyond the threshold, but not as far as a night.
        other: Two blocks of votes in a row that lie further from the present shift than this share of the shorter of
            both, squared, are of another one.
        mild: A shift of a lower score is left to the factory's encoder: adapting to less loses as often as it wins.
        known: Shifts that are remembered.
        change: When many blocks say that it is another one that lies nearer.
    """

    block: int = DRIFT_BLOCK
    stretch: int = 8
    least: int = 16
    score_clip: float = 16.0
    vote_clip: float = 1024.0
    alarm: float = 2.0
    slow: int = 8
    slow_alarm: float = 0.5
    enter: float = 0.6
    leave: float = 0.25
    order: float = 0.25
    other: float = 0.5
    mild: float = 0.25
    known: int = 16
    change: ChangeConfig = field(default_factory=ChangeConfig)


class Drift:
    """Windows of displacements, and the shifts that are known by their mean displacement.

    Args:
        source: Tensors of the bundle's `source` file.
        config: When the world has shifted.

    Attributes:
        shifted: Whether it has.

    Raises:
        BundleError: The bundle has no drift reference.
    """

    def __init__(self, source: Mapping[str, NDArray[np.floating]], config: DriftConfig) -> None:
        self._reference = Reference(source)
        self.config = config
        self._pace = Pace(self.size, config.block, config.stretch)
        self._change = Change(config.change)
        self._vote_pace = Pace(self.size, config.block, config.stretch)
        self._window = np.zeros((0, self.size))  # displacements of the last frames
        self._novel = np.zeros((0, self.size))  # of frames unlike each other, in the block that is not whole
        self._blocks = np.zeros((0, self.size))  # means of the last such blocks
        self._votes = np.zeros((0, self.size))  # displacements of votes, in the block that is not whole; hardly clipped
        self._apart: Floats64 | None = None  # mean of the last block of votes, where it was not of the present shift
        self._shifts = Shifts(config.known)
        self.shifted = False

    @property
    def size(self) -> int:
        """Length of a whitened statistic."""
        return self._reference.size

    @property
    def threshold(self) -> float:
        """Score that clean blocks stay below."""
        return self._reference.threshold

    @property
    def shift(self) -> int:
        """Number of the shift that the world is in, or was in last; -1 before the first."""
        return self._shifts.present

    @property
    def score(self) -> float:
        """Of the present block."""
        return score_of(self._window)

    @property
    def known(self) -> tuple[int, ...]:
        """Numbers of the shifts that are remembered."""
        return tuple(self._shifts.signatures)

    def whitened(self, statistic: Floats64) -> Floats64:
        """Statistics `(batch, 2 channels)` in units of the source's spread, `(batch, size)`."""
        return self._reference.whitened(statistic)

    def judge(self, whitened: Floats64, novel: NDArray[np.bool_]) -> bool:
        """Take in the frames of one batch, and say whether a shift began or ended, or one followed another.

        Args:
            whitened: Their statistics `(batch, size)`.
            novel: Which of them look unlike those before, `(batch,)`.
        """
        if not len(whitened):
            return False
        config = self.config
        moved = self._reference.clipped(self._reference.displacement(whitened), config.score_clip)
        self._pace.update(moved)
        self._window = np.concatenate([self._window, moved])[-self.block :]
        before = self.shifted, self.shift
        if self.shifted:
            self.shifted = self.present
        # One shift may follow another at once; where it lies, a block says that is of nothing else.
        if not self.shifted and len(self._window) >= self.least and (not before[0] or self.settled):
            self.shifted = self._returned() or self._alarmed(moved[novel])
        if changed := before[0] != self.shifted or (self.shifted and before[1] != self.shift):
            self._votes, self._novel, self._blocks = (np.zeros((0, self.size)) for _ in range(3))
            self._apart = None
            self._change.restart(self.shift)
        return changed

    @property
    def block(self) -> int:
        """Frames that are averaged now."""
        return self.config.block * self._pace.stretch

    @property
    def least(self) -> int:
        """Frames that must be seen before a shift is declared now."""
        return self.config.least * self._pace.stretch

    @property
    def confirmed(self) -> int:
        """Blocks of votes that were of the present shift."""
        return self._shifts.counts.get(self.shift, 0)

    @property
    def mild(self) -> bool:
        """Whether the present shift is too small to be worth adapting to."""
        known = self.confirmed >= _FEW_BLOCKS
        return known and score_of(self._shifts.signatures[self.shift][None]) < self.config.mild * self.threshold

    @property
    def present(self) -> bool:
        """Whether the block still lies along the present shift; one that is half night and half day teaches nothing."""
        signature = self._shifts.signature
        return signature is not None and not along(self._window, signature) < self.config.leave

    @property
    def settled(self) -> bool:
        """Whether both halves of the block lie alike: one that is half night and half day lies nowhere."""
        return alike(self._window, self._pace.factor, self.config.other)

    @property
    def suspicious(self) -> bool:
        """Whether the last few frames look as if something had changed: all are worth a look then."""
        few = self._window[-_FEW_FRAMES:]
        if self.shifted and (self._apart is not None or self._change.suspicious):  # the last votes lay elsewhere
            return True
        if self.shifted:
            return along(few, self._shifts.signatures[self.shift]) < self.config.enter
        return score_of(few) > 2 * self.config.alarm * self.threshold

    def vote(self, whitened: Floats64) -> Turn:
        """Take in votes of the present shift; says so when they turn out to be of another one, the present from now on."""
        config = self.config
        turn: Turn = ""
        moved = self._reference.clipped(self._reference.displacement(whitened), config.vote_clip)
        self._votes = np.concatenate([self._votes, moved])
        self._vote_pace.update(moved)
        while len(self._votes) >= (length := config.block * self._vote_pace.stretch):
            block, self._votes = self._votes[:length], self._votes[length:]
            place, noise = block.mean(0), float(block.var(0, ddof=1).sum()) * self._vote_pace.factor / length
            here, known = self._reference.clipped(block, config.score_clip).mean(0), self._shifts.places.get(self.shift)
            if known is None or near(place, known, noise, config.other):
                self._apart = None
                self._shifts.follow(here, place)
                if elsewhere := self._change.update(self.shift, Block(here, place, noise)):
                    before = self._change.before
                    self._shifts.put(*before[self.shift])  # the last blocks were of another one
                    self._move_on(elsewhere, {n: one.place for n, one in before.items()}, config.change.share)
                    turn = "near"
            elif self._apart is None:
                self._apart = place
            else:
                self._move_on(Block(here, (place + self._apart) / 2, noise / 2), self._shifts.places, config.other)
                turn = "far"
        return turn

    def state(self) -> State:
        """A copy."""
        tensors = {"window": self._window, "novel": self._novel, "blocks": self._blocks, "votes": self._votes}
        if self._apart is not None:
            tensors["apart"] = self._apart
        others = joined(
            {
                "pace": self._pace.state(),
                "vote_pace": self._vote_pace.state(),
                "shifts": self._shifts.state(),
                "change": self._change.state(),
            }
        )
        copies = {name: value.copy() for name, value in tensors.items()}
        return State(tensors=copies | others.tensors, values={"shifted": self.shifted} | others.values)

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        tensors = state.tensors
        self._window, self._novel, self._blocks, self._votes = (
            tensors[name].copy() for name in ("window", "novel", "blocks", "votes")
        )
        self._apart = tensors["apart"].copy() if "apart" in tensors else None
        self._pace.restore(state.part("pace"))
        self._vote_pace.restore(state.part("vote_pace"))
        self._shifts.restore(state.part("shifts"))
        self._change.restore(state.part("change"))
        self.shifted = bool(state.values["shifted"])

    def _returned(self) -> bool:
        """Whether the last frames have moved along a known shift; the one that they are nearest to is the present one."""
        last, known = self._window[-self.least :], self._shifts.signatures
        back = {number: one for number, one in known.items() if along(last, one) > self.config.enter}
        if back:
            self._window = last  # what was before it must not end it at once
            self._shifts.nearest(last.mean(0), back)
        return bool(back)

    def _alarmed(self, novel: Floats64) -> bool:
        """Whether there is a shift that nothing is known of; if so, it is the present one."""
        config, block = self.config, self.block
        self._novel = np.concatenate([self._novel, novel])
        while len(self._novel) >= block:
            self._blocks = np.concatenate([self._blocks, self._novel[:block].mean(0)[None]])[-config.slow :]
            self._novel = self._novel[block:]
        last = self._shifts.signature
        least = 0.0 if last is None else config.order * float((last**2).mean())
        weak = score_of(self._blocks) if len(self._blocks) == config.slow else 0.0
        for score, times, seen in ((self.score, config.alarm, self._window), (weak, config.slow_alarm, self._blocks)):
            if score > max(times * self.threshold, least if seen is self._window else 0.0):
                here = seen.mean(0)
                if not self._shifts.choose(here, self._shifts.signatures, 0.0, config.other):
                    self._know(here)
                self._apart = None
                return True
        return False

    def _move_on(self, votes: Block, places: Mapping[int, Floats64], share: float) -> None:
        """Make the known shift whose votes lay where these lie the present one, or make it known."""
        others = {number: place for number, place in places.items() if number != self.shift}
        if not self._shifts.choose(votes.place, others, votes.noise, share):
            self._know(votes.here, votes.place)
        self._apart = None

    def _know(self, here: Floats64, place: Floats64 | None = None) -> None:
        self._shifts.know(here, place)
        self._change.forget(self.known)
