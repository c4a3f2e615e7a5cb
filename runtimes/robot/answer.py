"""What a node says about one frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: what became of a frame: embedded; too old; more than the wanted rate; no frame that the encoder takes; the engine failed
OUTCOMES = ("embedded", "stale", "skipped", "unusable", "failed")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a node says about one frame.

    Attributes:
        outcome: A name of `OUTCOMES`.
        vector: Unit vector `(dim,)` float32; `None` unless the frame was embedded.
        version: Number of the version that embedded it; 0 is the factory's.
        space_id: Vectors of different spaces are not compared.
        drift: How far the world has moved from the one the encoder knows; above 1 a shift is seen. NaN where
            nothing watches, and before enough was seen.
        health: `ok`, or what is wrong, in a few words.
        age_s: From the capture to the answer, by the wall clock; NaN where the frame had no stamp.
        took_s: The run itself.
        reason: Why there is no vector.
    """

    outcome: str
    vector: NDArray[np.float32] | None
    version: int
    space_id: str
    drift: float
    health: str
    age_s: float
    took_s: float
    reason: str = ""

    def facts(self) -> dict[str, Any]:
        """Everything but the vector, for a message's metadata; numbers that are not known are left out."""
        told: dict[str, Any] = {"outcome": self.outcome, "version": self.version, "space_id": self.space_id}
        told |= {"health": self.health}
        told |= {name: value for name in ("drift", "age_s") if not np.isnan(value := getattr(self, name))}
        return told | ({"reason": self.reason} if self.reason else {})
