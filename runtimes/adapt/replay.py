"""Level 2, put together: frames become latents, the budget buys steps, and the guard lets the average serve."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.guard import Guard
from edgessl.runtimes.adapt.latest import Latest, LatestConfig, Moved
from edgessl.runtimes.adapt.memory import Memory, MemoryConfig
from edgessl.runtimes.adapt.rehearsal import Rehearsal, rehearsal_of
from edgessl.runtimes.adapt.seen import Seen
from edgessl.runtimes.adapt.state import State, joined
from edgessl.runtimes.adapt.tail import Lesson, TailConfig, TailTraining, Weights
from edgessl.runtimes.adapt.views import ViewsConfig, view
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.spectrum import Spectrum
from edgessl.runtimes.split import Observed, Tail, Trunk


class Replay:
    """The tail's memory, its training, and the tail that serves while the world is shifted.

    Args:
        encoder: Gives the bundle, the engine and its settings.
        source: Tensors of the bundle's `source` file.
        trunk: The factory's; says of what shape latents are, and what rehearsed frames give undisturbed.
        tail, memory, latest, views: Configurations.
        factory: The tail as it was exported; belongs to the caller.
        say: Told of each candidate: kind, and numbers by name.
        may_step: Asked before each training step.

    Attributes:
        serving: The tail with the accepted weights.
        stopped: Whether so many candidates were refused that no tail is trained any more.
        moved: How the tails that were accepted in the last call of `learn` moved the stream's vectors; `None` when there was
            none.
    """

    def __init__(
        self,
        encoder: Encoder,
        source: dict[str, NDArray[Any]],
        trunk: Trunk,
        tail: TailConfig,
        memory: MemoryConfig,
        latest: LatestConfig,
        views: ViewsConfig,
        *,
        factory: Tail,
        say: Callable[..., None],
        may_step: Callable[[], bool],
    ) -> None:
        bundle = encoder.bundle
        self._factory, self._say, self._may_step = factory, say, may_step
        self._input, self._views = bundle.input, views
        self._bundle, self._trunk = bundle, trunk
        self._source = {name: each for name, each in source.items() if name.startswith(("spectrum.", "prepare."))}
        self._memory = Memory(trunk.latent, bundle.dim, source["latent.scale"], trunk.channel_axis, memory)
        self._latest = Latest(trunk.latent, self._memory.scale, memory.latest_bytes, latest)
        self._training = TailTraining(
            bundle,
            source,
            channel_axis=trunk.channel_axis,
            engine=encoder.engine,
            settings=encoder.settings,
            config=tail,
        )
        with ExitStack() as undo:
            undo.callback(self._training.close)
            self.serving = self._training.open()
            undo.pop_all()
        self.moved: Moved | None = None
        self.stopped = False
        self._refused = 0  # candidates in a row
        self._loss = self._gradient = 0.0

    def learn(
        self,
        seen: Seen,
        run: Callable[[NDArray[Any]], Observed],
        guard: Guard,
        rng: np.random.Generator,
        stream: Spectrum | None = None,
    ) -> str:
        """Admit what is new, and train within the budget.

        Args:
            seen: One part of the stream, of which the novel ones may be learned from. Two views are made of its frames, and
                none is kept.
            run: The trunk that serves, with its ports.
            guard: Judges candidates.
            rng: Of the views and the draws.
            stream: What the frames look like by now. Where the bundle has frames of the source, these are rehearsed with it, and
                without it nothing is trained.

        Returns:
            What went wrong; empty when nothing did.
        """
        self.moved = None
        self._latest.add(seen.observed.latents[seen.novel])
        rows = [row for row in np.flatnonzero(seen.novel) if self._memory.wants(seen.served[row])]
        if rows:
            chosen = seen.frames[rows]
            both = np.concatenate([view(chosen, self._input, self._views, rng) for _ in range(2)])
            latents = run(both).latents
            for place, row in enumerate(rows):
                self._memory.admit(latents[place], latents[len(rows) + place], seen.served[row])
        # Where frames could be made up once the stream is known, nothing is learned before.
        ready = self._training.ready(self._memory) and not (self._rehearsal and stream is None)
        for _ in range(self._training.afford(len(seen.frames)) if ready else 0):
            if self.stopped or not self._may_step():
                break
            outcome = self._training.step(self._memory, rng, self._lesson(stream, run, rng))
            self._loss, self._gradient = outcome.loss, outcome.gradient_norm
            if not outcome.ok:
                return "the training step is not finite"
            if self._training.due():
                self._offer(guard)
        return ""

    @cached_property
    def _rehearsal(self) -> Rehearsal | None:
        """Read and embedded when the first shift is to be learned from: most opened learners never do."""
        return rehearsal_of(self._bundle, self._source, self._undisturbed)

    @property
    def weights(self) -> Weights | None:
        """Of the tail that serves; `None` are the factory's. Another object when they change."""
        return self._training.served if self._training.accepted else None

    def reset(self) -> None:
        """Back to the factory's tail and an empty memory."""
        self._memory.clear()
        self._latest.clear()
        self._training.reset()
        self._serve()

    def info(self) -> dict[str, Any]:
        """Counters."""
        return {
            "memory": len(self._memory),
            "memory_bytes": self._memory.size_bytes + self._latest.size_bytes,
            "steps": self._training.steps,
            "loss": self._loss,
            "gradient_norm": self._gradient,
        }

    def close(self) -> None:
        """Give the graphs' memory back."""
        self._training.close()
        self.serving.close()

    def state(self) -> State:
        """A copy."""
        own = State(values={"stopped": self.stopped, "refused": self._refused})
        latents = {"memory": self._memory.state(), "latest": self._latest.state()}
        return joined(latents | {"training": self._training.state(), "own": own})

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        self._memory.restore(state.part("memory"))
        self._latest.restore(state.part("latest"))
        self._training.restore(state.part("training"))
        own = state.part("own").values
        self.stopped, self._refused = bool(own["stopped"]), int(own["refused"])
        self._serve()

    def _undisturbed(self, frames: NDArray[Any]) -> NDArray[np.float32]:
        return self._factory.run(self._trunk.run(frames, self._trunk.identity).latents)

    def _lesson(
        self, stream: Spectrum | None, run: Callable[[NDArray[Any]], Observed], rng: np.random.Generator
    ) -> Lesson | None:
        """Frames of the source as the stream would show them, through the trunk that serves."""
        if self._rehearsal is None or stream is None:
            return None
        frames = self._rehearsal.draw(self._training.pairs, stream, rng)
        latents, count = run(np.concatenate([frames.first, frames.second])).latents, len(frames.vectors)
        return Lesson(latents[:count], latents[count:], frames.vectors)

    def _offer(self, guard: Guard) -> None:
        """Let the average serve if the guard finds nothing wrong with it; if it does, training starts from what serves.

        Where that happens too often the factory's tail serves, and no other is trained; ports and recentring go on.
        """
        first, second = self._memory.latents(0), self._memory.latents(1)
        with self._training.candidate() as tail:
            anchors, views = (
                self._training.anchors.through(tail.run),
                (first.through(tail.run), second.through(tail.run)),
            )
        verdict = guard.judge(
            anchors=anchors,
            anchors_before=self._training.anchor_vectors,
            views=views,
            # Against what serves, small losses would add up.
            views_before=(first.through(self._factory.run), second.through(self._factory.run)),
        )
        self._say("accepted" if verdict.passed else "refused", **verdict.numbers())
        if verdict.passed:
            self._training.accept()
            self._refused = 0
            before, self.serving = self.serving, self._training.open(self._training.served)
            if len(self._latest):  # a state of before they were kept has none
                moved = self._latest.moved(before.run, self.serving.run)
                self.moved = self.moved.then(moved) if self.moved else moved
            before.close()
            return
        self._training.withdraw()
        self._refused += 1
        if self._refused >= guard.config.refusals:
            self._training.reset()
            self.stopped = True
            self._say("tail_stopped", todo="the factory's tail serves; ports and recentring go on")
            self._serve()

    def _serve(self) -> None:
        self.serving.close()
        self.serving = self._training.open(self._training.served)
