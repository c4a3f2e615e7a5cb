"""Notices when learning went wrong: collapse, candidates that leave the source, rollbacks; and freezes it in the end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.metrics import cosines, knn_overlap, lidar
from edgessl.runtimes.adapt.shape import Shape
from edgessl.runtimes.adapt.state import State


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """When learning has gone wrong. Values are ours.

    Attributes:
        collapse_block: Votes that one look at the recent embeddings takes.
        collapse_spread: Alarm below this share of the spread before adapting.
        collapse_rank: Alarm below this share of the effective rank before adapting.
        anchor_cosine: A candidate tail must keep this median cosine to the factory's on the source's anchors.
        anchor_overlap: And this share of each anchor's ten nearest anchors.
        lidar: And this share of LiDAR on the memory.
        refusals: After so many candidates in a row that are refused no tail is trained any more.
        rollbacks: After so many, adaptation is frozen.
        forgive: Votes without an alarm after which earlier rollbacks no longer count.
    """

    collapse_block: int = 64
    collapse_spread: float = 0.3
    collapse_rank: float = 0.5
    anchor_cosine: float = 0.9
    anchor_overlap: float = 0.6
    lidar: float = 0.9
    refusals: int = 3
    rollbacks: int = 3
    forgive: int = 10_000


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a candidate tail is worth.

    Attributes:
        reason: It is refused; empty when it may serve.
        cosine: Median cosine to the factory's on the source's anchors.
        overlap: Share of an anchor's ten nearest anchors that stay.
        lidar, lidar_before: LiDAR on the memory, the candidate's and that of the factory's tail.
    """

    reason: str
    cosine: float = float("nan")
    overlap: float = float("nan")
    lidar: float = float("nan")
    lidar_before: float = float("nan")

    @property
    def passed(self) -> bool:
        """Whether it may serve."""
        return not self.reason

    def numbers(self) -> dict[str, Any]:
        """For the log."""
        return asdict(self)


class Guard:
    """Collapse, acceptance, quarantine, and the count of rollbacks.

    Args:
        config: When learning has gone wrong.

    Attributes:
        latest: Spread and rank of the last block of embeddings; `None` before the first.
    """

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self._recent: list[NDArray[np.float32]] = []
        self._baseline: Shape | None = None
        self.latest: Shape | None = None
        self.quarantined = 0
        self.rollbacks = 0
        self.frozen = False
        self._since = 0  # votes since the last rollback

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
        self.latest = shape
        if self._baseline is None:
            self._baseline = shape
            return ""
        return self._worse(shape, self._baseline)

    def judge(
        self,
        *,
        anchors: NDArray[np.float32],
        anchors_before: NDArray[np.float32],
        views: tuple[NDArray[np.float32], NDArray[np.float32]],
        views_before: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> Verdict:
        """Judge a candidate tail before it serves.

        Args:
            anchors: Its embeddings of the source's anchors, `(n, dim)`.
            anchors_before: The factory's.
            views: Its embeddings of both views of the memory, `(m, dim)` each.
            views_before: The factory's.
        """
        if not all(np.isfinite(each).all() for each in (anchors, *views)):
            return Verdict(reason="the candidate's embedding is not finite")
        config = self.config
        kept = float(np.median(cosines(anchors, anchors_before)))
        overlap = knn_overlap(anchors_before, anchors)
        rank, rank_before = lidar(*views), lidar(*views_before)
        reason = ""
        if kept < config.anchor_cosine:
            reason = f"median cosine on the anchors is {kept:.4f}, at least {config.anchor_cosine} is asked"
        elif overlap < config.anchor_overlap:
            reason = (
                f"of ten neighbours of an anchor {overlap:.0%} stay, at least {config.anchor_overlap:.0%} are asked"
            )
        elif rank < config.lidar * rank_before:
            reason = f"LiDAR on the memory fell from {rank_before:.2f} to {rank:.2f}"
        pairs = {"anchors": (anchors, anchors_before), "memory": (views[0], views_before[0])}
        for name, (after, before) in pairs.items():
            if not reason and (worse := self._worse(Shape.of(after), Shape.of(before))):
                reason = f"{worse} on the {name}"
        return Verdict(reason=reason, cosine=kept, overlap=overlap, lidar=rank, lidar_before=rank_before)

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

    def state(self) -> State:
        """A copy."""
        tensors: dict[str, NDArray[np.generic]] = {"recent": np.stack(self._recent)} if self._recent else {}
        baseline = [self._baseline.spread, self._baseline.rank] if self._baseline else None
        counts = {"quarantined": self.quarantined, "rollbacks": self.rollbacks, "since": self._since}
        return State(tensors=tensors, values={**counts, "frozen": self.frozen, "baseline": baseline})

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        baseline = state.values["baseline"]
        self._recent = list(state.tensors["recent"].copy()) if "recent" in state.tensors else []
        self._baseline = Shape(spread=baseline[0], rank=baseline[1]) if baseline else None
        self.quarantined, self.rollbacks = int(state.values["quarantined"]), int(state.values["rollbacks"])
        self._since, self.frozen = int(state.values["since"]), bool(state.values["frozen"])
