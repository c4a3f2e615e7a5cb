"""Frames for a node that has no messages to wait for: from a camera, or from what any command takes as data."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgessl.runtimes.robot.rounds import POLL_S
from edgessl.runtimes.robot.seams import Frame
from edgessl.signals import InputSpec
from edgessl.sources import Source, is_live, open_live, open_source
from edgessl.sources.livebase import Live

Named = tuple[str, float | None, Frame]  # name, seconds since 1970 (of a video: since its start), pixels

_LOG = logging.getLogger("edgessl.node")


@contextmanager
def feed(data: str, spec: InputSpec, max_age_s: float) -> Iterator[Iterator[Named | None]]:
    """Open a source; frames of `camera:0`, `-` or any other, and `None` whenever a live one has had none for a moment.

    Args:
        data: What the user named.
        spec: Of the encoder; images are resized to it.
        max_age_s: Older frames of a camera are not given; 0 for the camera's own limit.

    Raises:
        InputError: There is no such source.
    """
    if not is_live(data):
        yield _offline(open_source(data, spec=spec, labelled=False))
        return
    with open_live(data, spec=spec, max_age_s=max_age_s or None, tell=_log) as live:
        yield _frames(live)


def _frames(live: Live) -> Iterator[Named | None]:
    while not live.ended:
        given = live.read(POLL_S)
        yield None if given is None else (given.name, given.stamp_s, given.frame)


def _offline(source: Source) -> Iterator[Named | None]:
    stamps = getattr(source, "stamps", None)
    for place in range(len(source)):
        indices, frames = source.read([place])
        for index, frame in zip(indices, frames, strict=True):
            yield source.names[index], None if stamps is None else float(stamps[index]), frame


def _log(facts: dict[str, Any]) -> None:
    _LOG.warning("source", extra={"facts": facts})
