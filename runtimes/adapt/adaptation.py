"""What is learned, and how one part of the stream is learned from; nothing here writes to disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.dependence import Dependence, DependenceConfig
from edgessl.runtimes.adapt.drift import Drift, DriftConfig
from edgessl.runtimes.adapt.guard import Guard, GuardConfig
from edgessl.runtimes.adapt.memory import MemoryConfig
from edgessl.runtimes.adapt.novelty import Novelty, NoveltyConfig
from edgessl.runtimes.adapt.ports import Ports, PortsConfig
from edgessl.runtimes.adapt.recenter import Recenter, RecenterConfig
from edgessl.runtimes.adapt.replay import Replay
from edgessl.runtimes.adapt.served import Served
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
        confirm_ports, confirm_tail: Blocks of votes that must have confirmed a shift before these levels learn from it.
    """

    drift: DriftConfig = field(default_factory=DriftConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    novelty: NoveltyConfig = field(default_factory=NoveltyConfig)
    dependence: DependenceConfig = field(default_factory=DependenceConfig)
    recenter: RecenterConfig = field(default_factory=RecenterConfig)
    ports: PortsConfig = field(default_factory=PortsConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    tail: TailConfig = field(default_factory=TailConfig)
    snapshot_every: int = 256
    confirm_ports: int = 1
    confirm_tail: int = 4


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One part of the stream, embedded.

    Attributes:
        frames: `(batch, *sample)`.
        observed: What the trunk made of them.
        raw: Vectors before recentring, `(batch, dim)`.
        served: Vectors as they were served, `(batch, dim)`.
        whitened: Drift statistics in units of the source, `(batch, size)`.
        novel: Which of them look unlike those before, `(batch,)`: only these vote.
    """

    frames: NDArray[Any]
    observed: Observed
    raw: NDArray[np.float32]
    served: NDArray[np.float32]
    whitened: NDArray[np.float64]
    novel: NDArray[np.bool_]

    def rows(self, keep: NDArray[np.bool_]) -> Seen:
        """Some of the frames."""
        parts = {name: getattr(self, name)[keep] for name in ("frames", "raw", "served", "whitened", "novel")}
        return Seen(observed=self.observed.rows(keep), **parts)


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
        # A bundle of before has variances only.
        covariance = source.get("embedding.covariance", np.diag(source["embedding.var"]))
        self._level, self._say, self._config = level, say, config
        self.votes = 0
        self.drift = Drift(source, config.drift)
        self.guard = Guard(config.guard)
        self._novelty = Novelty(self.drift.size, config.novelty)
        self._dependence = Dependence(encoder.bundle.dim, config.dependence)
        self._recenter = Recenter(source["embedding.mean"], covariance, config.recenter)
        self._rng = np.random.default_rng(seed)
        self._ports = Ports(
            [source[f"port{index}.mean"] for index in ports],
            [source[f"port{index}.var"] for index in ports],
            config.ports,
        )
        self._gap = np.zeros(encoder.bundle.dim)  # sum, over paired votes, of how the candidate ports move vectors
        self._shift = -1  # whose state the above is
        self._aside: dict[int, State] = {}  # what was learned of other shifts
        self._replay: Replay | None = None
        self._unread = State()  # the tail of a state that was opened at a lower level; goes back to disk as it came
        self._served = Served()
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
        return self.drift.shifted and not self.guard.frozen

    @property
    def teaches(self) -> bool:
        """Whether the latest frames may be learned from."""
        return self.active and self.drift.present

    @property
    def served(self) -> Served:
        """The version that serves; another object as soon as anything in it is another."""
        if not self.active:
            ports, affine, tail = None, None, None
        else:
            ports = self._ports.values if self._ports.moves and self._level != "recenter" else None
            affine, tail = self._recenter.affine, self._replay.weights if self._replay else None
        now = self._served
        if ports is not now.ports or affine is not now.affine or tail is not now.tail:
            self._served = Served(number=now.number + 1, ports=ports, affine=affine, tail=tail)
        return self._served

    def ports(self) -> tuple[Port, ...]:
        """Positions to serve with."""
        return self.served.ports or self.trunk.identity

    def judge(self, whitened: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Take in drift statistics `(batch, size)`; what was learned of a shift serves as soon as it is seen again.

        Returns:
            Which of the frames look unlike those before, `(batch,)`.
        """
        novel = self._novelty.admit(whitened)
        if self.drift.judge(whitened, novel):
            self._dependence.restart()
            numbers = {"shift": self.drift.shift, "score": self.drift.score, "threshold": self.drift.threshold}
            self._say("shift" if self.drift.shifted else "return", **numbers)
        if self.drift.shifted and self.drift.shift != self._shift:
            self._turn()
        return novel

    def embed(self, latents: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vectors of latents `(batch, *latent)`: before recentring, and to serve, `(batch, dim)` each."""
        affine, raw = self.served.affine, self._raw(latents)
        return raw, affine.apply(raw) if affine else raw

    def learn(self, seen: Seen) -> str:
        """Learn from one part of a shifted stream.

        Returns:
            What went wrong; empty when nothing did.
        """
        votes = seen.rows(seen.novel)
        if self.drift.vote(votes.whitened):
            self._say("another_shift", shift=self.drift.shift, votes=self.votes)
            self._dependence.restart()
            self._turn()
            return ""
        self.votes += len(votes.raw)
        if reason := self.guard.collapsing(votes.raw):
            return reason
        self._dependence.update(votes.raw)
        factor = self._dependence.factor
        if self._level != "recenter" and self.drift.confirmed >= self._config.confirm_ports:
            self._move_ports(votes, factor)
        self._recenter.update(votes.raw, factor=factor)
        if self._replay and self.drift.confirmed >= self._config.confirm_tail:
            served, voting, values = seen.served, seen.novel, self._ports.values
            if reason := self._replay.learn(seen.frames, served, voting, values, self.guard, self._rng):
                return reason
            if self._replay.changed:
                self._say("tail", **self._replay.info())
        sound = self._recenter.state().finite() and self._ports.state().finite()
        return "" if sound else "the learned statistics are not finite"

    def forget(self) -> None:
        """Start again from the factory's encoder; counters, budget and the drift's decision stay."""
        self._fresh()
        self._aside = {}
        self._unread = State()
        if self._replay:
            self._replay.reset()

    def info(self) -> dict[str, Any]:
        """Counters and the guard's present view."""
        return {
            "votes": self.votes,
            "shifted": self.active,
            "shift": self.drift.shift,
            "score": self.drift.score,
            "threshold": self.drift.threshold,
            "dependence": self._dependence.factor,
            "port_moves": self._ports.moves,
            "version": self.served.number,
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
            "drift": self.drift.state(),
            "guard": self.guard.state(),
            "novelty": self._novelty.state(),
            "dependence": self._dependence.state(),
            "stream": State(values={"votes": self.votes, "rng": self._rng.bit_generator.state}),
        }
        return joined(parts | {"learned": self._learned()})

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        self.drift.restore(state.part("drift"))
        self.guard.restore(state.part("guard"))
        self._novelty.restore(state.part("novelty"))
        self._dependence.restore(state.part("dependence"))
        self.restore_learned(state)
        values = state.part("stream").values
        self.votes = int(values["votes"])
        self._rng.bit_generator.state = values["rng"]

    def restore_learned(self, state: State) -> None:
        """Go back to what a copy had learned; counters, draws and the guard go on."""
        learned = state.part("learned")
        values = learned.values
        self._shift = int(values["shift"])
        self._restore_shift(learned.part("present"))
        self._aside = {int(number): learned.part(f"aside.{number}") for number in values["aside"]}
        # A state of a lower level has no tail: training starts from the factory's.
        part = learned.part("replay")
        if not self._replay:
            self._unread = part
        elif part.tensors:
            self._replay.restore(part)

    def _raw(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        tail = self._replay.serving if self._replay and self.served.tail is not None else self._tail
        return tail.run(latents)

    def _move_ports(self, votes: Seen, factor: float) -> None:
        """Observe, and hold the candidate beside the present positions on the same frames."""
        self._ports.observe(votes.observed, factor=factor)
        candidate = self._ports.candidate
        if candidate is None or not len(votes.raw):
            return
        moved = self.trunk.run(votes.frames, candidate)
        self._gap += (self._raw(moved.latents) - votes.raw).sum(0, dtype=np.float64)
        port, paired = self._ports.port, self._ports.pairs + len(votes.raw)
        if self._ports.compare(votes.observed, moved):
            self._recenter.moved(self._gap / paired)
            self._dependence.moved(self._gap / paired)
            self._gap = np.zeros_like(self._gap)
            self._say("port", **self._ports.describe(port))

    def _turn(self) -> None:
        """Lay aside what was learned of one shift, and go on with the other where it was left."""
        if self._shift >= 0:
            self._aside[self._shift] = self._shift_state()
        self._shift = self.drift.shift
        self._aside = {number: state for number, state in self._aside.items() if number in self.drift.known}
        learned = self._aside.pop(self._shift, None)
        if learned is None:
            self._fresh()
        else:
            self._restore_shift(learned)
        self.guard.forget_shape()

    def _fresh(self) -> None:
        """Nothing is known of this shift."""
        self._recenter.reset()
        self._ports.reset()
        self._gap = np.zeros_like(self._gap)
        self.guard.forget_shape()

    def _shift_state(self) -> State:
        return joined({"recenter": self._recenter.state(), "ports": self._ports.state()})

    def _restore_shift(self, state: State) -> None:
        self._recenter.restore(state.part("recenter"))
        self._ports.restore(state.part("ports"))
        self._gap = np.zeros_like(self._gap)

    def _learned(self) -> State:
        parts = {"present": self._shift_state(), "replay": self._replay.state() if self._replay else self._unread}
        held = joined(parts | {f"aside.{number}": state for number, state in self._aside.items()})
        return State(tensors=held.tensors, values=held.values | {"shift": self._shift, "aside": sorted(self._aside)})
