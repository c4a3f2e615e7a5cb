"""Who is measured: checkpoints and bundles, each beside itself untrained, and raw samples beside them all."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional

from edgessl.bundle import MANIFEST, open_bundle
from edgessl.checkpoint import read_checkpoint
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.metrics import Vectors
from edgessl.signals import InputSpec
from edgessl.sources.base import Frames
from edgessl.trainer import seeded

#: frames `(batch, *shape)` -> vectors `(batch, dim)`
Embed = Callable[[Frames], Vectors]

RAW_PIXELS, RAW_PIXELS_A_SIDE = "raw pixels", 32
RAW_SERIES, RAW_STEPS = "raw series", 256


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One embedding.

    Attributes:
        name: Of its row: the path of the checkpoint or bundle, `untrained NAME`, `raw pixels` or `raw series`.
        embed: Samples -> vectors.
        encoder: What can be looked into; None for bundles and raw samples.
        family: Recipe and encoder, which runs that differ in their seed share; empty for all but subjects.
        architecture: Its encoder, see `Architectures`; empty when that is not known.
        seed: Of its initial weights.
        raw: `image` or `series` for raw samples; else empty.
    """

    name: str
    embed: Embed
    encoder: EncoderModule | None = None
    family: str = ""
    architecture: str = ""
    seed: int = 0
    raw: Literal["", "image", "series"] = ""


@dataclass(frozen=True, kw_only=True)
class Contenders:
    """Everyone in one comparison.

    Attributes:
        subjects: As they were named.
        untrained: (architecture, seed of the weights) -> the same encoder before training.
        raw: Samples as they are.
        notes: Sentences for the reader.
    """

    subjects: tuple[Contender, ...]
    untrained: dict[tuple[str, int], Contender]
    raw: Contender
    notes: tuple[str, ...]

    def rival(self, subject: Contender, repeat: int) -> Contender | None:
        """What `subject` stands beside in that repeat: itself untrained, where that is known."""
        return self.untrained.get((subject.architecture, subject.seed + repeat))


def contenders(subjects: Sequence[Path], spec: InputSpec, *, seeds: int, seed: int, opened: ExitStack) -> Contenders:
    """Open the subjects and build each untrained, once per repeat.

    The first repeat has the initial weights that the training began with, where the checkpoint says its seed; the next have
    those of the seeds that follow.

    Args:
        subjects: Checkpoint or bundle folders, each named once.
        spec: What one sample is.
        seeds: How many repeats.
        seed: Of the weights where a subject does not say its own.
        opened: Closes the engines.

    Raises:
        IntegrityError: A checkpoint or bundle is damaged.
    """
    found: list[Contender] = []
    untrained: dict[tuple[str, int], Contender] = {}
    architectures = Architectures()
    notes: list[str] = []
    for subject in dict.fromkeys(subjects):
        encoder: EncoderModule | None = None
        if (subject / MANIFEST).is_file():
            from edgessl.runtimes.encoder import open_encoder

            embed: Embed = opened.enter_context(open_encoder(subject)).embed
            manifest = open_bundle(subject, verify=False).manifest
            made: Any = manifest.get("encoder")
            facts = (manifest.get("provenance") or {}).get("checkpoint") or {}
        else:
            encoder, facts = read_checkpoint(subject)
            embed, made = module_embed(encoder), facts["encoder"]
        own = facts.get("seed")
        start = own if isinstance(own, int) else seed
        name, options = _architecture(made)
        architecture = architectures.called(name, options, subject)
        method = facts.get("recipe") or facts.get("made_by") or "unknown"
        kind = " (bundle)" if encoder is None else ""
        found.append(
            Contender(
                name=str(subject),
                embed=embed,
                encoder=encoder,
                family=f"{method} {architecture}{kind}",
                architecture=architecture,
                seed=start,
            )
        )
        if not name:
            notes.append(f"{subject} does not say which encoder it holds, so there is no untrained row for it")
            continue
        for weights in range(start, start + seeds):
            if (architecture, weights) not in untrained:
                with seeded(weights):
                    fresh = build_encoder(name, spec, **options)
                untrained[architecture, weights] = Contender(
                    name=f"untrained {architecture}",
                    embed=module_embed(fresh),
                    encoder=fresh,
                    architecture=architecture,
                    seed=weights,
                )
    raw = Contender(name=RAW_PIXELS, embed=raw_pixels, raw="image")
    if spec.kind != "image":
        raw = Contender(name=RAW_SERIES, embed=raw_series, raw="series")
    return Contenders(subjects=tuple(found), untrained=untrained, raw=raw, notes=tuple(notes))


def raw_pixels(frames: Frames) -> Vectors:
    """Frames as vectors, at most 32 pixels a side (averaged), values in 0..1."""
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
    sides = [min(side, RAW_PIXELS_A_SIDE) for side in images.shape[2:]]
    return np.asarray(functional.interpolate(images, sides, mode="area").flatten(1).numpy(), np.float32)


def raw_series(series: Frames) -> Vectors:
    """Series `(batch, channels, time)` as vectors, at most 256 time steps of each channel (averaged)."""
    values = torch.from_numpy(np.ascontiguousarray(series)).float()
    values = functional.adaptive_avg_pool1d(values, min(values.shape[2], RAW_STEPS))
    return np.asarray(values.flatten(1).numpy(), np.float32)


def module_embed(encoder: EncoderModule) -> Embed:
    """The encoder, in eval mode and where the fastest device is, on numpy frames."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder.eval().to(device)

    @torch.inference_mode()
    def embed(frames: Frames) -> Vectors:
        checked = encoder.input.check(frames)
        return np.asarray(encoder(torch.from_numpy(checked).to(device)).float().cpu().numpy(), np.float32)

    return embed


class Architectures:
    """What encoders are called: name and settings, without the scale of the channels, which is long and says nothing.

    Two that differ in nothing but the scale, for they were trained on other data, are told apart by their first subject.
    """

    def __init__(self) -> None:
        self._known: list[tuple[str, dict[str, Any], str]] = []

    def called(self, name: str, options: dict[str, Any], subject: Path) -> str:
        """The same text for the same name and options, and for no other; empty for no name."""
        for known, settings, text in self._known:
            if (known, settings) == (name, options):
                return text
        shown = [f"{key}={_plain(value)}" for key, value in options.items() if key not in ("mean", "std")]
        text = " ".join([name, *shown])
        if any(text == known for _, _, known in self._known):
            text = f"{text} of {subject}"
        self._known.append((name, options, text))
        return text


def _plain(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _architecture(made: Any) -> tuple[str, dict[str, Any]]:
    """Name and options of an encoder, as facts tell them; weights from elsewhere are no part of it."""
    if not isinstance(made, dict) or "name" not in made:
        return "", {}
    return made["name"], {key: value for key, value in made.get("options", {}).items() if key != "pretrained"}
