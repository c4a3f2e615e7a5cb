"""How often a clean world is taken for a shifted one; part of `faults.py`.

Blocks of 32 clean test images pass the drift test: drawn at random with replacement, in the order of their classes, or by
a Dirichlet draw, one pass over the images after the other without a reset. What drift is judged by does not depend on what
was learned, so each image's statistic is worked out once, and its blocks are judged by the same objects as in a learner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from corruptions import Frames
from numpy.typing import NDArray
from streams import class_sorted, dirichlet

from edgessl.runtimes.adapt.config import LearnerConfig
from edgessl.runtimes.adapt.drift import Drift
from edgessl.runtimes.adapt.novelty import Novelty
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.graphs import trunk_beside
from edgessl.runtimes.split import Trunk

Indices = NDArray[np.int64]
BLOCKS = 10_000  # of 32 frames
_AT_ONCE = 500
#: order -> one pass over images with these labels
ORDERS: dict[str, Callable[[Indices, int], Indices]] = {
    "random": lambda labels, seed: np.random.default_rng(seed).integers(0, len(labels), len(labels)),
    "class-sorted": lambda labels, seed: class_sorted(labels, seed=seed),
    "dirichlet 0.1": lambda labels, seed: dirichlet(labels, 0.1, seed=seed),
    "dirichlet 0.01": lambda labels, seed: dirichlet(labels, 0.01, seed=seed),
}


def false_alarms(encoder: Encoder, frames: Frames, labels: Indices, blocks: int, seed: int) -> Iterator[dict[str, Any]]:
    """One row for each order: how many shifts were declared, and the scores of a test that declares none.

    Scores are in units of what declares a shift: an alarm is above 1.
    """
    config = LearnerConfig()
    source = encoder.bundle.tensors("source")
    whitened = Drift(source, config.drift).whitened(statistics(encoder, frames))
    deaf = replace(config.drift, alarm=np.inf, slow_alarm=np.inf)
    for order, pass_of in ORDERS.items():
        drift, silent = Drift(source, config.drift), Drift(source, deaf)
        novelty = Novelty(whitened.shape[1], config.novelty)
        strong, weak, alarms, shifted = [], [], [], 0
        for number, block in enumerate(_blocks(pass_of, labels, drift.config.block, blocks, seed)):
            points = whitened[block]
            novel = novelty.admit(points)
            silent.judge(points, novel)
            strong.append(silent.score / (config.drift.alarm * silent.threshold))
            weak.append(_weak(silent) / (config.drift.slow_alarm * silent.threshold))
            if drift.judge(points, novel):
                alarms += [number] if drift.shifted else []
            elif drift.shifted and drift.present:
                drift.vote(points[novel])
            shifted += drift.shifted
        row = {"order": order, "blocks": blocks, "false_alarms": len(alarms), "shifted_blocks": shifted}
        yield row | {"scores": {"block": _high(strong), "slow": _high(weak)}}


def statistics(encoder: Encoder, frames: Frames) -> NDArray[np.float64]:
    """What drift is judged by, of every frame, `(n, 2 channels)`."""
    precision = trunk_beside(encoder.bundle, encoder.precision, encoder.engine)
    with Trunk(encoder.bundle, engine=encoder.engine, precision=precision, threads=encoder.threads) as trunk:
        parts = (frames[start : start + _AT_ONCE] for start in range(0, len(frames), _AT_ONCE))
        return np.concatenate([trunk.run(part, trunk.identity).statistic() for part in parts])


def _blocks(
    pass_of: Callable[[Indices, int], Indices], labels: Indices, block: int, count: int, seed: int
) -> Iterator[Indices]:
    """So many blocks of indices, of as many passes as it takes."""
    held, passes = np.zeros(0, np.int64), 0
    for _ in range(count):
        while len(held) < block:
            held = np.concatenate([held, pass_of(labels, 1000 * seed + passes)])
            passes += 1
        yield held[:block]
        held = held[block:]


def _weak(drift: Drift) -> float:
    """The score of the last blocks of frames unlike each other."""
    means = drift._blocks
    return float((means.mean(0) ** 2).mean()) if len(means) == drift.config.slow else 0.0


def _high(scores: list[float]) -> dict[str, float]:
    above = sum(score > 1 for score in scores)
    return {"median": float(np.median(scores)), "largest": float(max(scores)), "above 1": above}
