"""MAE: see a quarter of the patches, paint the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgessl.blocks.image_views import ImageViewConfig
from edgessl.blocks.series_views import SeriesViewConfig
from edgessl.blocks.tokens import TokenDecoder, at_places, encode, patches, random_places, tokens_of
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Masks, Recipe, Terms, Views
from edgessl.signals import SERIES
from edgessl.vision import vision_module

#: A crop and a flip, MAE's appendix A.1; what is hidden is augmentation enough. A series keeps its direction and scale.
PLAIN_VIEWS: dict[str, ViewConfig] = {
    "image": ImageViewConfig(area=(0.2, 1.0), turn_deg=0, light=0, grey=0, blur=0, noise=0),
    **{kind: SeriesViewConfig(scale=(1.0, 1.0), drop=0, noise=0) for kind in SERIES},
}


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
    usual_views = PLAIN_VIEWS

    def __init__(self, encoder: EncoderModule, config: MAEConfig) -> None:
        super().__init__(encoder, config)
        embed = tokens_of(encoder, "mae")
        self.grid, self.patch = embed.grid, embed.patch
        channels = encoder.mean.shape[0]
        self.decoder = TokenDecoder(
            embed.grid,
            encoder.channels[-1],
            channels * torch.Size(embed.patch).numel(),
            width=config.width,
            depth=config.depth,
            heads=config.heads,
        )

    def views(self, samples: Tensor, generator: torch.Generator) -> Views:
        """One view of each sample, to be seen and to be painted, and which of its patches are hidden."""
        view = self.view(samples, generator)
        count = torch.Size(self.grid).numel()
        kept = max(1, int(count * (1 - self.settings.hidden)))
        keep, hide = random_places(len(view), count, kept, generator)
        return Views((view, view), Masks(keep=keep.to(view.device), hide=hide.to(view.device)))

    def forward(self, batch: Views) -> Terms:
        """`values`: squared error on the hidden patches, each normalised by its own mean and deviation."""
        if batch.masks is None:
            raise InputError("mae takes views with masks; make them with its own `views`")
        seen, painting = batch.views  # the same samples, but in the negative control
        tokens = encode(self.encoder, seen, batch.masks.keep)
        painted = self.decoder(tokens, batch.masks.keep, batch.masks.hide)  # (batch, hidden, values)
        return {"values": functional.mse_loss(painted.float(), self.target(painting, batch.masks.hide))}

    def target(self, samples: Tensor, places: Tensor) -> Tensor:
        """Normalised values `(batch, count, values)` of the patches at these places."""
        values = at_places(patches(self.encoder.normalize(samples), self.grid, self.patch), places)
        target: Tensor = vision_module("lightly.models.utils").normalize_mean_var(values)
        return target
