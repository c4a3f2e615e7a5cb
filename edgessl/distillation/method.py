"""The student's side of a distillation: projectors, terms, and what teacher and student look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgessl.blocks.fakequant import FakeQuantized
from edgessl.blocks.gather import gathered
from edgessl.blocks.queue import Queue
from edgessl.blocks.views import ViewConfig
from edgessl.distillation.maps import last_latent, map_of
from edgessl.distillation.objectives import cosine, relations, similarity
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes import Defaults, Recipe, Terms, Views


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Settings of the distillation; a weight of 0 leaves its term out.

    The default, the cosine and a little of SEED, is what was best of those that let a student of its teacher's width share the
    teacher's space, in `benchmarks/distillation.py`: 20-NN on CIFAR-10 after 200 steps, one seed, teacher .540. With the
    teacher seeing the sample: cosine .477, with SEED .491, with relations .468. Where the space need not be shared, hidden=512
    is better: .504 with the cosine alone. With both seeing the same view: cosine .475, with tokens .452, and with SimCLR's strong
    views in place of crops and flips .445. For a student that learns with its values rounded, already near to its teacher, the
    default is the cosine alone; that was not compared.

    Attributes:
        feature: Weight of the cosine between the projected student and its teacher.
        hidden: Width of the projector's hidden layer; 0 for a linear layer, or nothing where one teacher has the
            student's width.
        similarity: Weight of the term that compares similarities to a queue of the teacher's vectors, as SEED does.
        queue: Vectors in it; the paper has 65,536.
        student_temperature, teacher_temperature: Of these similarities; the paper's.
        relations: Weight of the term that compares similarities between the samples of a batch, as CompRess does.
        temperature: Of these.
        tokens: Weight of the cosine between the last maps, place by place, through a linear layer.
        clean: The teacher sees the sample itself, the student a view of it; else both see the same view, so that strong
            views teach the student the teacher's answer to darkness and noise, too. What the teacher says of the sample
            itself can be kept on disk.
        views: What is looked at; None for what is usual.
    """

    feature: float = 1.0
    hidden: int = 0
    similarity: float = 0.2
    queue: int = 4096
    student_temperature: float = 0.2
    teacher_temperature: float = 0.01
    relations: float = 0.0
    temperature: float = 0.1
    tokens: float = 0.0
    clean: bool = False
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        weights = {name: getattr(self, name) for name in ("feature", "similarity", "relations", "tokens")}
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise InputError(f"{name} is a weight, 0 or more, not {weight}")
        if not any(weights.values()):
            raise InputError(f"nothing to learn: {', '.join(weights)} are all 0; type --set feature=1")
        for name in ("temperature", "student_temperature", "teacher_temperature"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, not {getattr(self, name)}")
        if self.queue < 1:
            raise InputError(f"queue counts vectors, 1 or more, not {self.queue}")
        if self.hidden < 0:
            raise InputError(f"hidden is a width, or 0 for a linear projector, not {self.hidden}")
        if self.clean and self.tokens:
            raise InputError(
                "a crop has other places than its sample, so tokens cannot be compared with it; leave tokens=0 or clean=false"
            )


class Distillation(Recipe):
    """The student's vector is drawn to those of its teachers.

    With one teacher of the student's width the student's own vector is compared, so that both share one space. Otherwise
    a projector per teacher, thrown away afterwards, stands between. Terms are means over the teachers; with several,
    their names end in the teacher's.

    Args:
        encoder: The student.
        teachers: By name; an encoder alone is one teacher.
        config: Objectives and views.
        kept: What the teachers say of each sample of the source, unit vectors `(samples, dims of all teachers)` in their
            order, so that they need not be asked; see `edgessl.distillation.cache`.
    """

    config = DistillationConfig
    defaults = Defaults(lr=2e-3, weight_decay=1e-4, batch=128)

    def __init__(
        self,
        encoder: EncoderModule,
        teachers: EncoderModule | dict[str, EncoderModule],
        config: DistillationConfig,
        kept: Tensor | None = None,
    ) -> None:
        super().__init__(encoder, config)
        named = {"": teachers} if isinstance(teachers, EncoderModule) else dict(teachers)
        masters = list(named.values())
        self._endings = [f"_{name}" if len(named) > 1 else "" for name in named]
        self.shares_space = len(masters) == 1 and encoder.dim == masters[0].dim and not config.hidden
        self.project = nn.ModuleList(
            nn.Identity() if self.shares_space else _projector(encoder.dim, config.hidden, master.dim)
            for master in masters
        )
        self.queues = nn.ModuleList(Queue(config.queue, master.dim) for master in masters if config.similarity)
        self.places = nn.ModuleList(
            nn.Conv2d(encoder.channels[-1], master.channels[-1], 1) for master in masters if config.tokens
        )
        # In a tuple they are no submodules: not trained, not put into training mode, and not kept in each state.
        self._teachers = tuple(master.eval().requires_grad_(False) for master in masters)
        self._kept = (kept,)

    def views(self, samples: Tensor, generator: torch.Generator) -> Views:
        """One view of each sample, for both; or for the student, and the sample for its teachers."""
        view = self.view(samples, generator)
        return Views((view, samples if self.settings.clean else view))

    def views_at(self, places: Tensor, samples: Tensor, generator: torch.Generator) -> Views:
        """The same, with what is kept in place of the sample."""
        (kept,) = self._kept
        if kept is None:
            return self.views(samples, generator)
        return Views((self.view(samples, generator),), labels=kept[places.to(kept.device)].to(samples.device))

    def forward(self, batch: Views) -> Terms:
        """`cosine`, `similarity`, `relations` and `tokens`: those with a weight; see `objectives`."""
        settings, terms = self.settings, Terms()
        latent, features = self.student(batch.views[0])  # (batch, dim)
        for index, (maps, target) in enumerate(self.targets(batch)):
            projected, found = self.project[index](features), Terms()
            if settings.feature:
                found["cosine"] = settings.feature * cosine(projected, target)
            if settings.similarity:
                queue: Queue = self.queues[index]  # type: ignore[assignment]
                temperatures = settings.student_temperature, settings.teacher_temperature
                found["similarity"] = settings.similarity * similarity(projected, target, queue.rows, *temperatures)
                if self.training:
                    queue.push(gathered(target))
            if settings.relations:
                whole = gathered(features), gathered(target)
                found["relations"] = settings.relations * relations(*whole, settings.temperature)
            if settings.tokens:
                seen = functional.interpolate(map_of(self.encoder, latent), maps.shape[2:], mode="bilinear")
                there = [each.flatten(2).transpose(1, 2) for each in (self.places[index](seen), maps)]
                found["tokens"] = settings.tokens * cosine(*there)  # (batch, places, channels) each
            terms |= {f"{name}{self._endings[index]}": term / len(self._teachers) for name, term in found.items()}
        return terms

    def student(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """The student's last latent, and its features `(batch, dim)`."""
        latent = last_latent(self.encoder, view)
        return latent, torch.as_tensor(self.encoder.pool(latent))

    @torch.no_grad()
    def targets(self, batch: Views) -> Sequence[tuple[Tensor, Tensor]]:
        """Of each teacher its last map `(batch, channels, rows, columns)`, empty without `tokens`, and its unit vectors."""
        if batch.labels is not None:
            nothing = batch.labels.new_empty(0)
            return [(nothing, part) for part in torch.split(batch.labels, [each.dim for each in self._teachers], 1)]
        view, found = batch.views[1], []
        for teacher in self._teachers:
            latent = last_latent(teacher.to(view.device), view)
            maps = map_of(teacher, latent) if self.settings.tokens else latent.new_empty(0)
            found.append((maps, functional.normalize(teacher.pool(latent), dim=1)))
        return found


class RoundedDistillation(Distillation):
    """The same, with the student's weights and activations rounded as in its int8 graph.

    It goes on from a student that was trained in float, whose batch norms and dropout stay as in use.
    """

    # A tenth of what it takes to learn from the beginning: the float student is a small step away.
    defaults = Defaults(lr=2e-4, weight_decay=1e-4, batch=64)

    def __init__(
        self,
        encoder: EncoderModule,
        teachers: EncoderModule | dict[str, EncoderModule],
        config: DistillationConfig,
        rounded: FakeQuantized,
        kept: Tensor | None = None,
    ) -> None:
        if config.tokens:
            raise InputError("a student with rounded activations shows its vector alone; type --set tokens=0")
        super().__init__(encoder, teachers, config, kept)
        self.rounded = rounded

    def train(self, mode: bool = True) -> RoundedDistillation:
        """The encoder stays in eval mode: its batch norms are folded."""
        super().train(mode)
        self.encoder.eval()
        return self

    def student(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """As the int8 graph gives them."""
        features = torch.as_tensor(self.rounded(view))
        return features, features

    def ranges(self) -> dict[str, tuple[float, float]]:
        """As learned."""
        return self.rounded.ranges()


def _projector(inputs: int, hidden: int, outputs: int) -> nn.Module:
    if not hidden:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )
