"""Adaptation beside inference: `embed` in the caller's thread, the learner in its own, and no way for it to get in between.

`embed` reads one reference, the version that serves, runs it on sessions that the learner never touches, and leaves some
of its frames in a queue that drops the oldest when it is full. The worker learns from them; when that gave a new version,
it makes it ready aside, tries it on a frame, and changes the reference.

A learner that raised is dead. It is never started again on its own: what broke it is still there, and a robot should
not find that out in a loop. The last good version goes on serving, without a guard that would notice that the shift is
over; `Encoder.embed` is the factory's, and opening the state again goes on from the newest snapshot.
"""

from __future__ import annotations

import atexit
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import EngineError, InputError
from edgessl.runtimes.adapt.budget import Budget
from edgessl.runtimes.adapt.served import Served
from edgessl.runtimes.adapt.serving import Prepared, Serving
from edgessl.runtimes.adapt.waiting import Waiting
from edgessl.runtimes.encoder import CHUNK

Event = dict[str, Any]

WAITING = 32  # frames; 29 MB of 640x480 in colour
_EVENTS = 2_000  # kept, as in a learner


class Pupil(Protocol):
    """What is needed of a learner; `Learner` is one. `close(save=False)` gives everything back and writes nothing."""

    frames: int
    events: list[Event]

    @property
    def served(self) -> Served: ...  # noqa: D102

    def observe(self, frames: NDArray[Any]) -> NDArray[np.float32]: ...  # noqa: D102

    def info(self) -> dict[str, Any]: ...  # noqa: D102

    def close(self, *, save: bool = True) -> None: ...  # noqa: D102


class Beside:
    """An encoder that adapts while it serves; use it in a `with`, or close it. Closing twice is allowed.

    Args:
        learner: Belongs to this object from now on, and nobody else may call it.
        serving: Belongs to this object as well; makes versions ready on sessions that are not the learner's.
        budget: What learning may cost.
        waiting: Frames that wait for the learner, at most.
        hung_s: A call of the learner that takes longer is said to hang; ours.
        close_s: How long `close` waits for the learner; ours.
        clock: Seconds, never going back.

    Raises:
        EngineError: The present version cannot be served. Learner and serving are then still the caller's.
    """

    def __init__(
        self,
        learner: Pupil,
        serving: Serving,
        *,
        budget: Budget | None = None,
        waiting: int = WAITING,
        hung_s: float = 30.0,
        close_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if waiting < 1:
            raise InputError(f"waiting must be 1 frame or more, not {waiting}")
        self._learner, self._serving, self._budget = learner, serving, budget or Budget()
        self._hung_s, self._close_s, self._clock = hung_s, close_s, clock
        self._waiting = Waiting(waiting, self._budget)
        self._lock = Lock()  # held for a few assignments, never while anything runs
        self._events: list[Event] = []
        self._embedded = self._learned = 0
        self._began: float | None = None  # the learner's present call
        self._last: float | None = None  # when it last learned
        self._hung = self._behind = self._closing = self._closed = self._abandoned = False
        self._dead = ""
        self._live = serving.prepare(learner.served)
        self._before: Prepared | None = None  # kept for one change, so that no `embed` has to free its graphs
        self._newest = self._refused = self._live.number
        self._sample: NDArray[Any] | None = None  # (1, *sample), what a new version is tried on
        self._view = learner.info()
        self._gather()
        self._worker = Thread(target=self._work, name="edgessl-learner", daemon=True)
        self._worker.start()
        atexit.register(self.close)  # a thread that is cut off inside an engine may abort the process; OpenVINO's does

    @property
    def version(self) -> int:
        """Number of the version that serves now; 0 is the factory's."""
        return self._live.number

    @property
    def events(self) -> list[Event]:
        """What happened since this was opened, the learner's events among them, oldest first; a copy."""
        with self._lock:
            return list(self._events)

    def embed(self, frames: NDArray[Any]) -> NDArray[np.float32]:
        """Unit vectors `(batch, dim)` of frames `(batch, *sample)`, all by one version; may be called from any thread.

        Raises:
            InputError: Wrong dtype or shape, or values that are NaN or infinite.
            EngineError: It is closed, or the engine failed.
        """
        return self.embed_with_version(frames)[0]

    def embed_with_version(self, frames: NDArray[Any]) -> tuple[NDArray[np.float32], int]:
        """The same, and the number of the version that made the vectors."""
        if self._closing:
            raise EngineError("this encoder is closed; open it again with encoder.adapting(...)")
        frames, live = np.asarray(frames), self._live
        vectors = live.embed(frames)
        self._waiting.put(frames)
        with self._lock:
            self._embedded += len(frames)
            self._notice()
        return vectors, live.number

    def info(self) -> dict[str, Any]:
        """Health: what serves, how the learner is, and what it costs.

        `version` serves, `newest` is the learner's; `queue`, `dropped`, `embedded` and `learned` are frames; `state` is
        `learning`, `behind`, `paused: ...`, `hung: ...`, `dead: ...` or `stopped`; `last_learned_s` is the age of the last
        learning, `None` before the first; `ms_per_frame` is learning time per embedded frame; `learner` is its own view.
        """
        budget = self._budget.info()
        with self._lock:
            return {
                "version": self.version,
                "newest": self._newest,
                "state": self._state(budget["paused"]),
                "queue": len(self._waiting),
                "dropped": self._waiting.dropped,
                "embedded": self._embedded,
                "learned": self._learned,
                "last_learned_s": None if self._last is None else self._clock() - self._last,
                "ms_per_frame": budget["spent_ms"] / max(self._embedded, 1),
                "budget": budget,
                "learner": dict(self._view),
            }

    def close(self) -> None:
        """Stop learning, write the last snapshot, and give the memory back; frames that still wait are let go.

        The end of the process closes too. A learner that hangs is left behind after `close_s`: event `abandoned`. It
        writes nothing if it ever returns, and holds folder and memory until then, or until the process ends.
        """
        with self._lock:
            if self._closing:
                return
            self._closing = True
        atexit.unregister(self.close)
        self._waiting.close()
        self._worker.join(self._close_s)
        with self._lock:
            if not self._closed:
                self._abandoned = True
                self._say("abandoned", waited_s=self._close_s, todo="its folder is held until this process ends")
                return  # it may hang while it prepares a version: whoever closes the serving would wait for it
        self._serving.close()

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self) -> None:
        try:
            while not self._closing:
                self._round()
        except BaseException as error:  # noqa: BLE001 (the end of the thread: nobody else could say what it died of)
            at = traceback.extract_tb(error.__traceback__)[-1]
            self._waiting.close()
            with self._lock:
                self._dead = f"{type(error).__name__}: {error}"
                self._say("dead", error=self._dead, at=f"{at.filename}:{at.lineno}", serves=self.version)
        try:
            # What a dead or an abandoned one has in memory must not reach the disk.
            self._learner.close(save=not (self._dead or self._abandoned))
        except Exception as error:  # noqa: BLE001 (as above)
            with self._lock:
                self._say("close_failed", error=f"{type(error).__name__}: {error}")
        self._gather()
        with self._lock:
            self._closed = True

    def _round(self) -> None:
        """Look at the sensors, learn from a few frames, and serve what came of it."""
        for change in self._budget.poll():
            with self._lock:
                self._say(**change)
        if self._budget.paused:
            self._waiting.sleep(self._budget.config.poll_s)
            return
        taken = self._waiting.take(CHUNK, timeout_s=self._budget.config.poll_s)
        with self._lock:
            self._notice()
        if taken:
            self._learn(np.stack(taken))

    def _learn(self, frames: NDArray[Any]) -> None:
        with self._timed(len(frames)):
            self._learner.observe(frames)
        self._gather()
        view, served = self._learner.info(), self._learner.served
        with self._lock:
            self._learned += len(frames)
            self._last, self._view, self._newest = self._clock(), view, served.number
        if served.number not in (self.version, self._refused):
            self._change(served, frames[:1])

    def _change(self, served: Served, sample: NDArray[Any]) -> None:
        """Serve a version, if it can embed a frame."""
        before, self._before = self.version, None
        try:
            with self._timed(0):
                version = self._serving.prepare(served)
                if not np.isfinite(version.embed(sample)).all():
                    raise EngineError("it gives vectors that are not finite")
        except Exception as error:  # noqa: BLE001 (what serves goes on, and the next version may be sound)
            self._refused = served.number
            with self._lock:
                self._say("not_served", version=served.number, serves=before, error=f"{type(error).__name__}: {error}")
            return
        with self._lock:
            self._live, self._before = version, self._live
            self._say("serves", version=served.number, before=before)

    @contextmanager
    def _timed(self, frames: int) -> Iterator[None]:
        """Know since when the learner has been busy, and charge its budget."""
        self._began = began = self._clock()
        try:
            yield
        finally:
            took_s = self._clock() - began
            self._budget.settle(frames, 1000 * took_s)
            with self._lock:
                self._began = None
                if self._hung:
                    self._hung = False
                    self._say("answered", after_s=took_s)

    def _notice(self) -> None:
        """Say when the learner falls behind, has caught up, or hangs; with the lock held."""
        if self._behind != self._waiting.behind:
            self._behind = self._waiting.behind
            self._say("behind" if self._behind else "caught_up", dropped=self._waiting.dropped)
        if not self._hung and self._busy_s() > self._hung_s:
            self._hung = True
            self._say("hung", for_s=self._busy_s())

    def _busy_s(self) -> float:
        """Seconds that the learner's present call has taken; with the lock held, or by the worker."""
        return 0.0 if self._began is None else self._clock() - self._began

    def _gather(self) -> None:
        """Take the learner's events over."""
        fresh = list(self._learner.events)
        self._learner.events.clear()
        with self._lock:
            self._events.extend(fresh)
            del self._events[:-_EVENTS]

    def _state(self, paused: str) -> str:
        if self._dead:
            return f"dead: {self._dead}"
        if self._closing:
            return "stopped"
        if self._busy_s() > self._hung_s:
            return f"hung: {self._busy_s():.0f} s in one call"
        if paused:
            return f"paused: {paused}"
        return "behind" if self._behind else "learning"

    def _say(self, kind: str, **numbers: object) -> None:
        """With the lock held."""
        self._events.append({"kind": kind, "frame": self._learner.frames, **numbers})
        del self._events[:-_EVENTS]
