"""What is learned, and how one part of the stream is learned from; nothing here writes to disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.alignment import Alignment
from edgessl.runtimes.adapt.attention import Attention
from edgessl.runtimes.adapt.config import LearnerConfig
from edgessl.runtimes.adapt.dependence import Dependence
from edgessl.runtimes.adapt.drift import Drift
from edgessl.runtimes.adapt.equalize import Equalizer
from edgessl.runtimes.adapt.guard import Guard
from edgessl.runtimes.adapt.novelty import Novelty
from edgessl.runtimes.adapt.replay import Replay
from edgessl.runtimes.adapt.seen import Seen
from edgessl.runtimes.adapt.served import Front, Served
from edgessl.runtimes.adapt.state import State, joined
from edgessl.runtimes.adapt.trunks import Trunks
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.fold import mixing as mixing_ports
from edgessl.runtimes.graphs import trunk_beside
from edgessl.runtimes.port import Port
from edgessl.runtimes.prepare import prepared
from edgessl.runtimes.split import Observed, Tail
from edgessl.runtimes.stem import filters, kernel_of, spectrum_of


class Adaptation:
    """The levels and their guard.

    Args:
        encoder: Gives the bundle, the engine, the precision and the settings.
        level: A name of `LEVELS`.
        seed: Of a new state.
        config: Everything else.
        say: Told what happened: kind, and numbers by name.
        may_step: Asked before each training step of the tail.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        level: str,
        seed: int,
        config: LearnerConfig,
        say: Callable[..., None],
        may_step: Callable[[], bool] = lambda: True,
    ) -> None:
        ports = range(len(encoder.manifest.get("split", {}).get("ports", [])))
        statistics = [f"port{index}.{part}" for index in ports for part in ("mean", "var")]
        memory = ["latent.scale"] if level == "tail" else []
        precision = trunk_beside(encoder.bundle, encoder.precision, encoder.engine)
        graphs: dict[str, Any] = {"engine": encoder.engine, "precision": encoder.precision, "trunk": precision}
        kernel, mixing = kernel_of(encoder.bundle, **graphs), mixing_ports(encoder.bundle, **graphs)
        statistics += [f"port{index}.covariance" for index in mixing]
        # A map costs nothing, and is less than a filter; level `tail` has a budget.
        filtered = level == "tail" and filters(encoder.bundle)
        spectrum = spectrum_of(encoder.bundle) if kernel or filtered else []
        source = encoder.bundle.tensors("source", "embedding.mean", "embedding.var", *statistics, *memory, *spectrum)
        self._level, self._say, self._config = level, say, config
        self.votes = 0
        self.drift = Drift(source, config.drift)
        self.guard = Guard(config.guard)
        self._novelty = Novelty(self.drift.size, config.novelty)
        self._dependence = Dependence(encoder.bundle.dim, config.dependence)
        equalizer = None
        if spectrum:
            equalizer = Equalizer(source, None if filtered else kernel, config.equalize, maps=kernel is not None)
        self._alignment = Alignment(source, len(ports), config, equalizer, mixing)
        self._prepare = {name: source[name] for name in spectrum if name.startswith("prepare.")}
        self._rng = np.random.default_rng(seed)
        self.attention = Attention(config.observe_every)
        self._replay: Replay | None = None
        self._unread = State()  # the tail of a state that was opened at a lower level; goes back to disk as it came
        self._served = Served()
        options: dict[str, Any] = {"engine": encoder.engine, "settings": encoder.settings}
        with ExitStack() as undo:
            self._trunks = undo.enter_context(Trunks(encoder.bundle, precision=precision, **options))
            self._tail = undo.enter_context(Tail(encoder.bundle, **options))
            if level == "tail":
                parts = (config.tail, config.memory, config.latest, config.views)
                self._replay = Replay(
                    encoder, source, self._trunks.factory, *parts, factory=self._tail, say=say, may_step=may_step
                )
            undo.pop_all()

    @property
    def active(self) -> bool:
        """Whether what was learned serves; if not, the factory's encoder does."""
        return self.drift.shifted and not self.drift.mild and not self.guard.frozen

    @property
    def teaches(self) -> bool:
        """Whether the latest frames may be learned from; in a mild shift they only say which one they are of."""
        return self.drift.shifted and self.drift.present and not self.guard.frozen

    @property
    def young(self) -> bool:
        """Whether little is known of the present shift yet."""
        return self.drift.confirmed <= self._config.young

    @property
    def served(self) -> Served:
        """The version that serves; another object as soon as anything in it is another."""
        now, then = self._version(self._served.number + 1), self._served
        if not now.same(then):
            self._served = now
        return self._served

    def ports(self) -> tuple[Port, ...]:
        """Positions to serve with."""
        return self.served.ports or self._trunks.factory.identity

    def first(self, frames: NDArray[Any]) -> Observed:
        """What the factory's trunk makes of frames `(batch, *sample)`: drift is judged by that.

        Ports stand behind what drift looks at; with them it is what serves as well, where nothing is in the constants.
        """
        ports = self.ports() if self.served.direct else self._trunks.factory.identity
        return self._trunks.run(None, frames, ports)

    def present(self, frames: NDArray[Any], first: Observed, then: Served) -> Observed:
        """What the trunk that serves makes of frames: what it gave `first`, when version `then` served, where it is the same."""
        now = self.served
        same = now.direct and then.direct and now.ports is then.ports
        return first if same else self._trunks.run(now.front, frames, self.ports())

    def judge(self, whitened: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Take in drift statistics `(batch, size)`; what was learned of a shift serves as soon as it is seen again.

        Returns:
            Which of the frames look unlike those before, `(batch,)`.
        """
        novel = self._novelty.admit(whitened)
        self.attention.looked(len(whitened))
        kind = "another_shift" if self.drift.shifted else "shift"
        if self.drift.judge(whitened, novel):
            self.attention.call(self._config.attend)
            self._dependence.restart()
            numbers = {"shift": self.drift.shift, "score": self.drift.score, "threshold": self.drift.threshold}
            self._say(kind if self.drift.shifted else "return", **numbers)
            novel &= self.drift.settled  # of a part that is half night and half day nothing is learned
        if self.drift.shifted and self.drift.shift != self._alignment.shift:
            self._turn()
        if self.drift.suspicious:
            self.attention.call(self.drift.block)
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
        votes, adapting = seen.rows(seen.novel), not self.drift.mild
        if turn := self.drift.vote(votes.whitened):
            self._say("another_shift", shift=self.drift.shift, votes=self.votes, distance=turn)
            self.attention.call(self._config.attend)
            self._dependence.restart()
            self._turn(near=turn == "near")
            return ""
        self.votes += len(votes.raw)
        if self.drift.mild:
            if adapting:
                self._say("mild", shift=self.drift.shift, votes=self.votes)
            return ""
        if reason := self.guard.collapsing(votes.raw):
            return reason
        self._dependence.update(votes.raw)
        factor = self._dependence.factor
        self._alignment.recenter(votes.raw, factor)
        if self.drift.confirmed >= self._config.confirm_ports:
            observed = votes.observed if self._level != "recenter" else None
            images = prepared(votes.frames, self._prepare) if self._prepare else None
            if move := self._alignment.move(observed, images, votes.raw, factor, partial(self._again, votes)):
                self._dependence.moved(move.by)
                self._say(move.kind, **move.numbers)
        if self._replay and self.drift.confirmed >= self._config.confirm_tail:
            run = partial(self._trunks.run, self.served.front, ports=self.ports())
            if reason := self._replay.learn(seen, run, self.guard, self._rng, self._alignment.stream(factor)):
                return reason
            if moved := self._replay.moved:
                self._alignment.moved(moved, factor)
                self._dependence.moved(moved.by)
        return "" if self._alignment.finite() else "the learned statistics are not finite"

    def forget(self) -> None:
        """Start again from the factory's encoder; counters, budget and the drift's decision stay."""
        self._alignment.forget()
        self.guard.forget_shape()
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
            "port_moves": self._alignment.moves,
            "version": self.served.number,
            "quarantined": self.guard.quarantined,
            "rollbacks": self.guard.rollbacks,
            "frozen": self.guard.frozen,
            **(self._replay.info() if self._replay else {}),
        }

    def watch(self) -> dict[str, Any]:
        """How things stand, for the log: drift, what serves, and how the embedding fills its space."""
        shape, drift = self.guard.latest, self.drift
        numbers = {"score": drift.score, "threshold": drift.threshold, "shifted": self.active, "shift": drift.shift}
        shapes = {"spread": shape.spread, "rank": shape.rank} if shape else {}
        return numbers | shapes | {"version": self.served.number, "dependence": self._dependence.factor}

    def close(self) -> None:
        """Give the graphs' memory back."""
        self._trunks.close()
        self._tail.close()
        if self._replay:
            self._replay.close()

    def state(self) -> State:
        """A copy."""
        counts = {"votes": self.votes, "attend": self.attention.left, "version": self.served.number}
        parts = {
            "drift": self.drift.state(),
            "guard": self.guard.state(),
            "novelty": self._novelty.state(),
            "dependence": self._dependence.state(),
            "stream": State(values=counts | {"rng": self._rng.bit_generator.state}),
        }
        replay = self._replay.state() if self._replay else self._unread
        return joined(parts | {"learned": joined({"alignment": self._alignment.state(), "replay": replay})})

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        self.drift.restore(state.part("drift"))
        self.guard.restore(state.part("guard"))
        self._novelty.restore(state.part("novelty"))
        self._dependence.restore(state.part("dependence"))
        self.restore_learned(state)
        values = state.part("stream").values
        self.votes, self.attention.left = int(values["votes"]), int(values["attend"])
        self._served = self._version(int(values["version"]))
        self._rng.bit_generator.state = values["rng"]

    def restore_learned(self, state: State) -> None:
        """Go back to what a copy had learned; counters, draws and the guard go on."""
        learned = state.part("learned")
        if again := self._alignment.restore(learned.part("alignment")):
            self._say("started_again", shifts=again, reason="nothing here takes in what stood in front of the trunk")
        # A state of a lower level has no tail: training starts from the factory's.
        part = learned.part("replay")
        if not self._replay:
            self._unread = part
        elif part.tensors:
            self._replay.restore(part)
        if self.drift.shifted and self.drift.shift != self._alignment.shift:
            self._turn()

    def _version(self, number: int) -> Served:
        """What would serve now."""
        if not self.active:
            return Served(number=number)
        ports = self._alignment.ports if self._level != "recenter" else None
        tail = self._replay.weights if self._replay else None
        learned = self._alignment
        return Served(number=number, ports=ports, affine=learned.affine, tail=tail, front=learned.front)

    def _raw(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        return (self._replay.serving if self._replay and self.served.tail is not None else self._tail).run(latents)

    def _again(self, votes: Seen, front: Front | None, ports: tuple[Port, ...]) -> tuple[Observed, NDArray[np.float32]]:
        observed = self._trunks.run(front, votes.frames, ports or self._trunks.factory.identity)
        return observed, self._raw(observed.latents)

    def _turn(self, *, near: bool = False) -> None:
        """Go on with what was learned of the shift that the world is in."""
        self._alignment.turn(self.drift.shift, self.drift.known, near=near)
        self.guard.forget_shape()
        if self._replay and not near:  # its latents are of another front and of other ports
            self._replay.reset()
