"""Vectors of a whole source, in its order, and the `.npz` file that holds them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.files import write_atomic
from edgessl.runtimes.encoder import Encoder
from edgessl.sources import Skipped, Source

#: frames `(batch, *sample)` -> vectors `(batch, dim)`
Embed = Callable[[NDArray[Any]], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class SourceVectors:
    """What came of a source.

    Attributes:
        vectors: `(n, dim)` of what could be read, in the source's order; NaN where a sample was quarantined.
        names: Their names, relative to the source.
        skipped: What could not be read.
        quarantined: Names of samples that hold NaN or infinity: they are neither embedded nor learned from.
        versions: Number of the encoder's version that each vector came from, `(n,)`; 0 where nothing adapts.
    """

    vectors: NDArray[np.float32]
    names: list[str]
    skipped: list[Skipped]
    quarantined: list[str]
    versions: NDArray[np.int64]

    def counts(self) -> dict[str, Any]:
        """How many, and which were left out, as plain values."""
        return {
            "samples": len(self.names),
            "skipped": [{"name": skipped.name, "reason": skipped.reason} for skipped in self.skipped],
            "quarantined": self.quarantined,
        }


def vectors_of(
    source: Source,
    embed: Embed,
    *,
    batch: int = 32,
    strict: bool = False,
    advance: Callable[[int], None] = lambda done: None,
    versions: Callable[[], NDArray[np.int64]] | None = None,
) -> SourceVectors:
    """Embed every sample of a source.

    Args:
        source: Samples in order.
        embed: `(batch, *sample)` -> `(batch, dim)`, NaN for a sample that is not finite: `quarantining(encoder)`, or a
            learner's `observe`.
        batch: Samples per call of `embed`, at most.
        strict: Make a sample with NaN or infinity an error.
        advance: Called with the number of samples done since the last call.
        versions: Of the vectors that `embed` gave last, `(batch,)`; without it all are 0.

    Raises:
        InputError: The batch is empty, nothing could be read, or `strict` and a sample is not finite.
    """
    if batch < 1:
        raise InputError(f"a batch holds at least 1 sample, not {batch}")
    parts: list[NDArray[np.float32]] = []
    made_by: list[NDArray[np.int64]] = []
    names: list[str] = []
    quarantined: list[str] = []
    for samples in source.batches(batch):
        finite = source.spec.finite(samples.frames)
        bad = [samples.names[row] for row in np.flatnonzero(~finite)]
        if bad and strict:
            raise InputError(f"{source.name}: {bad[0]} holds NaN or infinity; leave out --strict to go on without it")
        parts.append(embed(samples.frames))
        made_by.append(versions() if versions else np.zeros(len(samples.names), np.int64))
        names += samples.names
        quarantined += bad
        advance(len(samples.names))
    if not names:
        raise InputError(f"{source.name}: none of {len(source)} samples could be read{_first(source.skipped)}")
    return SourceVectors(
        vectors=np.concatenate(parts),
        names=names,
        skipped=list(source.skipped),
        quarantined=quarantined,
        versions=np.concatenate(made_by),
    )


def quarantining(encoder: Encoder) -> Embed:
    """`encoder.embed`, but with NaN for samples that hold NaN or infinity, where `embed` refuses the batch."""

    def embed(frames: NDArray[Any]) -> NDArray[np.float32]:
        finite = encoder.input.finite(frames)
        if finite.all():
            return encoder.embed(frames)
        vectors = np.full((len(frames), encoder.dim), np.nan, np.float32)
        vectors[finite] = encoder.embed(frames[finite])
        return vectors

    return embed


def write_vectors(path: Path, found: SourceVectors, space_id: str, space_revision: int = 0) -> None:
    """Write an `.npz` file, whole or not at all.

    `vectors` `(n, dim)` float32, `names` `(n,)`, `version` `(n,)` int64: of the encoder, as it adapted; `space_id` `()` and
    `space_revision` `()` int64: of the bundle. The names are an array of unicode strings, so that `np.load` reads them
    without `allow_pickle`.
    """
    content = io.BytesIO()
    np.savez(
        content,
        vectors=found.vectors,
        names=np.array(found.names, dtype=np.str_),
        version=found.versions.astype(np.int64),
        space_id=np.str_(space_id),
        space_revision=np.int64(space_revision),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content.getvalue())


def write_events(path: Path, events: Sequence[Mapping[str, Any]]) -> None:
    """Write what a learner did, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(json.dumps(event) + "\n" for event in events).encode())


def _first(skipped: Sequence[Skipped]) -> str:
    return f"; the first, {skipped[0].name}: {skipped[0].reason}" if skipped else ""
