"""How good embeddings are, always beside the same encoder untrained and beside raw pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edgessl.bundle import MANIFEST, open_bundle
from edgessl.checkpoint import read_checkpoint
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import InputError
from edgessl.evaluation.probes import linear_probe
from edgessl.metrics import Vectors, knn_accuracy, rankme
from edgessl.signals import InputSpec
from edgessl.sources import Source
from edgessl.sources.base import Frames, Indices
from edgessl.trainer import seeded

#: frames `(batch, *shape)` -> vectors `(batch, dim)`
Embed = Callable[[Frames], Vectors]

RAW_PIXELS, RAW_PIXELS_A_SIDE = "raw pixels", 32
RANKME_SAMPLES = 2048


@dataclass(frozen=True, kw_only=True)
class Row:
    """The figures of one embedding.

    Attributes:
        name: The path of the checkpoint or bundle, `untrained NAME`, or `raw pixels` (mean removed).
        dim: Width of the vectors.
        knn: Accuracy of the weighted vote of 20 nearest neighbours; None without labels.
        linear: Accuracy of a linear probe; None without labels.
        rankme: Effective rank of the test vectors: how many directions they use.
    """

    name: str
    dim: int
    knn: float | None
    linear: float | None
    rankme: float

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Rows of figures, and what must be said about them.

    Attributes:
        rows: The subjects, then the untrained encoders, then raw pixels.
        bank, queries: Samples that neighbours and probe learn from, and samples they are tested on.
        notes: Sentences for the reader.
    """

    rows: tuple[Row, ...]
    bank: int
    queries: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self) | {"rows": [row.to_json() for row in self.rows], "notes": list(self.notes)}


def evaluate(
    subjects: Sequence[Path], train: Source, test: Source | None = None, *, linear: bool = True, seed: int = 0
) -> Evaluation:
    """Embed samples with checkpoints and bundles, and compare with labels where there are any.

    Args:
        subjects: Checkpoint or bundle folders, all for samples of this shape.
        train: Bank of the nearest neighbours, and training samples of the linear probe.
        test: Samples to classify; without it a fifth of `train`, drawn by `seed`, is held out.
        linear: Fit the linear probe.
        seed: Of the untrained weights and of the held-out fifth.

    Raises:
        InputError: The samples do not fit a subject, or the two sources differ in their classes.
        IntegrityError: A checkpoint or bundle is damaged.
    """
    notes: list[str] = []
    with ExitStack() as opened:
        embedders = _embedders(subjects, train.spec, seed, opened, notes)
        vectors, kept = _embed(embedders, train)
        if test is None:
            queries, kept_queries = vectors, kept
            held_out = np.random.default_rng(seed).permutation(len(kept)) < len(kept) // 5
            bank_rows, query_rows = np.flatnonzero(~held_out), np.flatnonzero(held_out)
            notes.append("a fifth of the samples is held out; frames of one recording may lie on both sides")
        else:
            queries, kept_queries = _embed(embedders, test)
            bank_rows, query_rows = np.arange(len(kept)), np.arange(len(kept_queries))
    if min(len(bank_rows), len(query_rows)) < 2:
        raise InputError(f"{train.name} has {len(kept)} samples that can be read, too few to evaluate on")
    labels = _labels(train, kept, test or train, kept_queries)
    if labels is None:
        notes.append("there are no labels, so there is no accuracy; RankMe says how many directions the vectors use")
    rows = []
    for name in embedders:
        bank, query = vectors[name][bank_rows], queries[name][query_rows]
        if name == RAW_PIXELS:
            # With their mean removed pixels are the stronger opponent: .42 instead of .33 on CIFAR-10.
            bank, query = bank - bank.mean(0), query - bank.mean(0)
        known = None if labels is None else (labels[0][bank_rows], labels[1][query_rows])
        rows.append(
            Row(
                name=name,
                dim=bank.shape[1],
                knn=None if known is None else knn_accuracy(query, known[1], bank, known[0]),
                linear=None if known is None or not linear else linear_probe(query, known[1], bank, known[0]),
                rankme=rankme(query[:RANKME_SAMPLES]),
            )
        )
    for source in [train] if test is None else [train, test]:
        notes += [f"{len(source.skipped)} unreadable samples of {source.name} are left out"] * bool(source.skipped)
    return Evaluation(rows=tuple(rows), bank=len(bank_rows), queries=len(query_rows), notes=tuple(notes))


def raw_pixels(frames: Frames) -> Vectors:
    """Frames as vectors, at most 32 pixels a side (averaged), values in 0..1."""
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
    sides = [min(side, RAW_PIXELS_A_SIDE) for side in images.shape[2:]]
    return np.asarray(functional.interpolate(images, sides, mode="area").flatten(1).numpy(), np.float32)


def module_embed(encoder: EncoderModule) -> Embed:
    """The encoder, in eval mode and where the fastest device is, on numpy frames."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder.eval().to(device)

    @torch.inference_mode()
    def embed(frames: Frames) -> Vectors:
        checked = encoder.input.check(frames)
        return np.asarray(encoder(torch.from_numpy(checked).to(device)).float().cpu().numpy(), np.float32)

    return embed


def _embedders(
    subjects: Sequence[Path], spec: InputSpec, seed: int, opened: ExitStack, notes: list[str]
) -> dict[str, Embed]:
    found: dict[str, Embed] = {}
    untrained: dict[str, Embed] = {}
    for subject in subjects:
        if (subject / MANIFEST).is_file():
            from edgessl.runtimes.encoder import open_encoder

            runtime = opened.enter_context(open_encoder(subject))
            found[str(subject)] = runtime.embed
            made: Any = open_bundle(subject, verify=False).manifest.get("encoder", {})
        else:
            encoder, facts = read_checkpoint(subject)
            found[str(subject)] = module_embed(encoder)
            made = facts["encoder"]
        if not isinstance(made, dict) or "name" not in made:
            notes.append(f"{subject} does not say which encoder it holds, so there is no untrained row for it")
            continue
        options = {key: value for key, value in made.get("options", {}).items() if key != "pretrained"}
        with seeded(seed):
            fresh = build_encoder(made["name"], spec, **options)
        told = f"untrained {made['name']}" + (f" {options}" if options else "")
        untrained[told] = module_embed(fresh)
    pixels = {RAW_PIXELS: raw_pixels} if spec.kind == "image" else {}
    return {**found, **untrained, **pixels}


def _embed(embedders: dict[str, Embed], source: Source) -> tuple[dict[str, Vectors], Indices]:
    """Vectors of every readable sample by every embedder, in one pass, and the samples' indices."""
    vectors: dict[str, list[Vectors]] = {name: [] for name in embedders}
    kept: list[Indices] = []
    for batch in source.batches(256):
        kept.append(batch.indices)
        for name, embed in embedders.items():
            vectors[name].append(embed(batch.frames))
    if not kept:
        raise InputError(f"no sample of {source.name} can be read")
    return {name: np.concatenate(parts) for name, parts in vectors.items()}, np.concatenate(kept)


def _labels(
    train: Source, kept: Indices, test: Source, kept_queries: Indices
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Labels of the kept samples, both in the classes of `train`."""
    if train.labels is None or test.labels is None:
        return None
    strange = sorted(set(test.classes) - set(train.classes))
    if strange:
        raise InputError(f"{test.name} has classes that {train.name} lacks: {', '.join(strange[:5])}")
    place = np.array([train.classes.index(name) for name in test.classes])
    return train.labels[kept], place[test.labels[kept_queries]]
