"""Distillation: a student of another architecture or width learns its teacher's vectors, without labels.

With `placement`, it learns them as an int8 graph would give them: its weights and activations are rounded while it
learns, for a student whose int8 graph, calibrated only, is too far from its float one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgessl.blocks.fakequant import FakeQuantized
from edgessl.blocks.views import USUAL_VIEWS, ViewConfig
from edgessl.checkpoint import read_checkpoint
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import InputError
from edgessl.recipes import Defaults, Recipe, Terms, Views
from edgessl.sources import Source
from edgessl.trainer import Run, seeded, train


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Settings of the distillation.

    Attributes:
        relations: Weight of the term that compares similarities between samples; 0 leaves it out.
        temperature: Of these similarities.
        views: What teacher and student look at; None for what is usual. The same view goes to both, so strong views
            teach the student the teacher's answer to darkness and noise, too.
    """

    relations: float = 0.0
    temperature: float = 0.1
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if self.relations < 0:
            raise InputError(f"relations is a weight, 0 or more, not {self.relations}")
        if not self.temperature > 0:
            raise InputError(f"temperature must be positive, not {self.temperature}")


class Distillation(Recipe):
    """The student's vector is drawn to its teacher's, on the same view.

    With widths alike the student's own vector is compared, so that both share one space. Where they differ, a linear
    layer, thrown away afterwards, stands between. The relations term compares the two distributions of each sample's
    similarity to the others, as SEED does (Fang et al. 2021, arXiv:2101.04731), with the batch in place of its queue.
    """

    config = DistillationConfig
    defaults = Defaults(lr=2e-3, weight_decay=1e-4, batch=128)

    def __init__(self, encoder: EncoderModule, teacher: EncoderModule, config: DistillationConfig) -> None:
        super().__init__(encoder, config)
        self.project: nn.Module = nn.Identity() if encoder.dim == teacher.dim else nn.Linear(encoder.dim, teacher.dim)
        # In a tuple it is no submodule: it is not trained, not put into training mode, and not kept in each state.
        self._teacher = (teacher.eval().requires_grad_(False),)

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        """One view of each image, for both."""
        return Views((self.view(images, generator),))

    def forward(self, batch: Views) -> Terms:
        """`cosine`: 1 - cosine with the teacher; `relations`: see above."""
        (view,) = batch.views
        target = self.target(view)  # (batch, teacher dim)
        features = self.student(view)  # (batch, dim)
        terms = {"cosine": (1 - functional.cosine_similarity(self.project(features), target, dim=1)).mean()}
        if self.settings.relations:
            terms["relations"] = self.settings.relations * relations(features, target, self.settings.temperature)
        return terms

    def student(self, view: Tensor) -> Tensor:
        """The student's features `(batch, dim)`."""
        return self.encoder.features(view)

    @torch.no_grad()
    def target(self, view: Tensor) -> Tensor:
        """The teacher's unit vectors `(batch, teacher dim)`."""
        (teacher,) = self._teacher
        return functional.normalize(teacher.to(view.device).features(view), dim=1)


class RoundedDistillation(Distillation):
    """The same, with the student's weights and activations rounded as in its int8 graph.

    It goes on from a student that was trained in float, whose batch norms and dropout stay as in use.
    """

    # A tenth of what it takes to learn from the beginning: the float student is a small step away.
    defaults = Defaults(lr=2e-4, weight_decay=1e-4, batch=64)

    def __init__(
        self, encoder: EncoderModule, teacher: EncoderModule, config: DistillationConfig, rounded: FakeQuantized
    ) -> None:
        super().__init__(encoder, teacher, config)
        self.rounded = rounded

    def train(self, mode: bool = True) -> RoundedDistillation:
        """The encoder stays in eval mode: its batch norms are folded."""
        super().train(mode)
        self.encoder.eval()
        return self

    def student(self, view: Tensor) -> Tensor:
        """As the int8 graph gives them."""
        return torch.as_tensor(self.rounded(view))

    def ranges(self) -> dict[str, tuple[float, float]]:
        """As learned."""
        return self.rounded.ranges()


def relations(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Divergence between the similarities of each sample to all others, as student and teacher see them.

    Args:
        student: `(batch, dim)`.
        teacher: `(batch, teacher dim)`.
        temperature: Cosines are divided by it before the softmax over the batch.
    """
    a, b = functional.normalize(student, dim=1), functional.normalize(teacher, dim=1)
    itself = torch.eye(len(a), dtype=torch.bool, device=a.device)
    logits, targets = ((unit @ unit.T / temperature).masked_fill(itself, -1e4) for unit in (a, b))
    return functional.kl_div(logits.log_softmax(1), targets.log_softmax(1), log_target=True, reduction="batchmean")


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
) -> dict[str, Any]:
    """Train a student to give its teacher's vectors.

    Args:
        teacher: Checkpoint folder.
        source: Samples of the shape that the teacher takes; labels are not looked at.
        encoder: The student: a key of `edgessl.encoders.ENCODERS`, or a timm model; or `same`, the encoder of `start`.
        output: The checkpoint folder to make.
        run: Steps, batch, learning rate, seed, hardware, resume; see `Run`.
        encoder_options: Settings of the student that differ from its defaults.
            With the width of the teacher both share one space.
        config: Views and loss.
        start: Checkpoint that the student begins with; for `same`, the teacher when None.
        placement: Round the student as its int8 graph will be: a name from `blocks.fakequant.PLACEMENTS`, or `auto`.

    Returns:
        The facts in `encoder.json`.

    Raises:
        CheckpointError: The teacher or `start` is missing or damaged.
        InputError: The samples have another shape than the teacher's, the settings contradict each other, or see
            `edgessl.trainer.train`.
        Interrupted: The user stopped it; the message says how to resume.
    """
    run, config = run or Run(), config or DistillationConfig()
    config = replace(config, views=config.views or USUAL_VIEWS[source.spec.kind])
    master, parent = read_checkpoint(teacher)
    if master.input != source.spec:
        raise InputError(
            f"{source.name} has {source.spec.dtype} samples {source.spec.shape}; the teacher in {teacher} takes "
            f"{master.input.dtype} {master.input.shape}"
        )
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
        method = Distillation(student, master, config)
        if placement is not None:
            rounded = FakeQuantized(student.eval(), placement, _real_images(student, source))
            method = RoundedDistillation(student, master, config, rounded)
            begun["quantization"] = {"placement": rounded.placement}
    facts = {
        "made_by": "distill",
        "recipe": "distill",
        "config": asdict(config),
        "architecture": {"name": student.name, "options": student.options},
        "parent": {
            "path": str(teacher),
            "encoder": parent["encoder"],
            "weights_sha256": parent["weights_sha256"],
            "recipe": parent.get("recipe"),
        },
        "shares_space": student.dim == master.dim,
        **begun,
    }
    return train(method, source, output=output, run=run, facts=facts)


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
