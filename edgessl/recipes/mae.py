"""MAE: see a quarter of the patches, paint the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgessl.blocks.tokens import TokenDecoder, at_places, encode, patches, random_places, tokens_of
from edgessl.blocks.views import ViewConfig, plain_views
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Masks, Recipe, Terms, Views
from edgessl.vision import vision_module


@dataclass(frozen=True, kw_only=True)
class MAEConfig:
    """Settings of MAE.

    Attributes:
        hidden: Share of the patches that is hidden; the paper's, section 4.1.
        width, depth, heads: Of the decoder; the paper's is 512 wide and 8 deep, for encoders eight times as wide.
        views: How far a view may be from its sample; None for a crop, and a flip of images.
    """

    hidden: float = 0.75
    width: int = 64
    depth: int = 2
    heads: int = 4
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not 0 < self.hidden < 1:
            raise InputError(f"hidden is the share of hidden patches, between 0 and 1, not {self.hidden}")


class MAE(Recipe):
    """Masked Autoencoders (He et al. 2022, arXiv:2111.06377), section 3, with normalised values as targets.

    The encoder's positions are its own, learned or not; the paper's are fixed sines, as our decoder's are. Series, in
    patches of time over all channels, are ours; the share that is hidden stays that of images.
    """

    config = MAEConfig
    defaults = Defaults(lr=1e-3, weight_decay=0.05, batch=128)
    usual_views = plain_views((0.2, 1.0))  # appendix A.1; what is hidden is augmentation enough

    def __init__(self, encoder: EncoderModule, config: MAEConfig) -> None:
        super().__init__(encoder, config)
        embed = tokens_of(encoder, "mae")
        self.grid, self.patch = embed.grid, embed.patch
        dim, values = encoder.channels[-1], len(encoder.mean) * torch.Size(embed.patch).numel()
        self.decoder = TokenDecoder(embed.grid, dim, values, width=config.width, depth=config.depth, heads=config.heads)

    def views(self, samples: Tensor, generator: torch.Generator) -> Views:
        """One view of each sample, to be seen and to be painted, and which of its patches are hidden."""
        view = self.view(samples, generator)
        places = random_places(len(view), torch.Size(self.grid).numel(), self.settings.hidden, generator)
        return Views((view, view), Masks(*places).to(view.device))

    def forward(self, batch: Views) -> Terms:
        """`values`: squared error on the hidden patches, each normalised by its own mean and deviation."""
        (seen, whole), masks = batch.views, batch.required_masks()  # the same samples, but in the negative control
        painted = self.decoder(
            encode(self.encoder, seen, masks.keep), masks.keep, masks.hide
        )  # (batch, hidden, values)
        values = at_places(patches(self.encoder.normalize(whole), self.grid, self.patch), masks.hide)
        target = vision_module("lightly.models.utils").normalize_mean_var(values)
        return {"values": functional.mse_loss(painted.float(), target)}
