"""Bootleg: I-JEPA whose targets are what the teacher says at several depths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgessl.blocks.momentum import cosine_momentum, teacher_of, update_teacher
from edgessl.blocks.tokens import TokenDecoder, at_places, encode_stages, tokens_of
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views
from edgessl.recipes.ijepa import CROP_VIEWS, IJEPAConfig, block_terms, block_views


@dataclass(frozen=True, kw_only=True)
class BootlegConfig(IJEPAConfig):
    """Settings of Bootleg: those of I-JEPA, and how many depths are predicted.

    Attributes:
        levels: Blocks of the teacher whose outputs are targets, evenly spaced up to the last; ours, not verified.
    """

    levels: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels < 1:
            raise InputError(f"levels counts blocks of the teacher, 1 or more, not {self.levels}")


class Bootleg(Recipe):
    """Self-distillation of hidden layers (Lowe et al. 2026, arXiv:2603.15553).

    From the paper: the student sees a part, the teacher, its slow average, the whole, and one predictor gives the
    teacher's hidden features of several blocks at the hidden places, one behind the other. Inferred, and so ours: which
    blocks, a layer norm of each, smooth L1, and I-JEPA's masks and momentum. The term on the pooled vector is ours too;
    see `ijepa`.
    """

    config = BootlegConfig
    defaults = Defaults(lr=1e-3, weight_decay=0.05, batch=128)
    usual_views = CROP_VIEWS

    def __init__(self, encoder: EncoderModule, config: BootlegConfig) -> None:
        super().__init__(encoder, config)
        embed, dim, depth = tokens_of(encoder, "bootleg"), encoder.channels[-1], len(encoder.stages) - 2
        self.grid, self.prefix = embed.grid, embed.prefix
        self.levels = sorted({max(1, round(depth * (i + 1) / config.levels)) for i in range(config.levels)})
        self.predictor = TokenDecoder(
            embed.grid, dim, dim * len(self.levels), width=config.width, depth=config.depth, heads=config.heads
        )
        self.front = nn.Linear(encoder.dim, dim)  # the pooled vector as a token
        self.teacher = teacher_of(encoder)

    def views(self, samples: Tensor, generator: torch.Generator) -> Views:
        """One view of each sample, to be seen in part by the student and whole by the teacher."""
        return block_views(self.view(samples, generator), self.grid, self.settings.blocks, generator)

    def forward(self, batch: Views) -> Terms:
        """`tokens` and `pooled`: smooth L1 on the target blocks, from all tokens of the context and from its pool."""
        if batch.masks is None:
            raise InputError("bootleg takes views with masks; make them with its own `views`")
        return block_terms(self, batch.views[0], self.target(batch.views[1], batch.masks.hide), batch.masks)

    @torch.no_grad()
    def target(self, samples: Tensor, places: Tensor) -> Tensor:
        """The teacher's features `(batch, count, levels * dim)` at these places, of each depth without mean and scale."""
        stages = encode_stages(self.teacher, samples)
        levels = [at_places(stages[level][:, self.prefix :], places).float() for level in self.levels]
        return torch.cat([functional.layer_norm(level, level.shape[-1:]) for level in levels], 2)

    def after_step(self, step: int, steps: int) -> None:
        """The teacher follows, ever more slowly."""
        update_teacher(self.teacher, self.encoder, cosine_momentum(step, steps, self.settings.momentum))
