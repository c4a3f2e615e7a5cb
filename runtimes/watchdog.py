"""An encoder that is watched: an engine that fails, hangs or gives wrong vectors is reopened, then replaced.

Each engine runs in a thread of its own, and whoever embeds waits for its answer until a deadline. What does not answer is
given up: the thread is left where it hangs, and another engine is opened beside it. Nothing in a process can stop it. It
keeps its memory, and its core if it is busy, until it comes back by itself (then it closes what it holds) or the process
ends. So at most `MOST_HANGING` are left behind, after which only a new process helps. And what is in the process cannot see
all: a library that crashes, or that hangs and keeps Python's lock, takes this watch with it. Let systemd, or whatever starts
the robot, restart a process that ends or falls silent. The deadline does not run while the machine sleeps, nor with its clock.

Whatever embeds is from the same bundle, so its vectors are of the same space. But int8 and fp32 do not give the same ones,
and `tell` and `health` say which it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import Bundle, open_bundle
from edgessl.errors import EdgeSSLError, EngineError, InputError
from edgessl.metrics import cosines
from edgessl.runtimes.encoder import CHUNK, Encoder, encoder_of, refuse_rows
from edgessl.runtimes.engines import FAKE, EngineSettings
from edgessl.runtimes.engines.choice import automatic
from edgessl.runtimes.graphs import takes_plans
from edgessl.runtimes.verify import BOUNDS
from edgessl.runtimes.worker import HangError, Worker
from edgessl.signals import InputSpec

MOST_HANGING = 4  # threads that are left behind, with their engines
OPENING_S = 120.0  # an engine may compile for so long; also for the golden samples
TRUSTED_AFTER = 1000  # answers in a row: a failure that follows so many is the first again
FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0  # after every engine failed, before they are tried again

_GOLDEN = 8  # samples that an engine must get right before it takes over; few, because somebody waits
_UNIT = 0.02  # by how much a vector's squared length may differ from 1: fp16 leaves some
_LAST = ("onnxruntime", "fp32")  # runs every bundle on every device

Tell = Callable[[dict[str, Any]], None]
OpenOne = Callable[[str, str], Encoder]


def open_watched(
    bundle: Bundle | Path | str,
    *,
    engine: str = "auto",
    precision: str = "auto",
    settings: EngineSettings | None = None,
    timeout_s: float = 10.0,
    tell: Tell | None = None,
) -> Watched:
    """Open a bundle, and watch the engine.

    Args:
        bundle: The folder, or what was opened from it.
        engine, precision: As in `open_encoder`. What was asked for is what begins: if it cannot be opened now, that is an error.
        settings: What the engine may take of the processor.
        timeout_s: A run that takes longer hangs; of a large batch, every run of 8. Let it be many times the usual.
        tell: Called with what happened, in the thread that embeds.

    Raises:
        BundleError, InputError, EngineError: As `open_encoder`; also when opening hangs.
    """
    if not timeout_s > 0:
        raise InputError(f"timeout_s must be more than 0 seconds, not {timeout_s}")
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(Path(bundle))
    taken = settings or EngineSettings()
    return Watched(
        opened,
        (engine, precision),
        lambda name, kind: encoder_of(opened, name, kind, taken),
        timeout_s=timeout_s,
        tell=tell or (lambda event: None),
    )


class Watched:
    """As an `Encoder` embeds, and `health`. Threads may share it: they take turns.

    Args:
        bundle: An opened bundle.
        wanted: Engine and precision to begin with, `auto` included.
        open_one: Opens the bundle in an engine and a precision.
        timeout_s, tell: As in `open_watched`.
        clock: Seconds; says when engines that all failed are tried again.
    """

    def __init__(
        self,
        bundle: Bundle,
        wanted: tuple[str, str],
        open_one: OpenOne,
        *,
        timeout_s: float,
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bundle = bundle
        self._open_one, self._timeout_s, self._tell, self._clock = open_one, timeout_s, tell, clock
        self._lock = threading.Lock()
        self._hanging: list[Worker] = []
        self._state, self._restarts, self._last_error = "ok", 0, ""
        self._answers, self._reopened = 0, False  # since the last failure; and whether that was answered by reopening
        self._rest_s, self._rests_until = FIRST_REST_S, 0.0
        self._closed = False
        self._worker: Worker | None = Worker(lambda: open_one(*wanted))
        try:
            self._encoder = self._worker.opened(OPENING_S)
        except HangError as error:
            raise EngineError(f"{bundle.path}: {error}. Type: edgessl doctor") from error
        self._first = self._now = (self._encoder.engine, self._encoder.precision)

    @property
    def input(self) -> InputSpec:
        """What one sample is."""
        return self.bundle.input

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.bundle.dim

    @property
    def space_id(self) -> str:
        """Name of the embedding space, the same for every engine and precision of the bundle."""
        return self._encoder.space_id

    @property
    def manifest(self) -> dict[str, Any]:
        """The bundle's manifest."""
        return self.bundle.manifest

    def embed(self, frames: NDArray[Any]) -> NDArray[np.float32]:
        """Embed a batch, with whatever engine still can; the frames must stay as they are until this returns.

        Args:
            frames: `(batch, *sample)` as the sensor gives them.

        Returns:
            Unit vectors `(batch, dim)`; the caller owns the array.

        Raises:
            InputError: The frames are at fault; the engine goes on.
            EngineError: It is closed, or every engine of the bundle failed; the reasons of all.
        """
        batch = self.input.check(frames)
        refuse_rows(self.input.finite(batch))
        with self._lock:
            if self._closed:
                raise EngineError("this encoder is closed; open it again")
            if self._worker is None and self._clock() < self._rests_until:
                raise EngineError(f"every engine failed, and rests: {self._last_error}")
            reasons = []
            if self._worker is not None:
                try:
                    return self._answer(self._worker, batch)
                except Exception as error:  # noqa: BLE001 (as below)
                    reasons.append(self._failed(error))
            return self._recovered(batch, reasons)

    def health(self) -> dict[str, Any]:
        """How it is.

        Returns:
            `state`: `ok`; `restarted`, the engine was reopened not long ago; `fallback`, another one embeds, or another
            precision; `failed`, none does. `restarts` counts engines that were opened anew, `hanging` those left behind.
            `engine` and `precision` embed now; `last_error` is the last failure.
        """
        recovered = self._state == "restarted" and self._answers >= TRUSTED_AFTER
        return {
            "state": "ok" if recovered else self._state,
            "restarts": self._restarts,
            "engine": self._now[0],
            "precision": self._now[1],
            "last_error": self._last_error,
            "hanging": sum(worker.alive for worker in self._hanging),
        }

    def info(self, *, fused: bool = False) -> dict[str, Any]:
        """What really runs; see `Encoder.info`."""
        return self._encoder.info(fused=fused) | {"timeout_s": self._timeout_s}

    def close(self) -> None:
        """Give the engine's memory back; waits for one that is busy as long as a run may take."""
        with self._lock:
            self._closed = True
            if self._worker is not None:
                self._worker.leave()
                self._worker.join(self._timeout_s)
                self._worker = None

    def __enter__(self) -> Watched:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, worker: Worker, batch: NDArray[Any]) -> NDArray[np.float32]:
        runs = max(-(-len(batch) // CHUNK), 1)
        vectors = worker.ask(batch, self._timeout_s * runs)
        if not (np.abs(np.einsum("ij,ij->i", vectors, vectors) - 1) < _UNIT).all():  # NaN compares false
            raise EngineError("its vectors are not finite, or not of unit length")
        self._answers += 1
        return vectors

    def _failed(self, error: Exception) -> str:
        """Take the engine out of service; says why."""
        reason = f"{' '.join(self._now)}: {error if isinstance(error, EdgeSSLError) else repr(error)}"
        self._last_error = reason
        if self._answers >= TRUSTED_AFTER:
            self._reopened = False
        self._answers = 0
        if self._worker is not None:
            self._worker.leave()
            if isinstance(error, HangError):
                self._hanging.append(self._worker)
            else:
                self._worker.join(self._timeout_s)  # its memory first, then the next one's
        self._worker = None
        self._tell({"event": "engine_failed", "engine": self._now[0], "precision": self._now[1], "reason": reason})
        return reason

    def _recovered(self, batch: NDArray[Any], reasons: list[str]) -> NDArray[np.float32]:
        """Vectors from the first engine that opens, gets the golden samples right and answers."""
        failing = self._now
        for chosen in self._candidates():
            self._hanging = [worker for worker in self._hanging if worker.alive]
            if len(self._hanging) >= MOST_HANGING:
                reasons.append(f"{len(self._hanging)} engines hang; only a new process helps: restart it")
                break
            self._now, self._restarts = chosen, self._restarts + 1
            self._worker = worker = Worker(partial(self._open_one, *chosen))
            try:
                encoder = worker.opened(OPENING_S)
                self._prove(worker, chosen)
                vectors = self._answer(worker, batch)
            except Exception as error:  # noqa: BLE001 (whatever an engine raises, the vectors must go on)
                reasons.append(self._failed(error))
                continue
            self._took_over(encoder, failing)
            return vectors
        self._state, self._last_error = "failed", "; ".join(reasons)
        self._rests_until = self._clock() + self._rest_s
        self._tell({"event": "engines_exhausted", "reasons": reasons, "again_in_s": self._rest_s})
        self._rest_s = min(2 * self._rest_s, LONGEST_REST_S)
        self._now, self._reopened = self._first, False  # from the beginning, when it is time
        raise EngineError(f"every engine of {self.bundle.path} failed. {self._last_error}")

    def _candidates(self) -> Iterator[tuple[str, str]]:
        """The one that failed, once; then its bundle's other precisions, other engines, and what runs everywhere."""
        failed = self._now
        if not self._reopened:
            self._reopened = True
            yield failed
        others = [(failed[0], kind) for kind in self.bundle.precisions("encoder", failed[0])]
        if failed[0] != FAKE:  # which must not become an engine, nor an engine the fake one
            others += [
                (name, kind)
                for name in automatic()
                for kind in self.bundle.precisions("encoder", name)
                if name != failed[0] and not takes_plans(name)
            ]
            others = [other for other in others if other != _LAST] + [_LAST]
        yield from (other for other in dict.fromkeys(others) if other != failed)

    def _prove(self, worker: Worker, chosen: tuple[str, str]) -> None:
        """Golden samples give the golden vectors, or it is an `EngineError`."""
        bound = BOUNDS[chosen[1]]
        golden = self.bundle.tensors("golden", "samples", "vectors")
        # One by one, as it will be asked; an engine may compile another form for a batch.
        got = np.concatenate([worker.ask(sample[None], OPENING_S) for sample in golden["samples"][:_GOLDEN]])
        similar = cosines(golden["vectors"][:_GOLDEN].astype(np.float32), got)
        if chosen[0] != FAKE and not (similar.min() >= bound.min_cosine and similar.mean() >= bound.mean_cosine):
            raise EngineError(f"it fails the golden samples: cosines {similar.min():.5f} to {similar.max():.5f}")

    def _took_over(self, encoder: Encoder, failing: tuple[str, str]) -> None:
        self._encoder, self._rest_s = encoder, FIRST_REST_S
        self._reopened = self._now == failing  # another one may be reopened once as well
        self._state = "restarted" if self._now == self._first else "fallback"
        message = f"{' '.join(self._now)} embeds"
        if self._now[1] != failing[1]:
            message += f"; the space is the same, but vectors in {self._now[1]} are not those in {failing[1]}"
        facts = {"engine": self._now[0], "precision": self._now[1], "instead_of": " ".join(failing), "message": message}
        self._tell({"event": "engine_restarted" if self._now == failing else "engine_replaced", **facts})
