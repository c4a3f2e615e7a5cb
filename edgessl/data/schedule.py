"""Which samples each training step takes: a function of the seed and the step, and of nothing that happened before."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from edgessl.errors import InputError
from edgessl.sources.base import Indices


class StepSchedule(Sampler[Indices]):
    """The batches of training, one chunk of steps per iteration.

    Every pass over the data has its own order, drawn from (seed, pass); samples left over at the end of a pass, too few
    for a batch, wait for the next one. A chunk is what Lightning calls an epoch: `set_epoch(k)` makes the next
    iteration give steps `k * chunk` to `(k + 1) * chunk - 1`.

    Args:
        count: Samples there are.
        batch: Samples per step, over all devices.
        seed: Seeds the orders.
        chunk: Steps per iteration.
        first: Chunk to begin with.
        rank, world: This process takes every `world`-th sample of a batch, from `rank` on.

    Raises:
        InputError: The batch is larger than the data, or cannot be shared evenly.
    """

    def __init__(
        self, count: int, *, batch: int, seed: int, chunk: int, first: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if not 2 <= batch <= count:
            raise InputError(f"a batch of {batch} cannot be taken from {count} samples; type --batch with 2 to {count}")
        if batch % world:
            raise InputError(
                f"a batch of {batch} cannot be shared by {world} devices; type --batch {batch // world * world}"
            )
        self._count, self._batch, self._seed, self._chunk = count, batch, seed, chunk
        self._rank, self._world = rank, world
        self._epoch = first
        self._order: tuple[int, Indices] | None = None

    @property
    def steps_per_pass(self) -> int:
        """Steps until every sample was seen once."""
        return self._count // self._batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the chunk that the next iteration gives."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._chunk

    def __iter__(self) -> Iterator[Indices]:
        first = self._epoch * self._chunk
        for step in range(first, first + self._chunk):
            yield self.samples_of(step)

    def samples_of(self, step: int) -> Indices:
        """Positions of the samples of this step that this process takes: `(batch / world,)`."""
        turn, place = divmod(step, self.steps_per_pass)
        if self._order is None or self._order[0] != turn:
            order = np.random.default_rng([self._seed, turn]).permutation(self._count)
            self._order = turn, order.astype(np.int64)
        batch = self._order[1][place * self._batch : (place + 1) * self._batch]
        return batch[self._rank :: self._world]
