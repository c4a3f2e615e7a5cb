"""Level 2: train the tail on replayed latents, with a training step that was made ahead of time as a plain graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import Bundle
from edgessl.errors import BundleError
from edgessl.runtimes.adapt.memory import Memory, Rounded
from edgessl.runtimes.adapt.state import State
from edgessl.runtimes.engines import EngineSettings, open_engine
from edgessl.runtimes.graphs import engine_of_tail
from edgessl.runtimes.split import Tail

Floats = NDArray[np.float32]
Weights = dict[str, Floats]  # `weight.NAME` -> value


@dataclass(frozen=True, kw_only=True)
class TailConfig:
    """How the tail is trained; `None` takes the bundle's own value.

    Attributes:
        lr, momentum, pull, clip: Inputs of the step graph; `pull` draws towards the factory's weights.
        warm_up: Steps over which the learning rate rises from 0.
        steps_per_frame: Budget: training steps per observed frame, at most. Half as many left fog a point lower after 10,000.
        average: Share of the served average that stays at each step.
        serve_every: Steps between two looks at whether the average may serve.
        kept: Independent votes that recentring counts for when another tail serves: they were of other vectors. With all of
            them, what was given back at the end of a stretch was .78 on three extra corruptions, and .82 with these.
        carried: The same where it is known how the covariance moved (`latest.py`).
        replayed: Share of the anchors that comes from the memory instead of from the source: what holds the tail to what it
            gave the stream itself. With none the noises lost what fog gained.
    """

    lr: float | None = None
    momentum: float | None = None
    pull: float | None = None
    clip: float | None = None
    warm_up: int = 20
    steps_per_frame: float = 1 / 8
    average: float = 0.98
    serve_every: int = 16
    kept: float = 512.0
    carried: float = 2048.0
    replayed: float = 0.25


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one step gave."""

    ok: bool  # every number is finite; if not, nothing was changed
    loss: float
    gradient_norm: float


class Lesson(NamedTuple):
    """Pairs to learn from in one step.

    Attributes:
        first, second: Latents of the same frames, disturbed twice, `(n, *latent)`.
        vectors: Of those frames undisturbed, `(n, dim)`.
    """

    first: Floats
    second: Floats
    vectors: Floats


class TailTraining:
    """Weights of the tail: those in training, their velocity, their average, and the accepted average that serves.

    Args:
        bundle: An opened bundle.
        source: Tensors of the bundle's `source` file.
        channel_axis: Of the latent's channels in a batch.
        engine: A key of `ENGINES`.
        settings: What the engine may take of the processor.
        config: How the tail is trained.

    Raises:
        BundleError: The manifest does not describe the step.
        InputError: The bundle has no step graph.
    """

    def __init__(
        self,
        bundle: Bundle,
        source: dict[str, NDArray[Any]],
        *,
        channel_axis: int,
        engine: str,
        settings: EngineSettings,
        config: TailConfig,
    ) -> None:
        self._bundle, self._engine_name, self._settings, self._config = bundle, engine, settings, config
        try:
            facts: dict[str, Any] = bundle.manifest["step"]
            self.batch, self._anchor_rows = int(facts["batch"]), int(facts["anchors"])
            # No more than a batch: a memory that is ready holds as many.
            self._replayed = min(round(config.replayed * self._anchor_rows), self.batch)
            chosen = {name: getattr(config, name) for name in ("lr", "momentum", "pull", "clip")}
            self._knobs = {name: float(facts[name] if value is None else value) for name, value in chosen.items()}
            shape = [1] * source["anchor.latents"].ndim
            shape[channel_axis] = -1
            self.anchors = Rounded(source["anchor.latents"], source["latent.scale"].reshape(shape).astype(np.float32))
            self.anchor_vectors: Floats = source["anchor.vectors"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"{bundle.path} does not describe its step: {error!r}; export it again") from error
        # It runs now and then, and what it takes of memory is the most that learning does.
        given_back = replace(settings or EngineSettings(), arena=False)
        self._step = open_engine(engine_of_tail(engine), bundle.graph("step"), settings=given_back)
        self.reset()

    def reset(self) -> None:
        """Back to the factory's weights."""
        # Of weights there are new arrays after each step, and none is ever written to: nobody needs a copy.
        self.weights = {name: np.asarray(value, np.float32) for name, value in self._bundle.tensors("weights").items()}
        self.velocity = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.average, self.served = dict(self.weights), dict(self.weights)
        self.steps = self.accepted = 0
        self._credit = 0.0

    def ready(self, memory: Memory) -> bool:
        """Whether the memory holds a batch."""
        return len(memory) >= self.batch

    def afford(self, frames: int) -> int:
        """Steps that the budget allows after so many more frames."""
        credit = self._credit + frames * self._config.steps_per_frame
        steps = int(credit)
        self._credit = credit - steps
        return steps

    @property
    def pairs(self) -> int:
        """Pairs in a lesson."""
        return self.batch + self._anchor_rows - self._replayed

    def step(self, memory: Memory, rng: np.random.Generator, lesson: Lesson | None = None) -> Outcome:
        """Train once.

        Args:
            memory: Gives some of the anchors; without a lesson the views, too, and the source's stored anchors the rest.
            rng: Of what is drawn.
            lesson: As many as `pairs`.
        """
        if lesson is None:
            a, b, _ = memory.sample(self.batch, rng)
            # With replacement: a bundle may hold fewer anchors than a step takes.
            rows = rng.choice(len(self.anchor_vectors), size=self._anchor_rows - min(self._replayed, len(memory)))
            anchors, reference = self.anchors.rows(rows), self.anchor_vectors[rows]
        else:
            a, b = lesson.first[: self.batch], lesson.second[: self.batch]
            anchors, reference = lesson.first[self.batch :], lesson.vectors[self.batch :]
        latents, _, references = memory.sample(self._anchor_rows - len(anchors), rng)
        anchors, reference = np.concatenate([anchors, latents]), np.concatenate([reference, references])
        knobs = dict(self._knobs)
        knobs["lr"] *= min(1.0, (self.steps + 1) / max(self._config.warm_up, 1))
        feeds: dict[str, NDArray[Any]] = {name: np.asarray(value, np.float32) for name, value in knobs.items()}
        feeds |= {"a": a, "b": b, "anchors": anchors, "reference": reference} | self.weights
        feeds |= {_velocity(name): value for name, value in self.velocity.items()}
        out = self._step.run(feeds)
        ok = all(bool(np.isfinite(value).all()) for value in out.values())
        outcome = Outcome(ok=ok, loss=float(out["loss"]), gradient_norm=float(out["gradient_norm"]))
        if not ok:
            return outcome
        self.weights = {name: out[f"new.{name}"] for name in self.weights}
        self.velocity = {name: out[f"new.{_velocity(name)}"] for name in self.velocity}
        keep = np.float32(self._config.average)
        self.average = {name: keep * self.average[name] + (1 - keep) * new for name, new in self.weights.items()}
        self.steps += 1
        return outcome

    def due(self) -> bool:
        """Whether the average is to be looked at now."""
        return self.steps % self._config.serve_every == 0

    def candidate(self) -> Tail:
        """The tail with the average's weights; the caller closes it."""
        return self.open(self.average)

    def open(self, weights: Weights | None = None) -> Tail:
        """The tail with these weights, or the factory's; the caller closes it."""
        return Tail(self._bundle, engine=self._engine_name, weights=weights, settings=self._settings)

    def accept(self) -> None:
        """Let the average serve."""
        self.served = dict(self.average)
        self.accepted += 1

    def withdraw(self) -> None:
        """Train on from the weights that serve: those in training were refused."""
        self.weights, self.average = dict(self.served), dict(self.served)
        self.velocity = {name: np.zeros_like(value) for name, value in self.velocity.items()}

    def close(self) -> None:
        """Give the step graph's memory back."""
        self._step.close()

    def state(self) -> State:
        """A copy."""
        groups = {"weights": self.weights, "velocity": self.velocity, "average": self.average, "served": self.served}
        tensors = {f"{group}.{name}": value for group, weights in groups.items() for name, value in weights.items()}
        return State(
            tensors=dict(tensors), values={"steps": self.steps, "accepted": self.accepted, "credit": self._credit}
        )

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        for group in ("weights", "velocity", "average", "served"):
            setattr(self, group, dict(state.part(group).tensors))
        self.steps, self.accepted = int(state.values["steps"]), int(state.values["accepted"])
        self._credit = float(state.values["credit"])


def _velocity(weight: str) -> str:
    return "velocity." + weight.removeprefix("weight.")
