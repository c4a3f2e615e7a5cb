"""A budget that can be held back: under heat or with little memory nothing is learned."""

from __future__ import annotations

from typing import Any

from edgessl.runtimes.adapt.budget import Budget


class HeldBudget(Budget):
    """A `Budget` that grants nothing while `held` says why; empty when it is not held."""

    held = ""

    @property
    def paused(self) -> str:
        """As of a `Budget`; why it is held stands first."""
        return ", ".join(filter(None, (self.held, super().paused)))

    def grant(self, frames: int) -> int:
        """As of a `Budget`."""
        return 0 if self.held else super().grant(frames)

    def take_step(self) -> bool:
        """As of a `Budget`."""
        return not self.held and super().take_step()

    def info(self) -> dict[str, Any]:
        """As of a `Budget`."""
        return super().info() | {"paused": self.paused}
