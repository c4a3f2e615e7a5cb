"""Vectors of a whole source, in its order, all at once or a batch at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import Bundle
from edgessl.errors import InputError
from edgessl.files import write_atomic
from edgessl.signals import InputSpec
from edgessl.sources import Skipped, Source

#: frames `(batch, *sample)` -> vectors `(batch, dim)`
Embed = Callable[[NDArray[Any]], NDArray[np.float32]]


class Embedder(Protocol):
    """What is asked of an encoder, watched or not."""

    bundle: Bundle

    @property
    def input(self) -> InputSpec: ...  # noqa: D102

    @property
    def dim(self) -> int: ...  # noqa: D102

    @property
    def space_id(self) -> str: ...  # noqa: D102

    @property
    def manifest(self) -> dict[str, Any]: ...  # noqa: D102

    def embed(self, frames: NDArray[Any]) -> NDArray[np.float32]: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class SourceVectors:
    """What came of a source.

    Attributes:
        vectors: `(n, dim)` of what could be read, in the source's order; NaN where a sample was quarantined.
        names: Their names, relative to the source.
        skipped: What could not be read.
        quarantined: Names of samples that hold NaN or infinity: they are neither embedded nor learned from.
    """

    vectors: NDArray[np.float32]
    names: list[str]
    skipped: list[Skipped]
    quarantined: list[str]

    def counts(self) -> dict[str, Any]:
        """How many, and which were left out, as plain values."""
        return {
            "samples": len(self.names),
            "skipped": [{"name": skipped.name, "reason": skipped.reason} for skipped in self.skipped],
            "quarantined": self.quarantined,
        }


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """What came of one batch.

    Attributes:
        names: Of the samples that could be read.
        vectors: `(n, dim)`; NaN where a sample was quarantined.
        stamps: `(n,)` seconds, where the source knows them.
        quarantined: Names of samples that hold NaN or infinity.
        done: Place in the source's names behind the batch.
    """

    names: list[str]
    vectors: NDArray[np.float32]
    stamps: NDArray[np.float64] | None
    quarantined: list[str]
    done: int


def vectors_of(
    source: Source,
    embed: Embed,
    *,
    batch: int = 32,
    strict: bool = False,
    advance: Callable[[int], None] = lambda done: None,
) -> SourceVectors:
    """Embed every sample of a source.

    Args:
        source: Samples in order.
        embed: `(batch, *sample)` -> `(batch, dim)`, NaN for a sample that is not finite: `quarantining(encoder)`, or a
            learner's `observe`.
        batch: Samples per call of `embed`, at most.
        strict: Make a sample with NaN or infinity an error.
        advance: Called with the number of samples done since the last call.

    Raises:
        InputError: The batch is empty, nothing could be read, or `strict` and a sample is not finite.
    """
    if batch < 1:
        raise InputError(f"a batch holds at least 1 sample, not {batch}")
    parts: list[NDArray[np.float32]] = []
    names: list[str] = []
    quarantined: list[str] = []
    for found in embedded(source, embed, batch=batch, strict=strict):
        parts.append(found.vectors)
        names += found.names
        quarantined += found.quarantined
        advance(len(found.names))
    if not names:
        raise nothing_read(source)
    return SourceVectors(
        vectors=np.concatenate(parts),
        names=names,
        skipped=list(source.skipped),
        quarantined=quarantined,
    )


def embedded(
    source: Source, embed: Embed, *, batch: int = 32, start: int = 0, strict: bool = False
) -> Iterator[Embedded]:
    """Embed every sample from `start` on, in order, a batch at a time; batches of unreadable samples are left out.

    Args:
        source, embed, batch, strict: As in `vectors_of`.
        start: Place in the source's names; a multiple of `batch` gives the batches that `start=0` gives.

    Raises:
        InputError: The batch is empty, or `strict` and a sample cannot be read or is not finite.
    """
    if batch < 1:
        raise InputError(f"a batch holds at least 1 sample, not {batch}")
    stamps = getattr(source, "stamps", None)
    for first in range(start, len(source), batch):
        done = min(first + batch, len(source))
        indices, frames = source.read(range(first, done))
        if not len(indices):
            continue
        names = [source.names[index] for index in indices]
        bad = [names[row] for row in np.flatnonzero(~source.spec.finite(frames))]
        if bad and strict:
            raise InputError(f"{source.name}: {bad[0]} holds NaN or infinity; leave out --strict to go on without it")
        yield Embedded(
            names=names,
            vectors=embed(frames),
            stamps=None if stamps is None else np.asarray(stamps, np.float64)[indices],
            quarantined=bad,
            done=done,
        )


def nothing_read(source: Source) -> InputError:
    """The error for a source of which nothing could be read."""
    return InputError(f"{source.name}: none of {len(source)} samples could be read{_first(source.skipped)}")


def quarantining(encoder: Embedder) -> Embed:
    """`encoder.embed`, but with NaN for samples that hold NaN or infinity, where `embed` refuses the batch."""

    def embed(frames: NDArray[Any]) -> NDArray[np.float32]:
        finite = encoder.input.finite(frames)
        if finite.all():
            return encoder.embed(frames)
        vectors = np.full((len(frames), encoder.dim), np.nan, np.float32)
        vectors[finite] = encoder.embed(frames[finite])
        return vectors

    return embed


def write_events(path: Path, events: Sequence[Mapping[str, Any]]) -> None:
    """Write what a learner did, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(json.dumps(event) + "\n" for event in events).encode())


def _first(skipped: Sequence[Skipped]) -> str:
    return f"; the first, {skipped[0].name}: {skipped[0].reason}" if skipped else ""
