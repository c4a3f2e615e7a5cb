"""Frames for a node that has no messages to wait for: from a camera, or from what any command takes as data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from threading import Condition, Thread
from typing import Any, Protocol

from edgessl.runtimes.robot.rounds import POLL_S
from edgessl.runtimes.robot.service import Frame
from edgessl.signals import InputSpec

_LOG = logging.getLogger("edgessl.node")

Named = tuple[str, float | None, Frame]  # name, seconds since 1970, pixels


class LiveFrame(Protocol):
    """What is needed of a frame of a live source."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def stamp_s(self) -> float: ...  # noqa: D102

    @property
    def frame(self) -> Frame: ...  # noqa: D102


def feed(data: str, spec: InputSpec, max_age_s: float) -> Iterator[Named | None]:
    """Frames of `camera:0`, `-` or any source; `None` whenever a live one has had none for a moment.

    Raises:
        InputError: There is no such source.
    """
    from edgessl.sources import is_live, open_live, open_source

    if is_live(data):
        # Of standard input every frame is wanted: who writes it waits, as behind any pipe.
        keep = data == "-"
        yield from polled(lambda: open_live(data, spec=spec, max_age_s=max_age_s or None, tell=_log), keep=keep)
        return
    source = open_source(data, spec=spec, labelled=False)
    for batch in source.batches(1):
        yield batch.names[0], None, batch.frames[0]


def polled(
    open_frames: Callable[[], AbstractContextManager[Iterable[LiveFrame]]], *, keep: bool, poll_s: float = POLL_S
) -> Iterator[Named | None]:
    """Frames as they come, read in a thread, and `None` after every `poll_s` without one.

    Args:
        open_frames: Opens what gives them.
        keep: Every frame counts, so the reader waits; otherwise a newer one takes the place of one that nobody took.
        poll_s: Longest silence.
    """
    slot: list[Named] = []
    ended: list[BaseException | None] = []
    changed = Condition()

    def read() -> None:
        error: BaseException | None = None
        try:
            for given in live:
                with changed:
                    changed.wait_for(lambda: not (keep and slot))
                    slot[:] = [(given.name, given.stamp_s, given.frame)]
                    changed.notify_all()
        except BaseException as raised:  # noqa: BLE001 (the node's thread raises it)
            error = raised
        with changed:
            ended.append(error)
            changed.notify_all()

    with open_frames() as live:
        Thread(target=read, name="edgessl-frames", daemon=True).start()
        while True:
            with changed:
                changed.wait_for(lambda: slot or ended, poll_s)
                given = slot.pop() if slot else None
                over = bool(ended) and given is None
                changed.notify_all()
            if over:
                break
            yield given
    if ended[0] is not None:
        raise ended[0]


def _log(facts: dict[str, Any]) -> None:
    _LOG.warning("source", extra={"facts": facts})
