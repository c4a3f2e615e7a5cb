"""Front, ports and recentring together, shift by shift: what was learned of one is laid aside while the world is in another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.adapt.config import LearnerConfig
from edgessl.runtimes.adapt.equalize import Equalizer
from edgessl.runtimes.adapt.latest import Moved
from edgessl.runtimes.adapt.ports import Ports
from edgessl.runtimes.adapt.recenter import Recenter
from edgessl.runtimes.adapt.served import Affine, Front
from edgessl.runtimes.adapt.state import State, joined
from edgessl.runtimes.port import Port
from edgessl.runtimes.spectrum import Spectrum
from edgessl.runtimes.split import Observed

Floats = NDArray[np.float32]
#: what stands in front of the trunk, and positions of the ports, `None` for the identity -> what the trunk makes of the
#: votes, and their vectors before recentring
Again = Callable[[Front | None, tuple[Port, ...] | None], tuple[Observed, Floats]]


@dataclass(frozen=True, kw_only=True)
class Move:
    """Something in the trunk moved.

    Attributes:
        kind: `front` or `port`; or `withdrawn`, when a candidate was given up and nothing moved.
        numbers: Where it stands.
        by: How far vectors moved with it on average, `(dim,)`.
    """

    kind: str
    numbers: dict[str, float]
    by: NDArray[np.float64]


class Alignment:
    """Statistics of the present shift, and the correction that follows from them.

    Args:
        source: Tensors of the bundle's `source` file.
        ports: How many the trunk has.
        mixing: Numbers of those that may mix channels.
        config: How they move.
        equalizer: What moves in front of the trunk, where something can.

    Attributes:
        shift: Whose statistics these are; -1 before the first.
    """

    def __init__(
        self,
        source: Mapping[str, NDArray[Any]],
        ports: int,
        config: LearnerConfig,
        equalizer: Equalizer | None = None,
        mixing: Collection[int] = (),
    ) -> None:
        # A bundle of before has variances only.
        covariance = source.get("embedding.covariance", np.diag(source["embedding.var"]))
        self._recenter = Recenter(source["embedding.mean"], covariance, config.recenter)
        means = [source[f"port{index}.mean"] for index in range(ports)]
        spreads = [source[f"port{index}.{'covariance' if index in mixing else 'var'}"] for index in range(ports)]
        # What moves in front brings the first port's channels back; moving both gave nothing, and cost votes.
        self._ports = Ports(means, spreads, config.ports, still=1 if equalizer else 0)
        self._equalizer = equalizer
        self._config = config
        self._gap = np.zeros(len(source["embedding.mean"]))  # sum, over paired votes, of how a candidate moves vectors
        self._aside: dict[int, State] = {}
        self.shift = -1

    @property
    def affine(self) -> Affine | None:
        """What recentring does; another object when it changes."""
        return self._recenter.affine

    @property
    def ports(self) -> tuple[Port, ...] | None:
        """Positions to serve with, `None` where they are the identity; another object when they change."""
        return self._ports.values if self._ports.moves else None

    @property
    def front(self) -> Front | None:
        """What stands in front of the trunk, `None` where that is the identity; another object when it changes."""
        return self._equalizer.front if self._equalizer else None

    def stream(self, factor: float) -> Spectrum | None:
        """What the present shift's frames look like; `None` where that is not known."""
        return self._equalizer.stream(factor) if self._equalizer else None

    @property
    def moves(self) -> int:
        """Times that a port moved."""
        return self._ports.moves

    def recenter(self, vectors: Floats, factor: float) -> None:
        """Take in votes before recentring, `(votes, dim)`, of which `factor` are worth an independent one."""
        self._recenter.update(vectors, factor=factor)

    def move(
        self, observed: Observed | None, images: Floats | None, vectors: Floats, factor: float, again: Again
    ) -> Move | None:
        """Take in votes at the present positions, and hold a candidate beside them on the same frames.

        Args:
            observed: What the trunk made of them; `None` where ports do not move.
            images: The votes as the first convolution reads them; `None` where nothing moves in front of it.
            vectors: Before recentring, `(votes, dim)`.
            factor: How many of them are worth an independent one.
            again: Runs the same votes in other positions.

        Returns:
            What moved; `None` when nothing did.
        """
        if observed is not None:
            self._ports.observe(observed, factor=factor)
        if self._equalizer and images is not None and self._equalizer.observe(images, factor=factor):
            self._ports.give_way()
            self._gap = np.zeros_like(self._gap)
        waiting = self._equalizer.candidate if self._equalizer else None
        candidate = self._ports.candidate
        if not len(vectors) or candidate is None or (observed is None and waiting is None):
            return None
        # Where ports do not serve, they do not stand in the comparison either.
        present, others_at = (None, None) if observed is None else (self._ports.values, candidate)
        before = again(self.front, present)[0] if observed is None else observed
        moved, others = again(self.front if waiting is None else waiting, others_at)
        sound = np.isfinite(np.concatenate([others, *moved.means, *moved.squares], axis=1)).all(1)
        port = self._ports.port
        if not sound.any():
            return self._withdrawn(port)
        before, moved = before.rows(sound), moved.rows(sound)
        self._gap += (others - vectors)[sound].sum(0, dtype=np.float64)
        paired = self._ports.pairs + int(sound.sum())
        if not self._ports.compare(before, moved):
            return None
        by, self._gap = self._gap / paired, np.zeros_like(self._gap)
        if self._equalizer is None or waiting is None:
            kind, numbers = "port", self._ports.describe(port)
        else:
            kind, numbers = "front", self._equalizer.serve()
        self._recenter.moved(by)
        if kind == "front":
            self._recenter.fade(self._config.equalize.kept)
            self._ports.fade(self._config.equalize.kept)
        return Move(kind=kind, numbers=numbers, by=by)

    def _withdrawn(self, port: int) -> Move:
        """A candidate that gives nothing finite waits no longer."""
        self._drop_candidate()
        return Move(kind="withdrawn", numbers={"port": port}, by=self._gap)

    def moved(self, moved: Moved, factor: float) -> None:
        """Another tail gives the vectors; those of before count for less from now on."""
        tail = self._config.tail
        self._recenter.moved(moved.by, moved.grown)
        self._recenter.fade((tail.kept if moved.grown is None else tail.carried) * factor)
        if moved.grown is not None:
            self._recenter.fit(factor)

    def turn(self, shift: int, known: Collection[int], *, near: bool = False) -> None:
        """Lay aside what was learned of one shift, and go on with another where it was left.

        Args:
            shift: The one to go on with.
            known: What else is worth keeping.
            near: Where nothing was learned of it yet, what was learned of the present one is a better start than nothing.
        """
        if self.shift >= 0:
            self._aside[self.shift] = self._present()
        self._aside = {number: state for number, state in self._aside.items() if number in known}
        self.shift, learned = shift, self._aside.pop(shift, None)
        if learned is None and near:
            self._inherit()
        elif learned is None:
            self._fresh()
        else:
            self._restore(learned)

    def forget(self) -> None:
        """Start again from the factory's encoder in every shift."""
        self._aside = {}
        self._fresh()

    def finite(self) -> bool:
        """Whether every number of the present shift is."""
        return self._present().finite()

    def state(self) -> State:
        """A copy."""
        held = joined(
            {"present": self._present()} | {f"aside.{number}": state for number, state in self._aside.items()}
        )
        return State(tensors=held.tensors, values=held.values | {"shift": self.shift, "aside": sorted(self._aside)})

    def restore(self, state: State) -> int:
        """Go back to a copy.

        Returns:
            How many shifts start again from the factory: something stood in front of the trunk that this engine, precision or
            level cannot put there, and what was learned behind it is of no use without; or its ports mixed channels and these
            do not, or the other way round.
        """
        self.shift = int(state.values["shift"])
        aside = {int(number): state.part(f"aside.{number}") for number in state.values["aside"]}
        self._aside = {number: learned for number, learned in aside.items() if self._fits(learned)}
        present = state.part("present")
        if fits := self._fits(present):
            self._restore(present)
        else:
            self._fresh()
        return len(aside) - len(self._aside) + (not fits)

    def _fits(self, learned: State) -> bool:
        if not self._ports.fits(learned.part("ports")):
            return False
        front = learned.part("front")
        if self._equalizer:
            return self._equalizer.serves(front)
        return not any(name.startswith("front.") for name in front.tensors)

    def _present(self) -> State:
        gap = State(tensors={"sum": self._gap.copy()})
        parts = {"recenter": self._recenter.state(), "ports": self._ports.state(), "gap": gap}
        return joined(parts | ({"front": self._equalizer.state()} if self._equalizer else {}))

    def _restore(self, state: State) -> None:
        self._recenter.restore(state.part("recenter"))
        self._ports.restore(state.part("ports"))
        self._gap = state.part("gap").tensors["sum"].copy()
        front = state.part("front")
        if self._equalizer and front.tensors:
            self._equalizer.restore(front)
        elif self._equalizer:  # of an engine that puts nothing there
            self._equalizer.reset()
        if self._ports.port < 0 and not (self._equalizer and self._equalizer.candidate):
            self._ports.withdraw()
            self._gap = np.zeros_like(self._gap)

    def _inherit(self) -> None:
        """Serve as before, and learn anew: the statistics are of other frames than those to come."""
        kept = self._config.inherited
        self._recenter.fade(kept)
        self._ports.fade(kept)
        if self._equalizer:
            self._equalizer.fade(kept)
        self._drop_candidate()

    def _drop_candidate(self) -> None:
        self._ports.withdraw()
        if self._equalizer:
            self._equalizer.withdraw()
        self._gap = np.zeros_like(self._gap)

    def _fresh(self) -> None:
        self._recenter.reset()
        self._ports.reset()
        if self._equalizer:
            self._equalizer.reset()
        self._gap = np.zeros_like(self._gap)
