"""Decides whether anything may be learned at all, and notices when learning went wrong.

Drift is judged by statistics taken before the first port: they do not depend on what was learned, so the decision is
the same whatever state the learner is in, and the way back to the factory is always open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import BundleError
from edgessl.metrics import cosines
from edgessl.runtimes.adapt.shape import Shape
from edgessl.runtimes.adapt.state import State
from edgessl.runtimes.split import DRIFT_BLOCK


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """When to learn, and when to stop. Values are ours, measured on drives over photographs by day and by night.

    Attributes:
        block: Frames whose statistics are averaged before they are judged; export sets the threshold for this length.
        least: Frames that must be seen before a shift can be declared, and that are enough to end one.
        score_clip: Largest squared distance of one frame, in thresholds, so that a single flash is no shift.
        alarm: A block's score above so many thresholds is a shift: a new lap by day reached 1.3 of them, the darkest
            place of a night never fewer than 4.4.
        release: The score of the last `least` frames must fall below so many thresholds for a shift to be over, as long
            as its direction is not known.
        enter, leave: A known shift has come back when the last `least` frames moved more than `enter` of its way, which
            days never did (.30), and is over when a block moved less than `leave`, which hardly a night's did (1 %).
        order: Another shift than the known one must reach this share of the known one's score.
        collapse_block: Votes that one look at the recent embeddings takes.
        collapse_spread: Alarm below this share of the spread before adapting.
        collapse_rank: Alarm below this share of the effective rank before adapting.
        anchor_cosine: A candidate tail must keep this median cosine to the factory's on the source's anchors.
        rollbacks: After so many, adaptation is frozen.
        forgive: Votes without an alarm after which earlier rollbacks no longer count.
    """

    block: int = DRIFT_BLOCK
    least: int = 16
    score_clip: float = 16.0
    alarm: float = 2.0
    release: float = 1.0
    enter: float = 0.4
    leave: float = 0.25
    order: float = 0.25
    collapse_block: int = 64
    collapse_spread: float = 0.3
    collapse_rank: float = 0.5
    anchor_cosine: float = 0.9
    rollbacks: int = 3
    forgive: int = 10_000


_TINY = 1e-12


class Guard:
    """Drift with hysteresis, collapse, quarantine, and the count of rollbacks.

    Args:
        source: Tensors of the bundle's `source` file.
        config: When to learn, and when to stop.

    Raises:
        BundleError: The bundle has no drift reference.
    """

    def __init__(self, source: Mapping[str, NDArray[np.floating]], config: GuardConfig) -> None:
        try:
            self._mean = source["drift.mean"].astype(np.float64)
            self._whiten = source["drift.whiten"].astype(np.float64)
            # A bundle without a bank has one scene, the mean.
            self._bank = source.get("drift.bank", np.zeros((1, len(self._whiten)))).astype(np.float64)
            self.threshold = float(source["drift.threshold"].item())
        except KeyError as error:
            raise BundleError(f"the bundle has no {error} to judge drift by; export it again") from error
        self.config = config
        self._window = np.zeros((0, len(self._whiten)))  # displacements of the last frames
        self._latest = 0.0  # score of the last `least` frames
        self._signature: NDArray[np.float64] | None = None  # whitened mean of the shift that was learned
        self._blocks = 0  # of votes, in the signature
        self._votes: list[NDArray[np.float64]] = []  # those that no block of votes has used yet
        self._recent: list[NDArray[np.float32]] = []
        self._baseline: Shape | None = None
        self.shifted = False
        self.quarantined = 0
        self.rollbacks = 0
        self.frozen = False
        self._since = 0  # votes since the last rollback

    @property
    def size(self) -> int:
        """Length of a whitened statistic."""
        return len(self._whiten)

    @property
    def score(self) -> float:
        """Drift score of the present block."""
        return _score(self._window)

    def whitened(self, statistic: NDArray[np.float64]) -> NDArray[np.float64]:
        """Statistics `(batch, 2 channels)` in units of the source's spread, `(batch, size)`."""
        return np.asarray((statistic - self._mean) @ self._whiten.T)

    def judge(self, whitened: NDArray[np.float64]) -> bool:
        """Take in the frames of one batch, and say whether the state changed between shifted and not."""
        config = self.config
        if not len(whitened):
            return False
        moved = self._displacement(whitened)
        distance = np.maximum((moved**2).mean(1, keepdims=True), _TINY)
        clipped = moved * np.minimum(1.0, np.sqrt(config.score_clip * self.threshold / distance))
        self._window = np.concatenate([self._window, clipped])[-config.block :]
        before = self.shifted
        self._latest = _score(self._window[-config.least :])
        if before:
            self.shifted = self._present
        elif len(self._window) >= config.least:
            self.shifted = self._alarm or self._along(config.least) > config.enter
        if self.shifted != before:
            self._votes = []
        return self.shifted != before

    @property
    def teaches(self) -> bool:
        """Whether the latest frames still look shifted; a block that is half night and half day teaches nothing."""
        return self.shifted and not self.frozen and self._present

    @property
    def _alarm(self) -> bool:
        """Whether the block is a shift that nothing is known of.

        What was learned from a known shift would serve it at first, so it must be of that shift's order: new viewpoints
        by day may go beyond the threshold, but not as far as a night.
        """
        if not self.score > self.config.alarm * self.threshold:
            return False
        return self._signature is None or self.score > self.config.order * float((self._signature**2).mean())

    @property
    def _present(self) -> bool:
        """Whether the last `least` frames still look shifted."""
        if self._signature is None:
            return not self._latest < self.config.release * self.threshold
        return not self._along(self.config.block) < self.config.leave

    def _along(self, frames: int) -> float:
        """How far the last `frames` have moved along the known shift, 1 for all of its way; 0 while none is known.

        Scenes move a block anywhere; along one direction they hardly do, so few frames are enough.
        """
        if self._signature is None or not len(self._window):
            return 0.0
        latest = self._window[-frames:].mean(0)
        return float(latest @ self._signature / max(float(self._signature @ self._signature), _TINY))

    def another_shift(self, whitened: NDArray[np.float64]) -> bool:
        """Take in votes of a shift; true when a block of them is twice nearer to the source than to it."""
        self._votes.extend(self._displacement(whitened))
        if len(self._votes) < self.config.block:
            return False
        here, self._votes = np.stack(self._votes).mean(0), []
        if self._signature is None:
            self._signature, self._blocks = here, 1
            return False
        other = float((here**2).sum()) < 0.5 * float(((here - self._signature) ** 2).sum())
        if other and self._latest > self.config.alarm * self.threshold:
            self._signature, self._blocks = here, 1
            return True
        self._blocks += 1
        rate = max(0.1, 1 / self._blocks)  # a mean at first, then slowly forgetting: dusk moves a shift
        self._signature = (1 - rate) * self._signature + rate * here
        return False

    def forget_shape(self) -> None:
        """A new shift: what the embeddings look like before adapting is to be seen again."""
        self._recent, self._baseline = [], None

    def collapsing(self, vectors: NDArray[np.float32]) -> str:
        """Take in votes' embeddings `(votes, dim)` before recentring.

        The first block of a shift is the measure for those that follow.

        Returns:
            What is wrong; empty when nothing is.
        """
        if not np.isfinite(vectors).all():
            return "the embedding is not finite"
        self._since += len(vectors)
        if self._since >= self.config.forgive:
            self.rollbacks = 0
        self._recent.extend(vectors)
        if len(self._recent) < self.config.collapse_block:
            return ""
        shape, self._recent = Shape.of(np.stack(self._recent)), []
        if self._baseline is None:
            self._baseline = shape
            return ""
        return self._worse(shape, self._baseline)

    def refuses(
        self,
        *,
        anchors: NDArray[np.float32],
        anchors_before: NDArray[np.float32],
        replayed: NDArray[np.float32],
        replayed_before: NDArray[np.float32],
    ) -> str:
        """Judge a candidate tail before it serves.

        Args:
            anchors: Its embeddings of the source's anchors, `(n, dim)`.
            anchors_before: The factory's.
            replayed: Its embeddings of the memory, `(m, dim)`.
            replayed_before: The factory tail's.

        Returns:
            What is wrong; empty when nothing is.
        """
        if not (np.isfinite(anchors).all() and np.isfinite(replayed).all()):
            return "the candidate's embedding is not finite"
        kept = float(np.median(cosines(anchors, anchors_before)))
        if kept < self.config.anchor_cosine:
            return f"median cosine on the anchors is {kept:.4f}, at least {self.config.anchor_cosine} is asked"
        pairs = {"anchors": (anchors, anchors_before), "memory": (replayed, replayed_before)}
        for name, (after, before) in pairs.items():
            if reason := self._worse(Shape.of(after), Shape.of(before)):
                return f"{reason} on the {name}"
        return ""

    def rolled_back(self) -> None:
        """Count a rollback; freezes at the last one allowed."""
        self.rollbacks += 1
        self._since = 0
        self.frozen = self.frozen or self.rollbacks >= self.config.rollbacks
        self.forget_shape()

    def _worse(self, after: Shape, before: Shape) -> str:
        config = self.config
        if after.spread < config.collapse_spread * before.spread:
            return f"the spread fell from {before.spread:.4g} to {after.spread:.4g}"
        if after.rank < config.collapse_rank * before.rank:
            return f"the effective rank fell from {before.rank:.2f} to {after.rank:.2f}"
        return ""

    def _displacement(self, whitened: NDArray[np.float64]) -> NDArray[np.float64]:
        """From the nearest source frame, `(batch, size)`: scenes cancel out, a shift moves every frame the same way."""
        squared = (self._bank**2).sum(1) - 2 * whitened @ self._bank.T  # and |whitened|^2, the same for all of the bank
        return np.asarray(whitened - self._bank[squared.argmin(1)])

    def state(self) -> State:
        """A copy."""
        tensors: dict[str, NDArray[np.generic]] = {"window": self._window.copy()}
        if self._signature is not None:
            tensors["signature"] = self._signature.copy()
        if self._votes:
            tensors["votes"] = np.stack(self._votes)
        if self._recent:
            tensors["recent"] = np.stack(self._recent)
        baseline = [self._baseline.spread, self._baseline.rank] if self._baseline else None
        counts = {
            "quarantined": self.quarantined,
            "rollbacks": self.rollbacks,
            "since": self._since,
            "blocks": self._blocks,
        }
        flags = {"shifted": self.shifted, "frozen": self.frozen}
        return State(tensors=tensors, values={**counts, **flags, "latest": self._latest, "baseline": baseline})

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        signature, baseline = state.tensors.get("signature"), state.values["baseline"]
        self._window = state.tensors["window"].copy()
        self._signature = None if signature is None else signature.copy()
        self._latest = float(state.values["latest"])
        self._votes = list(state.tensors["votes"].copy()) if "votes" in state.tensors else []
        self._recent = list(state.tensors["recent"].copy()) if "recent" in state.tensors else []
        self._baseline = Shape(spread=baseline[0], rank=baseline[1]) if baseline else None
        self.quarantined, self.rollbacks = int(state.values["quarantined"]), int(state.values["rollbacks"])
        self._since, self._blocks = int(state.values["since"]), int(state.values["blocks"])
        self.shifted, self.frozen = bool(state.values["shifted"]), bool(state.values["frozen"])


def _score(moved: NDArray[np.float64]) -> float:
    """Squared length of the mean displacement, per dimension."""
    return float((moved.mean(0) ** 2).mean()) if len(moved) else 0.0
