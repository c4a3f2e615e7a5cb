"""One encoder behind every node: a frame in, an answer out, and no frame that can end the node."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import EdgeSSLError, EngineError, InputError
from edgessl.runtimes.robot.answer import OUTCOMES, Answer
from edgessl.runtimes.robot.learning import Learning
from edgessl.runtimes.robot.seams import Embeds, Frame, Observer, Presses, Status
from edgessl.signals import InputSpec

SHED = ("nothing", "adaptation", "rate")  #: what is left out, from the first to the last

_LOG = logging.getLogger("edgessl.node")
_AHEAD_S = 1.0  # a stamp so far in the future is no jitter between two clocks; ours


class Service:
    """Answers frames; use it in a `with`, or close it. Closing twice is allowed. Not for several threads at once.

    Args:
        encoder: Belongs to this object from now on.
        learning: Embeds and learns beside; `None` for the factory's encoder alone. Belongs to this object as well.
        pressure: Asked by `look`; `None` where nothing is shed.
        temperature: Degrees Celsius of the hottest zone, asked by `look` as well; `None` where the board does not say.
        rate: Frames per second that are embedded, at most; 0 for no limit.
        max_age: Seconds; an older frame is dropped. 0 for no limit.
        observers: Told of everything; one that raises is told no more.
        wall: Seconds since 1970, as stamps have them.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        encoder: Embeds,
        learning: Learning | None = None,
        *,
        pressure: Presses | None = None,
        temperature: Callable[[], float | None] = lambda: None,
        rate: float = 0.0,
        max_age: float = 0.0,
        observers: Sequence[Observer] = (),
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._encoder, self._learning, self._pressure = encoder, learning, pressure
        self._temperature = temperature
        self._temperature_c: float | None = None
        self._interval = 1 / rate if rate else 0.0
        self._max_age, self._wall, self._clock = max_age, wall, clock
        self._observers = list(observers)
        self._counts: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self._before = self._counts.copy()  # at the last status
        self._due = -math.inf
        self._shed = 0
        self._odd = False
        self._last: Answer | None = None
        self._failing = 0  # frames in a row that the engine failed on
        self._clock_said = self._starved = False  # that was said
        self._closed = False

    @property
    def input(self) -> InputSpec:
        """What one frame is."""
        return self._encoder.input

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames that the encoder takes."""
        return self._encoder.input.shape[0], self._encoder.input.shape[1]

    @property
    def alive(self) -> bool:
        """Whether the encoder answers: `False` while it fails on every frame."""
        return self._failing < 3 and self._health() != "failed"

    def embed(self, frame: Frame | Callable[[], Frame], stamp_s: float | None = None) -> Answer:
        """Answer one frame; nothing that is wrong with it raises.

        Args:
            frame: `uint8 (height, width, 3)`, or what gives it, which is not called for a frame that is dropped.
            stamp_s: When it was captured, in seconds since 1970; `None` where that is not known.
        """
        age_s = math.nan if stamp_s is None else self._wall() - stamp_s
        shown: Frame | None = None
        if reason := self._too_old(age_s):
            answer = self._answer("stale", age_s, reason=reason)
        elif not self._wanted():
            answer = self._answer("skipped", age_s, reason="more frames than are wanted")
        else:
            try:
                shown = frame() if callable(frame) else frame
                answer = self._embed(self._encoder.input.check(np.asarray(shown)[None]), stamp_s, age_s)
            except InputError as error:
                answer = self._answer("unusable", age_s, reason=str(error))
            except Exception as error:  # noqa: BLE001 (too little memory for one frame must not end the node)
                self._failing += 1
                known = isinstance(error, EdgeSSLError)
                answer = self._answer(
                    "failed", age_s, reason=str(error) if known else f"{type(error).__name__}: {error}"
                )
        self._counts[answer.outcome] += 1
        if answer.reason and (self._last is None or answer.outcome != self._last.outcome):  # not thirty times a second
            _LOG.log(_level_of(answer), answer.outcome, extra={"facts": {"reason": answer.reason}})
        self._last = answer
        self._tell(lambda observer: observer.frame(shown if answer.vector is not None else None, answer))
        return answer

    def look(self) -> None:
        """Look at the board's sensors, shed what must be shed, and open again what is missing; once a second.

        Not for the thread that embeds, a driver may take its time; the one thing here that another thread may call.
        """
        shed = int(self._pressure.look()) if self._pressure else 0
        if self._pressure and shed != self._shed:
            facts = {"before": SHED[self._shed], "now": SHED[shed], "why": self._pressure.why}
            _LOG.warning("shed", extra={"facts": facts})
        self._shed = shed
        self._temperature_c = self._temperature()
        if self._learning is not None:
            self._learning.look(held=shed >= 1)

    def status(self) -> Status:
        """How things stand; once a second."""
        last, learning = self._last, self._learning
        engine, before, self._before = self._engine(), self._before, self._counts.copy()
        if self._counts["embedded"] > before["embedded"]:
            self._starved = False
        elif self._counts["stale"] > before["stale"] and not self._starved:
            self._starved = True
            _LOG.warning("every frame is stale", extra={"facts": {"max_age_s": self._max_age}})
        told: Status = {
            "health": self._health(),
            "space_id": self._encoder.space_id,
            "version": last.version if last else 0,
            "frames": dict(self._counts),
            "shed": SHED[self._shed],
            "engine": engine,
            "restarts": int(engine.get("restarts", 0)),
            "learning": learning.state if learning else "off",
            "learned": learning.learned if learning else 0,
            "level": learning.level if learning else "none",
        }
        if self._temperature_c is not None:
            told["temperature_c"] = self._temperature_c
        if last is not None:
            told |= {
                name: value for name in ("age_s", "took_s", "drift") if not math.isnan(value := getattr(last, name))
            }
        self._tell(lambda observer: observer.status(told))
        return told

    def close(self) -> None:
        """Write what was learned, and give everything back."""
        if self._closed:
            return
        self._closed = True
        if self._learning is not None:
            self._learning.close()
        self._encoder.close()
        self._tell(lambda observer: observer.close())

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _embed(self, batch: Frame, stamp_s: float | None, age_s: float) -> Answer:
        began = self._clock()
        vectors, version = None, 0
        if self._learning is not None:
            vectors, version = self._learning.embed(batch)
        if vectors is None:
            vectors, version = self._encoder.embed(batch), 0
            if not np.isfinite(vectors).all():
                raise EngineError("the engine gave a vector that is not finite")
        took_s = self._clock() - began
        self._failing = 0
        done_s = age_s if stamp_s is None else self._wall() - stamp_s
        return self._answer("embedded", done_s, vector=vectors[0], version=version, took_s=took_s)

    def _answer(
        self,
        outcome: str,
        age_s: float,
        *,
        vector: NDArray[np.float32] | None = None,
        version: int = 0,
        took_s: float = math.nan,
        reason: str = "",
    ) -> Answer:
        drift = self._learning.drift if self._learning else math.nan
        return Answer(
            outcome=outcome,
            vector=vector,
            version=version,
            space_id=self._encoder.space_id,
            drift=drift,
            health=self._health(),
            age_s=age_s,
            took_s=took_s,
            reason=reason,
        )

    def _too_old(self, age_s: float) -> str:
        """Why a frame is dropped for its age; empty when it is not."""
        if age_s < -_AHEAD_S and not self._clock_said:
            self._clock_said = True
            _LOG.warning(
                "clock", extra={"facts": {"ahead_s": -age_s, "todo": "set the camera's clock and this one alike"}}
            )
        if not self._max_age or math.isnan(age_s) or age_s <= self._max_age:
            return ""
        return f"{age_s:.3f} s old, more than {self._max_age:g}; is the camera's clock this one's?"

    def _wanted(self) -> bool:
        """Whether it is time for another frame; under pressure every second one is left out."""
        now = self._clock()
        if now < self._due:
            return False
        late = now - self._due  # within one interval the beat is kept; after a pause a new one begins
        self._due = (self._due if late < self._interval else now) + self._interval
        self._odd = self._shed >= 2 and not self._odd
        return not self._odd

    def _engine(self) -> dict[str, Any]:
        """What the watchdog says of the engine; of an encoder without one, what runs."""
        health = getattr(self._encoder, "health", None)
        return dict(health()) if health else {"state": "ok", "restarts": 0, **_runs(self._encoder.info())}

    def _health(self) -> str:
        health = getattr(self._encoder, "health", None)
        state = str(health()["state"]) if health else "ok"
        if state == "ok" and self._failing:
            return "engine failed"
        trouble = self._learning.trouble if self._learning and state == "ok" else ""
        return trouble or state

    def _tell(self, say: Callable[[Observer], None]) -> None:
        for observer in list(self._observers):
            try:
                say(observer)
            except Exception as error:  # noqa: BLE001, PERF203 (a full disk under a recording must not cost the robot its vectors)
                self._observers.remove(observer)
                facts = {"observer": type(observer).__name__, "error": f"{type(error).__name__}: {error}"}
                _LOG.error("observer_lost", extra={"facts": facts})


def _runs(info: dict[str, Any]) -> dict[str, Any]:
    return {name: info[name] for name in ("engine", "precision") if name in info}


def _level_of(answer: Answer) -> int:
    """Dropped frames are every day's business; what a camera or an engine does wrong is not."""
    return logging.DEBUG if answer.outcome in ("stale", "skipped") else logging.WARNING
