"""Which of several contenders is faster here, on a machine that does other things too.

Contenders run in turn, in an order that is drawn anew in every round: a noisy second then falls on all of them, and the
ratio of two of them within a round says more than either time. What is faster is decided on those ratios.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgessl.errors import InputError

Times = dict[str, list[float]]  # contender -> seconds per call, one entry per round

LATE_S = 1e-3  # a frame that starts later than so much after it was due is late
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


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How long calls took, in milliseconds.

    Attributes:
        p50_ms, p95_ms, p99_ms: Quantiles; with few calls the outer ones are about the slowest.
        calls: How many there were.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    calls: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """The quantiles of so many calls.

        Raises:
            InputError: There are none.
        """
        if not len(seconds):
            raise InputError("no call was timed; give it more seconds")
        p50, p95, p99 = np.quantile(seconds, (0.5, 0.95, 0.99)) * 1e3
        return cls(p50_ms=float(p50), p95_ms=float(p95), p99_ms=float(p99), calls=len(seconds))

    def to_json(self) -> dict[str, Any]:
        """Rounded, for a report."""
        return {key: value if key == "calls" else round(value, 4) for key, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Paced:
    """How a contender did with frames that come at a fixed rate.

    Attributes:
        seconds: From when a frame was there to its vector, waiting included; an entry for every frame that ran.
        late: Frames among them that started late, since the one before was still running or the system woke us late.
        dropped: Frames that never ran, since a newer one was there when their turn came.
    """

    seconds: tuple[float, ...]
    late: int
    dropped: int


def paced(
    run: Callable[[], object],
    *,
    rate_hz: float,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Paced:
    """Run once per frame of a camera that gives so many a second; of frames that wait, the newest runs.

    Raises:
        InputError: A rate or a time that cannot be.
    """
    if not 0 < rate_hz < float("inf") or not 0 < seconds < float("inf"):
        raise InputError(f"frames at {rate_hz} a second for {seconds} s cannot be timed; both must be above 0")
    period, frames = 1 / rate_hz, max(round(seconds * rate_hz), 1)
    took: list[float] = []
    late = dropped = frame = 0
    start = clock() + period
    while frame < frames:
        newest = min(int(max(clock() - start, 0.0) * rate_hz + 1e-9), frames - 1)
        if newest > frame:
            dropped += newest - frame
            frame = newest
        due = start + frame * period
        if (early := due - clock()) > 0:
            sleep(early)
        late += clock() - due > LATE_S
        run()
        took.append(clock() - due)
        frame += 1
    return Paced(seconds=tuple(took), late=late, dropped=dropped)


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
    """Run contenders in turn; of the calls of a round the quickest counts, since nothing makes code faster than it is.

    Args:
        runs, rounds, calls, warm_up, budget_s, rng, clock: As in `every_call`.

    Returns:
        Seconds per call of each contender, one entry per round.

    Raises:
        InputError: Nothing to run, or no round.
    """
    found = every_call(runs, rounds=rounds, calls=calls, warm_up=warm_up, budget_s=budget_s, rng=rng, clock=clock)
    return {name: [min(burst) for burst in bursts] for name, bursts in found.items()}


def every_call(
    runs: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 21,
    calls: int = 3,
    warm_up: int = 3,
    budget_s: float = 10.0,
    rng: np.random.Generator | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[list[float]]]:
    """Run contenders in turn, and keep every call: contender -> a list per round -> seconds per call.

    Args:
        runs: Contender -> what to time, once per call.
        rounds: Rounds, at most.
        calls: Calls of a contender per round, one after the other.
        warm_up: Untimed calls of each contender before the first round.
        budget_s: No round begins after so many seconds, warming up included, except the first.
        rng: Draws the order in each round; the same one by default.
        clock: Seconds.

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
    times: dict[str, list[list[float]]] = {name: [] for name in runs}
    names = list(runs)
    for done in range(rounds):
        if done and clock() - start > budget_s:
            break
        for index in rng.permutation(len(names)):
            name = names[index]
            times[name].append([_timed(runs[name], clock) for _ in range(calls)])
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
