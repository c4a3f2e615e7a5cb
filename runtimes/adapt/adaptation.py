"""What is learned, and how one part of the stream is learned from; nothing here writes to disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.guard import Guard, GuardConfig
from edgessl.runtimes.adapt.memory import MemoryConfig
from edgessl.runtimes.adapt.novelty import Novelty, NoveltyConfig
from edgessl.runtimes.adapt.ports import Ports, PortsConfig
from edgessl.runtimes.adapt.recenter import Recenter, RecenterConfig
from edgessl.runtimes.adapt.replay import Replay
from edgessl.runtimes.adapt.state import State, joined
from edgessl.runtimes.adapt.tail import TailConfig
from edgessl.runtimes.adapt.views import ViewsConfig
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.graphs import trunk_beside
from edgessl.runtimes.split import Observed, Port, Tail, Trunk

LEVELS = ("recenter", "ports", "tail")


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """Everything that can be set, part by part.

    Attributes:
        snapshot_every: Votes between two snapshots.
    """

    guard: GuardConfig = field(default_factory=GuardConfig)
    novelty: NoveltyConfig = field(default_factory=NoveltyConfig)
    recenter: RecenterConfig = field(default_factory=RecenterConfig)
    ports: PortsConfig = field(default_factory=PortsConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    tail: TailConfig = field(default_factory=TailConfig)
    snapshot_every: int = 256


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One part of the stream, embedded.

    Attributes:
        frames: `(batch, *sample)`.
        observed: What the trunk made of them.
        raw: Vectors before recentring, `(batch, dim)`.
        served: Vectors as they were served, `(batch, dim)`.
        whitened: Drift statistics in units of the source, `(batch, size)`.
    """

    frames: NDArray[Any]
    observed: Observed
    raw: NDArray[np.float32]
    served: NDArray[np.float32]
    whitened: NDArray[np.float64]


class Adaptation:
    """The levels and their guard.

    Args:
        encoder: Gives the bundle, the engine, the precision and the threads.
        level: A name of `LEVELS`.
        seed: Of a new state.
        config: Everything else.
        say: Told what happened: kind, and numbers by name.
    """

    def __init__(
        self, encoder: Encoder, *, level: str, seed: int, config: LearnerConfig, say: Callable[..., None]
    ) -> None:
        ports = range(len(encoder.manifest.get("split", {}).get("ports", [])))
        statistics = [f"port{index}.{part}" for index in ports for part in ("mean", "var")]
        memory = ["latent.scale"] if level == "tail" else []
        source = encoder.bundle.tensors("source", "embedding.mean", "embedding.var", *statistics, *memory)
        self._level, self._say = level, say
        self.votes = 0
        self.guard = Guard(source, config.guard)
        self._novelty = Novelty(self.guard.size, config.novelty)
        self._recenter = Recenter(source["embedding.mean"], source["embedding.var"], config.recenter)
        self._rng = np.random.default_rng(seed)
        self._ports = Ports(
            [source[f"port{index}.mean"] for index in ports],
            [source[f"port{index}.var"] for index in ports],
            config.ports,
        )
        self._replay: Replay | None = None
        self._unread = State()  # the tail of a state that was opened at a lower level; goes back to disk as it came
        options: dict[str, Any] = {"engine": encoder.engine, "threads": encoder.threads}
        with ExitStack() as undo:
            precision = trunk_beside(encoder.bundle, encoder.precision, encoder.engine)
            self.trunk = undo.enter_context(Trunk(encoder.bundle, precision=precision, **options))
            self._tail = undo.enter_context(Tail(encoder.bundle, **options))
            if level == "tail":
                self._replay = Replay(encoder, source, self.trunk, config.tail, config.memory, config.views)
            undo.pop_all()

    @property
    def active(self) -> bool:
        """Whether what was learned serves; if not, the factory's encoder does."""
        return self.guard.shifted and not self.guard.frozen

    def ports(self) -> tuple[Port, ...]:
        """Positions to serve with."""
        return self._ports.values if self.active and self._level != "recenter" else self.trunk.identity

    def embed(self, latents: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vectors of latents `(batch, *latent)`: before recentring, and to serve, `(batch, dim)` each."""
        if not self.active:
            raw = self._tail.run(latents)
            return raw, raw
        raw = (self._replay.serving if self._replay else self._tail).run(latents)
        return raw, self._recenter.apply(raw)

    def learn(self, seen: Seen) -> str:
        """Learn from one part of a shifted stream.

        Returns:
            What went wrong; empty when nothing did.
        """
        voting = self._novelty.admit(seen.whitened)
        if self.guard.another_shift(seen.whitened[voting]):
            self._say("another_shift", votes=self.votes)
            self.forget()
            return ""
        self.votes += int(voting.sum())
        if reason := self.guard.collapsing(seen.raw[voting]):
            return reason
        self._recenter.update(seen.raw[voting])
        if self._level != "recenter":
            votes = seen.observed.rows(voting)
            if (port := self._ports.observe(votes.means, votes.squares)) is not None:
                self._recenter.loosen()
                self._say("port", **self._ports.describe(port))
        if self._replay:
            ports = self._ports.values
            if reason := self._replay.learn(seen.frames, seen.served, voting, ports, self.guard, self._rng):
                return reason
            if self._replay.changed:
                self._recenter.loosen()
                self._say("tail", **self._replay.info())
        sound = self._recenter.state().finite() and self._ports.state().finite()
        return "" if sound else "the learned statistics are not finite"

    def forget(self) -> None:
        """Start again from the factory's encoder; counters, budget and the guard's decision stay."""
        self._recenter.reset()
        self._ports.reset()
        self.guard.forget_shape()
        self._unread = State()
        if self._replay:
            self._replay.reset()

    def info(self) -> dict[str, Any]:
        """Counters and the guard's present view."""
        return {
            "votes": self.votes,
            "shifted": self.active,
            "score": self.guard.score,
            "threshold": self.guard.threshold,
            "port_rounds": self._ports.rounds,
            "quarantined": self.guard.quarantined,
            "rollbacks": self.guard.rollbacks,
            "frozen": self.guard.frozen,
            **(self._replay.info() if self._replay else {}),
        }

    def close(self) -> None:
        """Give the graphs' memory back."""
        self.trunk.close()
        self._tail.close()
        if self._replay:
            self._replay.close()

    def state(self) -> State:
        """A copy."""
        parts = {
            "guard": self.guard.state(),
            "novelty": self._novelty.state(),
            "recenter": self._recenter.state(),
            "ports": self._ports.state(),
            "stream": State(values={"votes": self.votes, "rng": self._rng.bit_generator.state}),
        }
        return joined(parts | {"replay": self._replay.state() if self._replay else self._unread})

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        self.restore_learned(state)
        self.guard.restore(state.part("guard"))
        self._novelty.restore(state.part("novelty"))
        values = state.part("stream").values
        self.votes = int(values["votes"])
        self._rng.bit_generator.state = values["rng"]

    def restore_learned(self, state: State) -> None:
        """Go back to what a copy had learned; counters, draws and the guard go on."""
        self._recenter.restore(state.part("recenter"))
        self._ports.restore(state.part("ports"))
        # A state of a lower level has no tail: training starts from the factory's.
        part = state.part("replay")
        if not self._replay:
            self._unread = part
        elif part.tensors:
            self._replay.restore(part)
