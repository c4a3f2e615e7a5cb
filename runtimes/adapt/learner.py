"""Embed a stream and learn from it: nothing until the guard sees a shift, the factory's encoder when there is none.

What was learned is laid aside, not undone, when the shift is over: the day after a night is served as if there had
been no night, and the next night starts where the last one ended.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import MANIFEST
from edgessl.errors import InputError, StateError
from edgessl.files import sha256_of
from edgessl.runtimes.adapt.adaptation import Adaptation
from edgessl.runtimes.adapt.config import LEVELS, LearnerConfig, choose_level
from edgessl.runtimes.adapt.seen import Seen, parts
from edgessl.runtimes.adapt.served import Served
from edgessl.runtimes.adapt.serving import Serving
from edgessl.runtimes.adapt.state import State, joined
from edgessl.runtimes.adapt.store import Store
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.heap import steady_heap

__all__ = ["LEVELS", "Learner", "LearnerConfig", "choose_level"]

_FROZEN = "nothing is learned any more and the factory's encoder serves; choose another --state folder to learn again"
_EVENTS = 2_000  # kept; a robot that runs for months must not fill its memory with a log


class Learner:
    """An encoder that adapts; use it in a `with`, or close it. Closing twice is allowed.

    Args:
        encoder: Gives the bundle, the engine, the precision and the settings; it may be closed meanwhile.
        folder: Keeps what was learned.
        level: A name of `LEVELS`, or `auto`.
        seed: Of a new state.
        steps_per_frame: Budget of level `tail`: training steps per observed frame, at most.
        config: Everything else.
        may_step: Asked before each training step of level `tail`; a budget may say no.

    Attributes:
        level: A name of `LEVELS`.
        frames: Frames observed over the whole life of the state: where a stream that was cut off goes on.
        versions: Number of the version that gave each vector of the last `observe`, `(batch,)`.
        events: What happened since the learner was opened, oldest first; each has `kind`, `frame`, and numbers.

    Raises:
        StateError: The state belongs to another bundle, or another process is using it.
        BundleError: The bundle lacks what the level needs.
    """

    def __init__(
        self,
        encoder: Encoder,
        folder: Path,
        *,
        level: str = "auto",
        seed: int = 0,
        steps_per_frame: float | None = None,
        config: LearnerConfig | None = None,
        may_step: Callable[[], bool] = lambda: True,
    ) -> None:
        config = config or LearnerConfig()
        if steps_per_frame is not None:
            if not 0 <= steps_per_frame <= 4:
                raise InputError(f"steps_per_frame must lie in 0..4, not {steps_per_frame}")
            config = replace(config, tail=replace(config.tail, steps_per_frame=steps_per_frame))
        steady_heap()
        bundle = encoder.bundle
        self.level = choose_level(level, encoder)
        self.input, self.dim, self.space_id = bundle.input, bundle.dim, bundle.space_id
        self.frames = 0
        self.events: list[dict[str, Any]] = []
        self.versions = np.zeros(0, np.int64)
        self._config = config
        self._unsaved = 0  # frames observed since the last snapshot
        self._rolled = 0  # the snapshot that a rollback wrote
        self._halfway = False  # learning was left in the middle: what is in memory must not reach the disk
        self._blank = False  # the last observed frames showed nothing
        self._closed = False
        with ExitStack() as undo:
            self._learned = Adaptation(
                encoder, level=self.level, seed=seed, config=config, say=self._say, may_step=may_step
            )
            undo.callback(self._learned.close)
            own = Encoder(bundle, engine=encoder.engine, precision=encoder.precision, settings=encoder.settings)
            self._encoder = undo.enter_context(own)  # the caller may close the other
            self._serving = undo.enter_context(Serving(self._encoder))
            self._store = Store(
                folder,
                bundle=sha256_of(bundle.path / MANIFEST),
                space_id=bundle.space_id,
                name=bundle.path.resolve().name,
            )
            undo.callback(self._store.close)
            self._load()
            undo.pop_all()

    def observe(self, frames: NDArray[Any]) -> NDArray[np.float32]:
        """Embed frames in the order they came, and learn from them.

        Args:
            frames: `(batch, *sample)`, any batch size.

        Returns:
            Unit vectors `(batch, dim)`; a frame that holds NaN or infinity gets a row of NaN.

        Raises:
            InputError: Wrong dtype or shape, or the learner is closed.
            EngineError: The engine failed to embed; learning never raises.
        """
        if self._closed:
            raise InputError("this learner is closed; open it again with encoder.learner(...)")
        batch = self.input.check(frames)
        vectors = np.full((len(batch), self.dim), np.nan, np.float32)
        self.versions = versions = np.zeros(len(batch), np.int64)
        for part in parts(self.frames, len(batch), self._config.drift.block):
            count = part.stop - part.start
            finite = self.input.finite(batch[part])
            watched = self._learned.attention.chosen(self.frames, count)
            self.frames += count
            self._unsaved += count
            self._quarantine(count - int(finite.sum()))
            rest = finite.copy()
            for look in (watched, ~watched):  # where those show something new, the others are looked at as well
                rows = rest & look
                if rows.any() and (look is watched or self._learned.attention.left):
                    rows[rows] = self._shows(batch[part][rows])
                    rest &= ~rows
                    if rows.any():
                        vectors[part][rows], versions[part][rows] = self._observe(batch[part][rows])
            if rest.any():
                vectors[part][rest], versions[part][rest] = self._serve(batch[part][rest])
            if self.frames // self._config.watch_every > (self.frames - count) // self._config.watch_every:
                self._say("watch", level=self.level, **self._learned.watch())
        return vectors

    def snapshot(self) -> int:
        """Write what was learned now; returns the number of the snapshot.

        Nothing is written, and the newest snapshot's number returned, when learning failed or was interrupted halfway:
        the next learner goes on from that snapshot.
        """
        if self._halfway:
            newest = self._store.next_number - 1
            self._say("snapshot_skipped", number=newest, error="learning stopped halfway; open the state again")
            return newest
        own = State(values={"frames": self.frames, "level": self.level, "rolled": self._rolled})
        number = self._store.save(joined({"learner": own, "learned": self._learned.state()}))
        self._unsaved = 0
        self._say("snapshot", number=number, votes=self._learned.votes)
        return number

    @property
    def served(self) -> Served:
        """The version that serves now; another object as soon as anything in it is another."""
        return self._learned.served

    def info(self) -> dict[str, Any]:
        """Counters and the guard's present view."""
        return {"level": self.level, "frames": self.frames, **self._learned.info()}

    def close(self, *, save: bool = True) -> None:
        """Write a snapshot of what is not on disk yet, and give the memory back; `save=False` writes nothing.

        A snapshot that cannot be written is an event, `snapshot_failed`; the newest one on disk stays.
        """
        if self._closed:
            return
        self._closed = True
        with ExitStack() as last:
            last.callback(self._store.close)
            last.callback(self._learned.close)
            last.callback(self._encoder.close)
            last.callback(self._serving.close)
            if save and self._unsaved:
                self._snapshot_or_say()

    def __enter__(self) -> Learner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self, frames: NDArray[Any]) -> tuple[NDArray[np.float32], int]:
        """Embed with the version that serves, and look no further; vectors, and its number."""
        served = self._learned.served
        if served.number != self._serving.info()["number"]:
            self._serving.use(served)
        return self._serving.embed(frames), served.number

    def _observe(self, frames: NDArray[Any]) -> tuple[NDArray[np.float32], int]:
        """Embed one part, then learn from it if there is a shift; vectors, and the number of the version."""
        learned = self._learned
        then = learned.served
        first = learned.first(frames)
        statistic = first.statistic()
        sound = np.isfinite(np.concatenate([statistic, *first.squares], axis=1)).all(1)
        whitened, novel = learned.drift.whitened(statistic), np.zeros(len(frames), dtype=bool)
        novel[sound] = learned.judge(whitened[sound])
        observed = learned.present(frames, first, then)
        number, (raw, served) = learned.served.number, learned.embed(observed.latents)
        sound = np.logical_and(sound, np.isfinite(raw).all(1))
        self._quarantine(len(frames) - int(sound.sum()))
        if learned.teaches and sound.any():
            seen = Seen(frames=frames, observed=observed, raw=raw, served=served, whitened=whitened, novel=novel)
            self._learn(seen.rows(sound))
            if learned.young and learned.served.number != number:  # what it taught serves the part itself
                again = learned.embed(learned.present(frames, first, then).latents)[1]
                if np.isfinite(again).all():
                    return again, learned.served.number
        return served, number

    def _learn(self, seen: Seen) -> None:
        before, halfway, self._halfway = self._learned.votes, self._halfway, True
        try:
            reason = self._learned.learn(seen)
            if reason:
                self._roll_back(reason, halfway=halfway)
                return
            self._halfway = halfway
            if self._learned.votes // self._config.snapshot_every > before // self._config.snapshot_every:
                self._snapshot_or_say()
        except Exception as error:  # noqa: BLE001 (a robot must not lose its vectors because learning failed)
            # Only here: nothing is written from now on, so a restart goes on from the newest snapshot and may learn.
            self._learned.guard.frozen = True
            self._say("failed", error=f"{type(error).__name__}: {error}", todo="open the state again to learn again")

    def _quarantine(self, frames: int) -> None:
        if frames:
            self._learned.guard.quarantined += frames
            self._say("quarantined", frames=frames, total=self._learned.guard.quarantined)

    def _shows(self, frames: NDArray[Any]) -> NDArray[np.bool_]:
        """Which frames `(batch, *sample)` show something: the others have a vector, and nothing to teach."""
        blank, before = self.input.blank(frames), self._blank
        self._blank = bool(blank.any())
        if self._blank and not before:
            self._say("blank", frames=int(blank.sum()))
        return ~blank

    def _snapshot_or_say(self) -> bool:
        try:
            self.snapshot()
        except Exception as error:  # noqa: BLE001 (a full disk must not stop the robot, nor cost it its vectors)
            self._say("snapshot_failed", error=f"{self._store.folder}: {type(error).__name__}: {error}")
            return False
        return True

    def _roll_back(self, reason: str, *, halfway: bool) -> None:
        """To the newest whole snapshot; to the factory when there is none, or when it was gone back to already."""
        loaded = self._store.load()
        target = 0 if loaded.number == self._rolled else loaded.number
        self._learned.forget()
        if loaded.state is not None and target:
            self._learned.restore_learned(loaded.state.part("learned"))
        guard = self._learned.guard
        guard.rolled_back()
        self._say("rollback", reason=reason, snapshot=target, rollbacks=guard.rollbacks)
        if guard.frozen:
            self._say("frozen", rollbacks=guard.rollbacks, todo=_FROZEN)
        self._halfway = halfway
        before, self._rolled = self._rolled, self._store.next_number  # the snapshot holds its own number
        if not self._snapshot_or_say():
            self._rolled = before

    def _load(self) -> None:
        loaded = self._store.load()
        if loaded.state is not None:
            try:
                own = loaded.state.part("learner").values
                self.frames, self._rolled = int(own["frames"]), int(own["rolled"])
                self._learned.restore(loaded.state.part("learned"))
            except (KeyError, ValueError, TypeError, IndexError) as error:
                raise StateError(
                    f"{self._store.folder} does not fit this edgessl: {error!r}; choose another state folder"
                ) from error
        for file, why in loaded.damaged.items():
            self._say("damaged", file=file, reason=why)
        learned = self._learned
        if learned.guard.frozen:
            self._say("frozen", rollbacks=learned.guard.rollbacks, todo=_FROZEN)
        self._say("open", level=self.level, snapshot=loaded.number, votes=learned.votes, shifted=learned.active)

    def _say(self, kind: str, **numbers: object) -> None:
        self.events.append({"kind": kind, "frame": self.frames, **numbers})
        if len(self.events) > _EVENTS:  # what was decided outlives how things stood
            oldest = next((place for place, event in enumerate(self.events) if event["kind"] == "watch"), 0)
            del self.events[oldest]
