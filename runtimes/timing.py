"""Which of several contenders is faster here, on a machine that does other things too.

Contenders run in turn, in an order that is drawn anew in every round: a noisy second then falls on all of them, and the
ratio of two of them within a round says more than either time. What is faster is decided on those ratios.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgessl.errors import InputError

Times = dict[str, list[float]]  # contender -> seconds per call, one entry per round

MARGIN = 0.03  # by how much a contender must be faster, unless the caller says otherwise


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One contender beside the baseline.

    Attributes:
        name: The contender.
        median_ms: Median over the rounds of the milliseconds per call.
        ratio: Median over the rounds of its time over the baseline's in the same round; below 1 is faster.
        low, high: First and third quartile of those ratios.
        rounds: How many there were.
    """

    name: str
    median_ms: float
    ratio: float
    low: float
    high: float
    rounds: int

    def to_json(self) -> dict[str, Any]:
        """Rounded, for a report."""
        return {
            "name": self.name,
            "median_ms": round(self.median_ms, 4),
            "ratio": round(self.ratio, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "rounds": self.rounds,
        }


def interleaved(
    runs: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 21,
    calls: int = 3,
    warm_up: int = 3,
    budget_s: float = 10.0,
    rng: np.random.Generator | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Run contenders in turn.

    Args:
        runs: Contender -> what to time, once per call.
        rounds: Rounds, at most.
        calls: Calls of a contender per round; the quickest counts, since nothing makes code faster than it is.
        warm_up: Untimed calls of each contender before the first round.
        budget_s: No round begins after so many seconds, warming up included, except the first.
        rng: Draws the order in each round; the same one by default.
        clock: Seconds.

    Returns:
        Seconds per call of each contender, one entry per round.

    Raises:
        InputError: Nothing to run, or no round.
    """
    if not runs or rounds < 1 or calls < 1:
        raise InputError(
            f"nothing to time: {len(runs)} contenders, {rounds} rounds of {calls} calls; each must be 1 or more"
        )
    rng = np.random.default_rng(0) if rng is None else rng
    start = clock()
    for run in runs.values():
        for _ in range(warm_up):
            run()
    times: Times = {name: [] for name in runs}
    names = list(runs)
    for done in range(rounds):
        if done and clock() - start > budget_s:
            break
        for index in rng.permutation(len(names)):
            name = names[index]
            times[name].append(min(_timed(runs[name], clock) for _ in range(calls)))
    return times


def compare(times: Mapping[str, Sequence[float]], *, baseline: str) -> dict[str, Comparison]:
    """Every contender beside the baseline, in the order of `times`.

    Raises:
        InputError: The baseline is not among them, or their rounds differ.
    """
    if baseline not in times:
        raise InputError(f"no contender {baseline!r} to compare with; choose one of: {', '.join(times)}")
    base = np.asarray(times[baseline])
    rows = {}
    for name, seconds in times.items():
        if len(seconds) != len(base) or not len(base):
            raise InputError(f"{name!r} has {len(seconds)} rounds and {baseline!r} {len(base)}; time them together")
        low, middle, high = np.quantile(_ratios(seconds, base), (0.25, 0.5, 0.75))
        rows[name] = Comparison(
            name=name,
            median_ms=float(np.median(seconds)) * 1e3,
            ratio=float(middle),
            low=float(low),
            high=float(high),
            rounds=len(base),
        )
    return rows


def faster(a: Sequence[float], b: Sequence[float], *, margin: float = MARGIN) -> bool:
    """Whether `a` is faster than `b`, both from the same `interleaved` run.

    The rule: over the rounds, the median of a/b is below `1 - margin`, and so is a/b in at least three rounds of four.
    The first asks how much, the second how surely: a tie whose median fell on the right side by chance is not faster.

    Raises:
        InputError: Their rounds differ.
    """
    if len(a) != len(b) or not len(a):
        raise InputError(f"{len(a)} and {len(b)} rounds cannot be compared; time both together")
    return bool(np.quantile(_ratios(a, b), 0.75) < 1 - margin)


def _ratios(a: Sequence[float], b: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    tick = 1e-9  # a coarse clock may read 0
    return np.maximum(np.asarray(a, np.float64), tick) / np.maximum(np.asarray(b, np.float64), tick)


def _timed(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start
