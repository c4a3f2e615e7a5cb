"""The shifts that are known, each by how far and where frames move in it, and the one that the world is in."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgessl.runtimes.adapt.displacement import Floats64, near
from edgessl.runtimes.adapt.state import State

_FORGETS = 0.1  # of a signature, with each block of votes: dusk moves a shift


class Shifts:
    """Mean displacements `(dim,)` by the number of the shift.

    Args:
        most: Shifts that are remembered.

    Attributes:
        present: Number of the shift that the world is in, or was in last; -1 before the first.
        signatures: Mean displacement, clipped.
        places: The same of votes, hardly clipped: two strong shifts differ in that alone.
        counts: Blocks of votes.
    """

    def __init__(self, most: int) -> None:
        self._most, self._next = most, 0
        self.present = -1
        self.signatures: dict[int, Floats64] = {}
        self.places: dict[int, Floats64] = {}
        self.counts: dict[int, int] = {}

    @property
    def signature(self) -> Floats64 | None:
        """Of the present shift; `None` before the first."""
        return self.signatures.get(self.present)

    def choose(self, here: Floats64, known: Mapping[int, Floats64], noise: float, share: float) -> bool:
        """Make the one of these shifts that `here` is of, squared error `noise`, the present one; whether there is one."""
        found = [number for number, one in known.items() if near(here, one, noise, share)]
        if found:
            self.nearest(here, {number: known[number] for number in found})
        return bool(found)

    def nearest(self, here: Floats64, known: Mapping[int, Floats64]) -> None:
        """Make the one of these shifts that lies nearest the present one."""
        self.present = min(known, key=lambda number: float(np.square(here - known[number]).sum()))

    def know(self, here: Floats64, place: Floats64 | None = None) -> None:
        """Remember another shift, the present one from now on."""
        self.present, self._next = self._next, self._next + 1
        self.signatures[self.present], self.counts[self.present] = here, 0
        if place is not None:
            self.places[self.present] = place
        if len(self.signatures) > self._most:  # the one that was confirmed least makes room
            others = (number for number in self.signatures if number != self.present)
            least = min(others, key=lambda number: (self.counts[number], number))
            del self.signatures[least], self.counts[least]
            self.places.pop(least, None)

    def put(self, here: Floats64, place: Floats64) -> None:
        """The present shift lies here."""
        self.signatures[self.present], self.places[self.present] = here, place

    def follow(self, here: Floats64, place: Floats64) -> None:
        """A block of votes of the present shift: a mean at first, then slowly forgetting."""
        self.counts[self.present] += 1
        rate = max(_FORGETS, 1 / self.counts[self.present])
        signature, known = self.signatures[self.present], self.places.get(self.present, place)
        self.put((1 - rate) * signature + rate * here, (1 - rate) * known + rate * place)

    def state(self) -> State:
        """A copy."""
        tensors = {f"signature.{number}": signature.copy() for number, signature in self.signatures.items()}
        tensors |= {f"place.{number}": place.copy() for number, place in self.places.items()}
        counts = {str(number): count for number, count in self.counts.items()}
        return State(tensors=tensors, values={"shift": self.present, "next": self._next, "counts": counts})

    def restore(self, state: State) -> None:
        """Go back to a copy."""
        tensors, values = state.tensors, state.values
        self.counts = {int(number): int(count) for number, count in values["counts"].items()}
        self.signatures = {number: tensors[f"signature.{number}"].copy() for number in self.counts}
        self.places = {
            number: tensors[f"place.{number}"].copy() for number in self.counts if f"place.{number}" in tensors
        }
        self.present, self._next = int(values["shift"]), int(values["next"])
