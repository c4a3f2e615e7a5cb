"""A source that can be read again -> a sink, in order, from where the sink stands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgessl
from edgessl.bundle import MANIFEST
from edgessl.files import sha256_of
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.engines import ENGINES
from edgessl.runtimes.sinks.base import Sink, Space
from edgessl.runtimes.vectors import Embed, Embedder, embedded
from edgessl.sources import Source


def space_of(encoder: Embedder) -> Space:
    """The space of an encoder's vectors."""
    return Space(space_id=encoder.space_id, revision=int(encoder.manifest.get("space_revision", 0)), dim=encoder.dim)


def source_key(source: Source, *, batch: int, strict: bool) -> dict[str, Any]:
    """The part of a key that tells of the samples: with another one the rows could be others."""
    return {"samples": len(source), "source": source.digest(), "batch": batch, "strict": strict}


def bundle_key(encoder: Embedder) -> dict[str, Any]:
    """The part of a key that tells of the bundle: whatever runs it, its vectors are of one space."""
    return {
        "edgessl": edgessl.__version__,
        "bundle": sha256_of(encoder.bundle.path / MANIFEST),
        "space_id": encoder.space_id,
        "space_revision": int(encoder.manifest.get("space_revision", 0)),
    }


def encoder_key(encoder: Encoder) -> dict[str, Any]:
    """`bundle_key`, and what runs it: with something else a vector could differ in a bit."""
    package = ENGINES[encoder.engine][2]
    return bundle_key(encoder) | {
        "precision": encoder.precision,
        "engine": encoder.engine,
        "engine_version": str(getattr(sys.modules.get(package), "__version__", "")),
        "threads": encoder.threads or os.cpu_count(),  # another number of them may add in another order
    }


def embed_source(
    source: Source,
    embed: Embed,
    sink: Sink,
    *,
    batch: int = 32,
    start: int = 0,
    strict: bool = False,
    advance: Callable[[int], None] = lambda done: None,
    versions: Callable[[], NDArray[np.int64]] | None = None,
) -> None:
    """Embed every sample from `start` on, and give each batch to the sink with where the source stands behind it.

    Args:
        source: Samples in order.
        embed: `(batch, *sample)` -> `(batch, dim)`; see `edgessl.runtimes.vectors.vectors_of`.
        sink: Takes them.
        batch: Samples per call of `embed`, at most.
        start: Place in the source's names: `done` of the last batch that the sink has.
        strict: Make a sample that holds NaN or infinity an error.
        advance: Called with the number of samples done since the last call.
        versions: Of the vectors that `embed` gave last; without it they are not told.

    Raises:
        InputError: The batch is empty, or `strict` and a sample cannot be used; or the sink is full.
    """
    told = 0
    for found in embedded(source, embed, batch=batch, start=start, strict=strict):
        skipped = source.skipped
        new = [[one.name, one.reason] for one in skipped[told:]]
        told = len(skipped)
        facts = {"done": found.done, "skipped": new} | ({"version": versions().tolist()} if versions else {})
        sink.write(found.names, found.stamps, found.vectors, facts)
        advance(len(found.names))
