"""I-JEPA: from a part of the sample, predict what a slow teacher makes of blocks that were not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgessl.blocks.block_prediction import BlockPrediction
from edgessl.blocks.momentum import cosine_momentum, teacher_of, update_teacher
from edgessl.blocks.views import ViewConfig, plain_views
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Masks, Recipe, Terms, Views


@dataclass(frozen=True, kw_only=True)
class IJEPAConfig:
    """Settings of I-JEPA.

    Attributes:
        blocks: Target blocks per sample, each 0.15 to 0.2 of the patches; the paper's.
        momentum: Of the teacher at the first step, 1 at the last; the paper's is 0.996. A slower one measured better here,
            with a learning rate below that of other recipes: otherwise both agree on little, soon.
        pooled: Weight of the second term, which is ours; 0 is the paper.
        width, depth, heads: Of the predictor; the paper's is 384 wide and 12 deep, for encoders eight times as wide.
        views: How far a view may be from its sample; None for the paper's crop.
    """

    blocks: int = 4
    momentum: float = 0.998
    pooled: float = 1.0
    width: int = 64
    depth: int = 2
    heads: int = 4
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise InputError(f"blocks counts target blocks, 1 or more, not {self.blocks}")
        if not 0 <= self.momentum <= 1:
            raise InputError(f"momentum must lie in 0 to 1, not {self.momentum}")
        if self.pooled < 0:
            raise InputError(f"pooled is a weight, 0 or more, not {self.pooled}")


class IJEPA(Recipe):
    """I-JEPA (Assran et al. 2023, arXiv:2301.08243), section 3.

    The paper's loss is an L2 distance; smooth L1 and a target without scale (layer norm) are the released code's, which
    we follow. Its encoders have no class token and are judged by their mean. Ours may pool by one, and the predictor,
    which sees it among the tokens of the context, need not use it: so a second term, of ours, predicts the same blocks
    from the pooled vector alone.

    Attributes:
        title: Name of the recipe, for messages.
    """

    title: ClassVar[str] = "ijepa"
    config = IJEPAConfig
    defaults = Defaults(lr=3e-4, weight_decay=0.05, batch=128)
    usual_views = plain_views((0.3, 1.0), flip=0)

    def __init__(self, encoder: EncoderModule, config: IJEPAConfig) -> None:
        super().__init__(encoder, config)
        sizes = {"width": config.width, "depth": config.depth, "heads": config.heads}
        levels = self.levels(encoder)
        self.blocks = BlockPrediction(encoder, self.title, levels, blocks=config.blocks, pooled=config.pooled, **sizes)
        self.teacher = teacher_of(encoder)

    def levels(self, encoder: EncoderModule) -> Sequence[int]:
        """Stages of the teacher whose tokens are predicted: the last."""
        return [len(encoder.stages) - 1]

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
