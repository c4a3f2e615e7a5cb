"""What a part of the learner remembers: arrays, and plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class State:
    """A copy that nothing else changes.

    Attributes:
        tensors: Arrays by name.
        values: What JSON can hold, by name.
    """

    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def part(self, name: str) -> State:
        """The entries that `joined` put under `name`."""
        prefix = f"{name}."
        return State(
            tensors={key[len(prefix) :]: value for key, value in self.tensors.items() if key.startswith(prefix)},
            values={key[len(prefix) :]: value for key, value in self.values.items() if key.startswith(prefix)},
        )

    def finite(self) -> bool:
        """Every number is."""
        return all(
            bool(np.isfinite(value).all()) for value in self.tensors.values() if np.issubdtype(value.dtype, np.floating)
        )


def joined(parts: dict[str, State]) -> State:
    """One state of several, each under its name."""
    return State(
        tensors={f"{name}.{key}": value for name, part in parts.items() for key, value in part.tensors.items()},
        values={f"{name}.{key}": value for name, part in parts.items() for key, value in part.values.items()},
    )
