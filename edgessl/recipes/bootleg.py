"""Bootleg: I-JEPA whose targets are what the teacher says at several depths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgessl.blocks.block_prediction import BlockPrediction
from edgessl.blocks.momentum import cosine_momentum, teacher_of, update_teacher
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Masks, Recipe, Terms, Views
from edgessl.recipes.ijepa import IJEPA, IJEPAConfig


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
    usual_views = IJEPA.usual_views

    def __init__(self, encoder: EncoderModule, config: BootlegConfig) -> None:
        super().__init__(encoder, config)
        sizes = {"width": config.width, "depth": config.depth, "heads": config.heads}
        depth = len(encoder.stages) - 2  # blocks, between embedding and last norm
        levels = sorted({max(1, round(depth * (i + 1) / config.levels)) for i in range(config.levels)})
        self.blocks = BlockPrediction(encoder, "bootleg", levels, blocks=config.blocks, pooled=config.pooled, **sizes)
        self.teacher = teacher_of(encoder)

    def views(self, samples: Tensor, generator: torch.Generator) -> Views:
        """One view of each sample, to be seen in part by the student and whole by the teacher."""
        view = self.view(samples, generator)
        return Views((view, view), Masks(*self.blocks.places(len(view), generator)).to(view.device))

    def forward(self, batch: Views) -> Terms:
        """`tokens` and `pooled`: smooth L1 on the target blocks, from all tokens of the context and from its pool."""
        (seen, whole), masks = batch.views, batch.required_masks()  # the same samples, but in the negative control
        target = self.blocks.target(self.teacher, whole, masks.hide)
        return dict(self.blocks(self.encoder, seen, masks.keep, masks.hide, target))

    def after_step(self, step: int, steps: int) -> None:
        """The teacher follows, ever more slowly."""
        update_teacher(self.teacher, self.encoder, cosine_momentum(step, steps, self.settings.momentum))
