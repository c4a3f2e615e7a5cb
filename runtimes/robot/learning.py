"""Adaptation behind a node: it may be missing, held back or broken, and the robot has its vectors all the same.

A state folder that cannot be had (another process holds it, the disk is read-only, another bundle wrote it) does not end
the node: the factory's encoder serves, this says so, and tries again after 10 seconds, then after 20, up to every 10
minutes. So a node that systemd starts while the last one is still writing gets its state when that one is done.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import EdgeSSLError
from edgessl.runtimes.adapt.budget import Budget
from edgessl.runtimes.adapt.drift import DriftConfig
from edgessl.runtimes.worker import HangError

HELD = "the board is hot or short of memory"

_LOG = logging.getLogger("edgessl.node")
_DRIFT = DriftConfig()  # what a learner watches by, unless it is told otherwise
_RETRY_S = (10.0, 600.0)  # the first pause between two tries, and the longest; ours
_FAILURES = 3  # in a row, and the adapting encoder is opened again


class Live(Protocol):
    """What is needed of an encoder that adapts; `Beside` is one."""

    @property
    def events(self) -> list[dict[str, Any]]: ...  # noqa: D102

    def embed_with_version(self, frames: NDArray[Any]) -> tuple[NDArray[np.float32], int]: ...  # noqa: D102

    def info(self) -> dict[str, Any]: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


class Learning:
    """An adapting encoder that may come and go. Closing twice is allowed.

    Args:
        open_live: Opens it, under the budget.
        level: What it is asked for; for the status.
        clock: Seconds, never going back.

    Attributes:
        budget: Held back under pressure.
        level: As given.
    """

    def __init__(
        self,
        open_live: Callable[[Budget], Live],
        *,
        level: str = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = Budget()
        self.level = level
        self._open_live, self._clock = open_live, clock
        self._lock = Lock()  # of what opens and closes it; `embed` takes none
        self._live: Live | None = None
        self._why = ""  # there is none
        self._retry_s, self._due = _RETRY_S[0], -math.inf
        self._failed = 0
        self._said: dict[str, Any] | None = None  # the last event that was logged
        self._closed = False
        self._open()

    @property
    def drift(self) -> float:
        """The guard's score in alarms: above 1 a shift is seen; NaN while nobody watches, and before the first block."""
        live = self._live  # once: `look` may take it away in another thread
        learner = live.info()["learner"] if live else {}
        if learner.get("frames", 0) < _DRIFT.block or not learner["threshold"]:
            return math.nan
        return float(learner["score"]) / (_DRIFT.alarm * float(learner["threshold"]))

    @property
    def learned(self) -> int:
        """Frames that were learned from since it was opened."""
        live = self._live
        return int(live.info()["learned"]) if live else 0

    @property
    def state(self) -> str:
        """`learning`, `paused: ...`, `behind`, `hung: ...`, `dead: ...`, `off: ...`."""
        live = self._live
        if live is None or self._failed >= _FAILURES:
            return f"off: {self._why}"
        return str(live.info()["state"])

    @property
    def trouble(self) -> str:
        """What is wrong; empty when nothing is. A pause is none."""
        state = self.state
        return f"learning {state}" if state.startswith(("off", "dead", "hung")) else ""

    def embed(self, batch: NDArray[Any]) -> tuple[NDArray[np.float32] | None, int]:
        """Vectors of a batch and their version; `None` where the factory's encoder has to do it."""
        live = self._live
        if live is None or self._failed >= _FAILURES:
            return None, 0
        try:
            vectors, version = live.embed_with_version(batch)
            sound, why = bool(np.isfinite(vectors).all()), "it gave vectors that are not finite"
        except Exception as error:  # noqa: BLE001 (whatever it was, the factory's encoder can do it)
            # Of what is not ours the type belongs to what it says.
            sound, why = False, str(error) if isinstance(error, EdgeSSLError) else repr(error)
            self._failed += _FAILURES * isinstance(error, HangError)  # the next frame would wait as long
        if sound:
            self._failed = 0
            return vectors, version
        self._failed += 1
        self._why = why
        _LOG.error("adapting_failed", extra={"facts": {"error": why, "in_a_row": self._failed}})
        return None, 0

    def look(self, *, held: bool) -> None:
        """Hold back or let go, log what happened, and open again what is broken or missing when it is time to."""
        self.budget.hold(HELD if held else "")
        with self._lock:
            self._log_events()
            if self._live is not None and self._failed >= _FAILURES:
                live, self._live = self._live, None
                live.close()
                self._later()
            if self._live is None and self._clock() >= self._due and not self._closed:
                try:
                    self._open()
                except Exception as error:  # not ours: whoever asked to look says it with its traceback
                    self._why = repr(error)
                    self._later()
                    raise

    def close(self) -> None:
        """Write what was learned, and give the memory back."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._live is not None:
                self._live.close()
                self._log_events()

    def _open(self) -> None:
        try:
            self._live = self._open_live(self.budget)
        except (EdgeSSLError, OSError) as error:
            if str(error) != self._why:
                _LOG.error("learning_off", extra={"facts": {"error": str(error), "serves": "the factory's encoder"}})
            self._why = str(error)
            self._later()
            return
        self._failed, self._said = 0, None
        self._retry_s = _RETRY_S[0]
        _LOG.info("learning_on", extra={"facts": {"level": self.level, "after": self._why or "start"}})
        self._why = ""

    def _later(self) -> None:
        self._due = self._clock() + self._retry_s
        self._retry_s = min(2 * self._retry_s, _RETRY_S[1])

    def _log_events(self) -> None:
        """The events since the last time; a guard's decision is never only a number in a status."""
        events = self._live.events if self._live else []
        fresh = len(events)
        for place in range(len(events) - 1, -1, -1):
            if events[place] is self._said:
                fresh = len(events) - 1 - place
                break
        for event in events[len(events) - fresh :]:
            loud = event["kind"] in _LOUD
            _LOG.log(logging.ERROR if loud else logging.INFO, "learner", extra={"facts": dict(event)})
        self._said = events[-1] if events else self._said


_LOUD = ("dead", "hung", "failed", "frozen", "rollback", "snapshot_failed", "close_failed", "abandoned", "damaged")
