"""CroBo: one vector of a frame must say what is in a part of it that is almost all hidden."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgessl.blocks.draws import Range
from edgessl.blocks.image_views import crop
from edgessl.blocks.tokens import TokenDecoder, at_places, encode, patches, random_places, tokens_of
from edgessl.blocks.views import ViewConfig, plain_views
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Masks, Recipe, Terms, Views
from edgessl.vision import vision_module


@dataclass(frozen=True, kw_only=True)
class CroBoConfig:
    """Settings of CroBo.

    Attributes:
        hidden: Share of the local crop's patches that is hidden; the paper's.
        local: Share of the source view in the local crop; the released code's.
        width, depth, heads: Of the decoder; the paper's is 512 wide and 8 deep, for encoders three times as wide.
        views: Of the source view; None for the released code's crop and flip.
    """

    hidden: float = 0.9
    local: Range = (0.3, 0.6)
    width: int = 64
    depth: int = 2
    heads: int = 4
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not 0 < self.hidden < 1:
            raise InputError(f"hidden is the share of hidden patches, between 0 and 1, not {self.hidden}")
        if not 0 < self.local[0] <= self.local[1] <= 1:
            raise InputError(f"local is a range of shares, above 0 up to 1, not {self.local}")


class CroBo(Recipe):
    """Global-to-local reconstruction through a bottleneck token (arXiv:2603.13904).

    The decoder sees the source's vector, the few visible tokens of the local crop, and mask tokens; the loss is MAE's.
    The source's vector is the encoder's own pool, the class token where that is what it pools by, as in the paper; it
    enters the decoder through a linear layer of its own, where the paper's shares that of the other tokens.
    """

    config = CroBoConfig
    defaults = Defaults(lr=1e-3, weight_decay=0.05, batch=128)
    usual_views = plain_views((0.5, 1.0))

    def __init__(self, encoder: EncoderModule, config: CroBoConfig) -> None:
        super().__init__(encoder, config)
        embed, dim = tokens_of(encoder, "crobo"), encoder.channels[-1]
        self.grid, self.patch, self.prefix = embed.grid, embed.patch, embed.prefix
        values = 3 * torch.Size(embed.patch).numel()
        self.decoder = TokenDecoder(embed.grid, dim, values, width=config.width, depth=config.depth, heads=config.heads)
        self.front = nn.Linear(encoder.dim, dim)  # the source's vector as a token

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        """A source view, a crop of it, and which patches of the crop are hidden."""
        source = self.view(images, generator)
        local = crop(source, generator, area=self.settings.local, aspect=(3 / 4, 4 / 3), turn_deg=0, flip=0)
        places = random_places(len(local), torch.Size(self.grid).numel(), self.settings.hidden, generator)
        return Views((source, local.clamp(0, 1)), Masks(*places).to(local.device))

    def forward(self, batch: Views) -> Terms:
        """`pixels`: squared error on the hidden patches of the crop, each normalised by its own mean and deviation."""
        (source, local), masks = batch.views, batch.required_masks()
        vector = self.front(self.encoder.features(source)).unsqueeze(1)  # (batch, 1, channels)
        visible = encode(self.encoder, local, masks.keep)[:, self.prefix :]
        painted = self.decoder(torch.cat([vector, visible], 1), masks.keep, masks.hide)  # (batch, hidden, values)
        values = at_places(patches(self.encoder.normalize(local), self.grid, self.patch), masks.hide)
        target = vision_module("lightly.models.utils").normalize_mean_var(values)
        return {"pixels": functional.mse_loss(painted.float(), target)}
