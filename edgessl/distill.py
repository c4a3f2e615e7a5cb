"""Distillation: a student of another architecture or width learns its teacher's vectors, without labels.

With `placement`, it learns them as an int8 graph would give them: its weights and activations are rounded while it
learns, for a student whose int8 graph, calibrated only, is too far from its float one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgessl.blocks.fakequant import FakeQuantized
from edgessl.blocks.views import USUAL_VIEWS
from edgessl.checkpoint import read_checkpoint
from edgessl.distillation.cache import kept_vectors
from edgessl.distillation.method import Distillation, DistillationConfig, RoundedDistillation
from edgessl.distillation.objectives import relations
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import InputError
from edgessl.sources import Source
from edgessl.trainer import Run, seeded, train

__all__ = ["Distillation", "DistillationConfig", "RoundedDistillation", "distill", "relations", "usual_settings"]


def distill(
    teacher: Path,
    source: Source,
    *,
    encoder: str,
    output: Path,
    run: Run | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    config: DistillationConfig | None = None,
    start: Path | None = None,
    placement: str | None = None,
    more_teachers: Sequence[Path] = (),
    cache: Path | None = None,
) -> dict[str, Any]:
    """Train a student to give the vectors of its teacher, or of several.

    Args:
        teacher: Checkpoint folder.
        source: Samples of the shape that the teacher takes; labels are not looked at.
        encoder: The student: a key of `edgessl.encoders.ENCODERS`, or a timm model; or `same`, the encoder of `start`.
        output: The checkpoint folder to make.
        run: Steps, batch, learning rate, seed, hardware, resume; see `Run`.
        encoder_options: Settings of the student that differ from its defaults.
            With the width of the teacher both share one space.
        config: Views and loss; what `usual_settings` says when None.
        start: Checkpoint that the student begins with; for `same`, the teacher when None.
        placement: Round the student as its int8 graph will be: a name from `blocks.fakequant.PLACEMENTS`, or `auto`.
        more_teachers: Checkpoint folders of further teachers; the terms are means over all.
        cache: Folder to keep the teachers' vectors of the samples in, for `config.clean`; see `distillation.cache`.

    Returns:
        The facts in `encoder.json`.

    Raises:
        CheckpointError: A teacher, `start` or what is in the cache is missing or damaged.
        InputError: The samples have another shape than the teacher's, the settings contradict each other, or see
            `edgessl.trainer.train`.
        Interrupted: The user stopped it; the message says how to resume.
    """
    run, config = run or Run(), config or DistillationConfig(**usual_settings(placement))
    config = replace(config, views=config.views or USUAL_VIEWS[source.spec.kind])
    if cache is not None and not config.clean:
        raise InputError("what teachers say of random views cannot be kept; add --set clean=true, or leave --cache out")
    masters, parents = _teachers([teacher, *more_teachers], source)
    if start is None and encoder == "same":
        start = teacher
    if placement is not None:
        _check_rounded(teacher, encoder, start, run)
    begun: dict[str, Any] = {}
    with seeded(run.seed):
        if start is None:
            student = build_encoder(encoder, source.spec, **dict(encoder_options or {}))
        else:
            student, begun = _begun(start, encoder, source, encoder_options)
        kept = None if cache is None else _kept(cache, masters, parents, source)
        method = Distillation(student, masters, config, kept)
        if placement is not None:
            rounded = FakeQuantized(student.eval(), placement, _real_images(student, source))
            method = RoundedDistillation(student, masters, config, rounded, kept)
            begun["quantization"] = {"placement": rounded.placement}
    facts = {
        "made_by": "distill",
        "recipe": "distill",
        "config": asdict(config),
        "architecture": {"name": student.name, "options": student.options},
        "parent": parents[0],
        **({"more_teachers": parents[1:]} if more_teachers else {}),
        "shares_space": method.shares_space,
        **begun,
    }
    return train(method, source, output=output, run=run, facts=facts)


def usual_settings(placement: str | None) -> dict[str, Any]:
    """What stands in place of a default of `DistillationConfig` for a student that is rounded."""
    return {} if placement is None else {"similarity": 0.0}


def _teachers(folders: Sequence[Path], source: Source) -> tuple[dict[str, EncoderModule], list[dict[str, Any]]]:
    """Teachers by the names of their folders, and where they come from."""
    masters: dict[str, EncoderModule] = {}
    parents = []
    for folder in folders:
        master, facts = read_checkpoint(folder)
        if master.input != source.spec:
            raise InputError(
                f"{source.name} has {source.spec.dtype} samples {source.spec.shape}; the teacher in {folder} takes "
                f"{master.input.dtype} {master.input.shape}"
            )
        name = folder.resolve().name
        masters[f"{name}{len(masters) + 1}" if name in masters else name] = master
        told = {name: facts[name] for name in ("encoder", "weights_sha256")}
        parents.append({"path": str(folder), **told, "recipe": facts.get("recipe")})
    return masters, parents


def _kept(cache: Path, masters: Mapping[str, EncoderModule], parents: list[dict[str, Any]], source: Source) -> Tensor:
    pairs = zip(masters.values(), parents, strict=True)
    parts = [kept_vectors(cache, master, parent["weights_sha256"], source) for master, parent in pairs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)  # one alone stays on disk


def _begun(
    start: Path, encoder: str, source: Source, options: Mapping[str, Any] | None
) -> tuple[EncoderModule, dict[str, Any]]:
    """The encoder of a checkpoint, to be trained further, and where it came from."""
    student, facts = read_checkpoint(start)
    if encoder not in ("same", student.name):
        raise InputError(f"{start} holds encoder {student.name!r}, not {encoder!r}; type --encoder same")
    if options:
        raise InputError(f"the student's settings are those of {start}; leave --set encoder.{next(iter(options))} out")
    if student.input != source.spec:
        raise InputError(
            f"{source.name} has {source.spec.dtype} samples {source.spec.shape}; the student in {start} takes "
            f"{student.input.dtype} {student.input.shape}"
        )
    return student.train(), {"start": {"path": str(start), "weights_sha256": facts["weights_sha256"]}}


def _check_rounded(teacher: Path, encoder: str, start: Path | None, run: Run) -> None:
    if start is None:
        raise InputError(
            f"int8 goes on from a student trained in float, and {encoder!r} is to begin from nothing. Type: "
            f"edgessl distill {teacher} DATA --encoder {encoder} -o FLOAT_STUDENT, then the same with --encoder same "
            "--init FLOAT_STUDENT --int8"
        )
    if run.precision != "32-true":
        raise InputError(f"int8 rounds to steps finer than {run.precision} knows; type --precision 32-true")


@torch.no_grad()
def _real_images(student: EncoderModule, source: Source) -> list[Tensor]:
    """Up to 256 samples, evenly over the source, in batches."""
    indices = np.unique(np.linspace(0, len(source) - 1, min(256, len(source))).round().astype(int))
    _, frames = source.read(indices)
    if not len(frames):
        raise InputError(f"{source.name} has no readable frame to observe ranges on")
    return [
        student.prepare(torch.from_numpy(np.ascontiguousarray(part)))
        for part in np.split(frames, range(32, len(frames), 32))
    ]
