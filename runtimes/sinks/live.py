"""A stream without an end -> a sink, frame by frame, until it is told to stop."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.sinks.base import Sink
from edgessl.runtimes.vectors import Embed
from edgessl.sources.livebase import Live

_WAIT_S = 0.2  # for a frame, before it is looked whether to stop


def embed_live(
    live: Live,
    embed: Embed,
    sink: Sink,
    *,
    stopped: Callable[[], bool],
    seconds: float | None = None,
    count: int | None = None,
    session: int = 0,
    versions: Callable[[], NDArray[np.int64]] | None = None,
    clock_s: Callable[[], float] = time.monotonic,
) -> float:
    """Embed frames as they come, and give each to the sink with its age when its vector was there, `age_ms`.

    Args:
        live: Gives frames.
        embed: `(1, *sample)` -> `(1, dim)`; see `edgessl.runtimes.vectors.vectors_of`.
        sink: Takes them.
        stopped: Asked between frames, and while none comes.
        seconds: End after so long.
        count: End after so many frames.
        session: How often the sink was gone on with. The numbers of a stream start again then, so its names get `@SESSION`.
        versions: Of the vectors that `embed` gave last; without it they are not told.
        clock_s: Never going back.

    Returns:
        Age of the oldest frame in milliseconds.

    Raises:
        EngineError: The stream or the engine failed.
        InputError: The sink is full.
    """
    begun, given, oldest_ms = clock_s(), 0, 0.0
    while not (stopped() or live.ended) and given != count and (seconds is None or clock_s() - begun < seconds):
        frame = live.read(_WAIT_S)
        if frame is None:
            continue
        taken = clock_s() - frame.age_s
        vectors = embed(frame.frame[None])
        age_ms = round(1000 * (clock_s() - taken), 3)
        name = f"{frame.name}@{session}" if session else frame.name
        facts = {"age_ms": [age_ms], "done": session} | ({"version": versions().tolist()} if versions else {})
        sink.write([name], np.asarray([frame.stamp_s], np.float64), vectors, facts)
        given, oldest_ms = given + 1, max(oldest_ms, age_ms)
    return oldest_ms
