"""What the tail replays: trunk latents of two views in int8, and where the frame lay in the embedding space. No images.

Sequential frames destroy self-supervised learning, and a memory that keeps what is different restores it (MinRed,
Purushwalkam et al. 2022): when it is full, one of the two entries that are most alike makes room.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.metrics import unit
from edgessl.runtimes.adapt.state import State

_AT_ONCE = 64  # latents that are floats at the same time


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """How much is held.

    Attributes:
        budget_bytes: All that is held of the stream may take, exactly.
        latest: Share of it that is for the latest votes' latents (`latest.py`); the entries have the rest.
        entries: At most so many, because admission compares with all of them.
        novelty: Least cosine distance to everything held.
    """

    budget_bytes: int = 5 * 2**20
    latest: float = 0.4
    entries: int = 512
    novelty: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.latest < 1:
            raise InputError(f"the latest votes' share of the memory must lie between 0 and 1, not {self.latest}")

    @property
    def latest_bytes(self) -> int:
        """What the latest votes' latents may take."""
        return int(self.latest * self.budget_bytes)


@dataclass(frozen=True)
class Rounded:
    """Latents in int8: as floats, a few at a time, they are what a run takes in.

    Attributes:
        values: `(n, *latent)` int8.
        scale: One step per channel, in the shape that multiplies `values`.
    """

    values: NDArray[np.int8]
    scale: NDArray[np.float32]

    @classmethod
    def of(cls, latents: NDArray[np.floating], scale: NDArray[np.float32]) -> Rounded:
        """Those of `latents` `(n, *latent)`."""
        return cls(np.asarray(np.clip(np.rint(latents / scale), -127, 127), np.int8), scale)

    def rows(self, chosen: NDArray[np.intp] | slice) -> NDArray[np.float32]:
        """Some of them as floats."""
        return np.asarray(self.values[chosen] * self.scale, np.float32)

    def through(self, run: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> NDArray[np.float32]:
        """What `run` gives for all of them, `(n, dim)`."""
        starts = range(0, len(self.values), _AT_ONCE)
        return np.concatenate([run(self.rows(slice(start, start + _AT_ONCE))) for start in starts])


class Memory:
    """Latents `(2, *latent)` int8 and a reference vector `(dim,)` float32 per entry.

    Args:
        latent: Shape of one latent.
        dim: Length of a vector.
        scale: One int8 step, per latent channel.
        channel_axis: Of the latent's channels in a batch.
        config: How much is held.

    Attributes:
        scale: The steps, in the shape that multiplies a batch of latents.

    Raises:
        InputError: The budget does not hold two entries.
    """

    def __init__(
        self, latent: tuple[int, ...], dim: int, scale: NDArray[np.floating], channel_axis: int, config: MemoryConfig
    ) -> None:
        self._config = config
        shape = [1] * (len(latent) + 1)
        shape[channel_axis] = len(scale)
        self.scale = np.maximum(scale.astype(np.float32), np.float32(1e-12)).reshape(shape)
        self.entry_bytes = 2 * int(np.prod(latent)) + 4 * dim
        self.capacity = min(config.entries, (config.budget_bytes - config.latest_bytes) // self.entry_bytes)
        if self.capacity < 2:
            raise InputError(
                f"a memory of {config.budget_bytes} bytes holds {self.capacity} entries of {self.entry_bytes} bytes; "
                f"give it at least {math.ceil(2 * self.entry_bytes / (1 - config.latest))}"
            )
        self._latents = np.zeros((0, 2, *latent), np.int8)
        self.references = np.zeros((0, dim), np.float32)

    def __len__(self) -> int:
        return len(self.references)

    @property
    def size_bytes(self) -> int:
        """What the entries take."""
        return int(self._latents.nbytes + self.references.nbytes)

    def novelty(self, vector: NDArray[np.float32]) -> float:
        """Cosine distance of a unit vector `(dim,)` to the nearest reference; 2 when nothing is held."""
        return 1.0 - float((self.references @ vector).max()) if len(self) else 2.0

    def wants(self, vector: NDArray[np.float32]) -> bool:
        """Whether a frame with this reference would be admitted now."""
        return self.novelty(vector) >= self._config.novelty

    def admit(self, a: NDArray[np.float32], b: NDArray[np.float32], reference: NDArray[np.float32]) -> bool:
        """Offer the latents `(*latent)` of two views of one frame, and its vector `(dim,)`.

        Returns:
            Whether they are held now. Numbers that are not finite never are.
        """
        if not (np.isfinite(a).all() and np.isfinite(b).all() and np.isfinite(reference).all()):
            return False
        reference = unit(reference[None])[0].astype(np.float32)
        if not self.wants(reference):
            return False
        entry = Rounded.of(np.stack([a, b]), self.scale).values[None]  # (1, 2, *latent)
        if len(self) == self.capacity:
            out = self._redundant(reference)
            self._latents = np.delete(self._latents, out, 0)
            self.references = np.delete(self.references, out, 0)
        self._latents = np.concatenate([self._latents, entry])
        self.references = np.concatenate([self.references, reference[None]])
        return True

    def sample(
        self, count: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Draw entries without repeating one: latents of both views `(count, *latent)`, references `(count, dim)`."""
        rows = rng.choice(len(self), size=count, replace=False)
        a, b = self._latents[rows, 0], self._latents[rows, 1]
        return a * self.scale, b * self.scale, self.references[rows]

    def latents(self, view: int = 0) -> Rounded:
        """A view, 0 or 1, of everything held, `(n, *latent)`."""
        return Rounded(self._latents[:, view], self.scale)

    def clear(self) -> None:
        """Forget everything."""
        self._latents, self.references = self._latents[:0], self.references[:0]

    def state(self) -> State:
        """A copy."""
        return State(tensors={"latents": self._latents.copy(), "references": self.references.copy()})

    def restore(self, state: State) -> None:
        """Go back to a copy, newest entries first when the budget has shrunk since."""
        self._latents = state.tensors["latents"][-self.capacity :].copy()
        self.references = state.tensors["references"][-self.capacity :].copy()

    def _redundant(self, offered: NDArray[np.float32]) -> int:
        """Which entry goes: the older one of the closest pair, the offered one counted as the newest."""
        everyone = np.concatenate([self.references, offered[None]])
        similar = everyone @ everyone.T
        np.fill_diagonal(similar, -np.inf)
        first, second = np.unravel_index(int(similar.argmax()), similar.shape)
        return int(min(first, second))
