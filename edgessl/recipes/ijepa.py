"""I-JEPA: from a part of the sample, predict what a slow teacher makes of blocks that were not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgessl.blocks.image_views import ImageViewConfig
from edgessl.blocks.momentum import cosine_momentum, teacher_of, update_teacher
from edgessl.blocks.tokens import TokenDecoder, at_places, block_places, encode, tokens_of
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Masks, Recipe, Terms, Views
from edgessl.recipes.mae import PLAIN_VIEWS

if TYPE_CHECKING:
    from edgessl.recipes.bootleg import Bootleg

#: The paper's crop, without a flip; series as in `mae`.
CROP_VIEWS: dict[str, ViewConfig] = {
    **PLAIN_VIEWS,
    "image": ImageViewConfig(area=(0.3, 1.0), turn_deg=0, flip=0, light=0, grey=0, blur=0, noise=0),
}


@dataclass(frozen=True, kw_only=True)
class IJEPAConfig:
    """Settings of I-JEPA.

    Attributes:
        blocks: Target blocks per sample, each 0.15 to 0.2 of the patches; the paper's.
        momentum: Of the teacher at the first step, 1 at the last; the paper's is 0.996, for hundreds of epochs.
        pooled: Weight of the second term, which is ours; 0 is the paper.
        width, depth, heads: Of the predictor; the paper's is 384 wide and 12 deep, for encoders eight times as wide.
        views: How far a view may be from its sample; None for the paper's crop.
    """

    blocks: int = 4
    momentum: float = 0.99
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
    we follow. Its encoders have no class token and are judged by their mean; ours may pool by one, which nothing would
    train. So a second term predicts the same blocks from the pooled vector of the context alone.
    """

    config = IJEPAConfig
    defaults = Defaults(lr=1e-3, weight_decay=0.05, batch=128)
    usual_views = CROP_VIEWS

    def __init__(self, encoder: EncoderModule, config: IJEPAConfig) -> None:
        super().__init__(encoder, config)
        embed, dim = tokens_of(encoder, "ijepa"), encoder.channels[-1]
        self.grid, self.prefix = embed.grid, embed.prefix
        self.predictor = TokenDecoder(embed.grid, dim, dim, width=config.width, depth=config.depth, heads=config.heads)
        self.front = nn.Linear(encoder.dim, dim)  # the pooled vector as a token
        self.teacher = teacher_of(encoder)

    def views(self, samples: Tensor, generator: torch.Generator) -> Views:
        """One view of each sample, to be seen in part by the student and whole by the teacher."""
        return block_views(self.view(samples, generator), self.grid, self.settings.blocks, generator)

    def forward(self, batch: Views) -> Terms:
        """`tokens` and `pooled`: smooth L1 on the target blocks, from all tokens of the context and from its pool."""
        if batch.masks is None:
            raise InputError("ijepa takes views with masks; make them with its own `views`")
        return block_terms(self, batch.views[0], self.target(batch.views[1], batch.masks.hide), batch.masks)

    @torch.no_grad()
    def target(self, samples: Tensor, places: Tensor) -> Tensor:
        """The teacher's tokens `(batch, count, dim)` at these places, each without its mean and scale."""
        tokens = encode(self.teacher, samples)[:, self.prefix :]
        return functional.layer_norm(at_places(tokens, places).float(), tokens.shape[-1:])

    def after_step(self, step: int, steps: int) -> None:
        """The teacher follows, ever more slowly."""
        update_teacher(self.teacher, self.encoder, cosine_momentum(step, steps, self.settings.momentum))


def block_terms(recipe: IJEPA | Bootleg, seen: Tensor, target: Tensor, masks: Masks) -> Terms:
    """Smooth L1 between `target` `(batch, asked, outputs)` and what the context of `seen` says of the blocks."""
    settings, keep, ask = recipe.settings, masks.keep, masks.hide
    tokens = encode(recipe.encoder, seen, keep)
    predicted = predict_blocks(recipe.predictor, tokens, keep, ask, settings.blocks)
    terms = {"tokens": functional.smooth_l1_loss(predicted.float(), target)}
    if settings.pooled:
        pooled = recipe.front(recipe.encoder.pool(tokens)).unsqueeze(1)
        guessed = predict_blocks(recipe.predictor, pooled, keep[:, :0], ask, settings.blocks)
        terms["pooled"] = settings.pooled * functional.smooth_l1_loss(guessed.float(), target)
    return terms


def block_views(view: Tensor, grid: tuple[int, ...], blocks: int, generator: torch.Generator) -> Views:
    """The same view twice, with the context to keep and the target blocks to ask for, one behind the other."""
    keep, hide = block_places(len(view), grid, generator, blocks=blocks)
    return Views((view, view), Masks(keep=keep.to(view.device), hide=hide.flatten(1).to(view.device)))


def predict_blocks(predictor: TokenDecoder, tokens: Tensor, keep: Tensor, ask: Tensor, blocks: int) -> Tensor:
    """Each block on its own, as in the paper: `(batch, asked, outputs)` at `blocks` blocks, one behind the other."""
    tokens, keep = (each.repeat_interleave(blocks, 0) for each in (tokens, keep))
    predicted: Tensor = predictor(tokens, keep, ask.reshape(len(tokens), -1))
    return predicted.reshape(*ask.shape, -1)
