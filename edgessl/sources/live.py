"""A camera as a robot needs it: the newest frame or none, never an old one, and never a wait without an end.

A thread takes frames from the driver as fast as it gives them and keeps one. Whoever embeds asks for it when it is free
to; what came in between is dropped and counted. A thread that hangs in a driver cannot be stopped, in no language: it is a
daemon, so `close` and the end of the process do not wait for it, and when it comes back it gives the device back and
ends.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Condition, Thread
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import EdgeSSLError, EngineError, InputError
from edgessl.signals import InputSpec
from edgessl.sources.images import resized
from edgessl.sources.livebase import Grabber, LiveFrame, Tell, quiet

#: A frame and a half of a 30 Hz camera: one frame that was missed does not make the next one old. A slower camera loses
#: nothing, for whoever waits for a frame is woken when it comes.
MAX_AGE_S = 0.05
#: Without a good frame for so long, though the driver answers, the device is opened again.
SILENT_S = 2.0
#: A call of the driver that takes longer is said to hang.
HUNG_S = 5.0
_CLOSE_S = 1.0  # how long `close` waits for the driver
_OPEN_S = 10.0  # how long the first opening may take
_READ_S = 1.0  # how often an iteration looks whether it was closed
_DAMAGED_S = 0.01  # pause after a damaged frame, for a driver that fails at once would be asked without end
_LOOK_S = 0.25  # how often a wait looks whether the driver hangs


@dataclass
class _Taken:
    number: int
    frame: NDArray[np.uint8]
    captured_s: float
    stamp_s: float


class LiveSource:
    """The newest frame of a camera; use it in a `with`, or close it. Closing twice is allowed.

    Ages are of the monotonic clock, stamps of the wall clock: when the wall clock jumps, stamps jump with it and ages do
    not. A frame that is no `uint8 (height, width, 3)`, or of another size than the first one since the device was opened,
    is counted as damaged. A camera that is gone is opened again, with growing pauses.

    Args:
        name: What the user typed.
        opened: Opens the camera; called again after each loss, always from the same thread.
        spec: Of images; frames are resized to it.
        max_age_s: A frame that was taken longer ago is not given but counted as stale, and the next one is waited for.
        tell: Called from either thread with events: `disconnected`, `reconnected`, `hung`,
            `answered`, `stale`, `abandoned`.
        pause_s: First and longest pause before the camera is opened again.
        silent_s: See `SILENT_S`.
        hung_s: See `HUNG_S`.
        close_s: How long `close` waits for the driver.
        clock: Seconds, never going back.
        wall: Seconds since 1970.
        rng: Spreads the pauses, so that many robots do not come back at once.

    Raises:
        InputError: The camera cannot be opened, or did not answer in time; or the spec is of no image.
    """

    def __init__(
        self,
        name: str,
        opened: Callable[[], Grabber],
        *,
        spec: InputSpec,
        max_age_s: float = MAX_AGE_S,
        tell: Tell | None = None,
        pause_s: tuple[float, float] = (0.5, 30.0),
        silent_s: float = SILENT_S,
        hung_s: float = HUNG_S,
        close_s: float = _CLOSE_S,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        if spec.kind != "image":
            raise InputError(f"{name} gives images and this encoder takes {spec.kind}; record the sensor to a file")
        if not max_age_s > 0:
            raise InputError(f"max_age_s={max_age_s} must be more than 0; type 0.05")
        self.name, self.spec = name, spec
        self._opened, self._max_age_s, self._tell = opened, max_age_s, tell or quiet
        self._pause_s, self._silent_s, self._hung_s, self._close_s = pause_s, silent_s, hung_s, close_s
        self._clock, self._wall, self._rng = clock, wall, rng or random.Random()
        self._change = Condition()
        self._newest: _Taken | None = None
        self._number = 0
        self._counts = dict.fromkeys(("given", "dropped", "stale", "damaged", "reconnects"), 0)
        self._given_s: float | None = clock()
        self._calling: float | None = None  # since when the driver has been called
        self._ready = self._hung = self._closed = False
        self._failed: BaseException | None = None
        self._thread = Thread(target=self._work, name=f"edgessl-{name}", daemon=True)
        self._thread.start()
        self._await_opening()

    @property
    def ended(self) -> bool:
        """Whether it was closed; a camera has no other end."""
        return self._closed

    def read(self, timeout_s: float) -> LiveFrame | None:
        """The newest frame, which nobody had yet and which is young enough; None when there was none in time.

        Raises:
            EngineError: The thread that reads the camera died; says of what.
        """
        until = time.monotonic() + timeout_s  # of the real clock: nobody may wait longer because a clock is simulated
        while True:
            taken = self._take(until)
            if taken is None:
                return None
            frame = resized(taken.frame, (self.spec.shape[0], self.spec.shape[1]))
            age_s = self._clock() - taken.captured_s
            with self._change:
                if age_s <= self._max_age_s:
                    self._counts["given"] += 1
                    self._given_s = self._clock()
                    return LiveFrame(f"{self.name}#{taken.number:06d}", taken.stamp_s, age_s, frame)
                self._counts["stale"] += 1
                late = self._given_s is not None and self._clock() - self._given_s > self._silent_s
                self._given_s = None if late else self._given_s
            if late:  # once, until one is young enough again
                self._tell({"event": "stale", "source": self.name, "age_s": age_s, "max_age_s": self._max_age_s})
            if time.monotonic() >= until:
                return None

    def __iter__(self) -> Iterator[LiveFrame]:
        while not self._closed:
            frame = self.read(_READ_S)
            if frame is not None:
                yield frame

    def counts(self) -> dict[str, int]:
        """Frames `given`, `dropped` for a newer one, `stale` and `damaged`, and `reconnects`."""
        with self._change:
            return dict(self._counts)

    def close(self) -> None:
        """Stop, and give the camera back, unless its driver hangs: then that happens when it answers."""
        with self._change:
            if self._closed:
                return
            self._closed, self._newest = True, None
            self._change.notify_all()
        self._thread.join(self._close_s)
        if self._thread.is_alive():
            self._tell({"event": "abandoned", "source": self.name, "waited_s": self._close_s})

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _await_opening(self) -> None:
        with self._change:
            self._change.wait_for(lambda: self._ready or self._failed, _OPEN_S)
            ready, failed = self._ready, self._failed
        if isinstance(failed, EdgeSSLError):
            raise failed
        if failed is not None:
            raise InputError(f"{self.name} cannot be opened: {failed}; plug it in again, or name another") from failed
        if not ready:
            self.close()
            raise InputError(f"{self.name} did not open within {_OPEN_S:g} s; unplug it and plug it in again")

    def _take(self, until: float) -> _Taken | None:
        """Wait for a frame until then."""
        while True:
            with self._change:
                if self._newest is None and not self._closed and self._failed is None:
                    self._change.wait(min(_LOOK_S, max(0.0, until - time.monotonic())))
                if self._failed is not None:
                    raise EngineError(f"the thread that reads {self.name} died: {self._failed!r}") from self._failed
                taken, self._newest = self._newest, None
                since = self._calling
                hangs = since is not None and not self._hung and self._clock() - since > self._hung_s
                self._hung |= hangs
            if hangs:
                self._tell({"event": "hung", "source": self.name, "for_s": self._hung_s})
            if taken is not None or self._closed or time.monotonic() >= until:
                return taken

    def _work(self) -> None:
        """Keep the camera open and the newest frame at hand."""
        tries = 0
        try:
            while not self._closed:
                before = self._number
                try:
                    self._serve(tries)
                except Exception as error:  # a driver raises what it likes
                    if not self._ready:
                        raise
                    tries = tries if self._number == before else 0  # it gave frames: this is a new loss
                    self._pause(tries, error)
                    tries += 1
        except BaseException as error:  # noqa: BLE001 (the end of the thread: whoever reads is told)
            with self._change:
                self._failed = error
                self._change.notify_all()

    def _serve(self, tries: int) -> None:
        """Open the camera and take its frames until it is closed.

        Raises:
            Exception: It is gone, or gives nothing good.
        """
        grabber = self._called(self._opened)
        try:
            self._say_open(tries)
            self._take_frames(grabber)
        finally:
            self._called(grabber.close)

    def _take_frames(self, grabber: Grabber) -> None:
        size: tuple[int, ...] | None = None
        good_s = self._clock()
        while not self._closed:
            frame = self._called(grabber.grab)
            now = self._clock()
            if _whole(frame) and (size is None or frame.shape == size):
                size, good_s = frame.shape, now
                self._put(frame, now if grabber.captured_s is None else grabber.captured_s, now)
                continue
            with self._change:
                self._counts["damaged"] += 1
                self._change.wait_for(lambda: self._closed, _DAMAGED_S)
            if now - good_s > self._silent_s:
                raise EngineError(f"{self.name} gave no good frame for {now - good_s:.1f} s")

    def _put(self, frame: NDArray[np.uint8], captured_s: float, now: float) -> None:
        with self._change:
            if self._newest is not None:
                self._counts["dropped"] += 1
            self._newest = _Taken(self._number, frame, captured_s, self._wall() - (now - captured_s))
            self._number += 1
            self._change.notify_all()

    def _called(self, driver: Callable[[], Any]) -> Any:
        """Call the driver, and know since when."""
        self._calling = began = self._clock()
        try:
            return driver()
        finally:
            self._calling = None
            if self._hung:
                self._hung = False
                self._tell({"event": "answered", "source": self.name, "after_s": self._clock() - began})

    def _say_open(self, tries: int) -> None:
        with self._change:
            again, self._ready = self._ready, True
            self._counts["reconnects"] += again
            self._change.notify_all()
        if again:
            self._tell({"event": "reconnected", "source": self.name, "tries": tries})

    def _pause(self, tries: int, error: Exception) -> None:
        """Say that the camera is gone, and wait before the next try."""
        seconds = pause_s(tries, *self._pause_s, self._rng)
        said = f"{type(error).__name__}: {error}"
        self._tell({"event": "disconnected", "source": self.name, "error": said, "retry_s": round(seconds, 3)})
        with self._change:
            self._change.wait_for(lambda: self._closed, seconds)


def pause_s(tries: int, first: float, longest: float, rng: random.Random) -> float:
    """How long to wait before the next try: twice as long each time, up to `longest`, and up to a half less by chance."""
    return float(min(longest, first * 2.0 ** min(tries, 60)) * (1 - 0.5 * rng.random()))


def _whole(frame: Any) -> bool:
    """Whether it is `uint8 (height, width, 3)` with something in it."""
    return (
        isinstance(frame, np.ndarray)
        and frame.dtype == np.uint8
        and frame.ndim == 3
        and frame.shape[2] == 3
        and frame.size > 0
    )
