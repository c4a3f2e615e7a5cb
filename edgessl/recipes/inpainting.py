"""Inpainting: see an image with a hole, paint what was there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgessl.blocks.decoders import PLAIN_VIEWS, Decoder, painting_target
from edgessl.blocks.draws import uniform
from edgessl.blocks.series_latents import mean_where
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views


@dataclass(frozen=True, kw_only=True)
class InpaintingConfig:
    """Settings of inpainting.

    Attributes:
        side: Of the hole, as a share of each side of the image; a quarter of the area, as the paper's, section 3.3.
        width: Channels of the decoder's coarse map; ours.
        views: How far a view may be from its sample; None for a crop and a flip.
    """

    side: float = 0.5
    width: int = 64
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not 0 < self.side < 1:
            raise InputError(f"side is a share of the image's sides, between 0 and 1, not {self.side}")
        if self.width < 1:
            raise InputError(f"width counts channels, 1 or more, not {self.width}")


class Inpainting(Recipe):
    """Context Encoders (Pathak et al. 2016, arXiv:1604.07379), eq. 1: the reconstruction loss.

    The hole is filled with the mean, as in the paper, which is zero once normalised; the encoder gets no channel that
    says where it is. It lies anywhere, another place for each image; the paper's stands in the middle, is a set of small
    blocks, or has a random shape. The decoder starts from the feature vector, where the paper's starts from the last map.
    The adversarial loss (eq. 2) is left out, as the paper leaves it out where it learns features (section 5.2).
    """

    config = InpaintingConfig
    defaults = Defaults(lr=2e-3, weight_decay=1e-4, batch=128)
    usual_views = PLAIN_VIEWS

    def __init__(self, encoder: EncoderModule, config: InpaintingConfig) -> None:
        super().__init__(encoder, config)
        self.decoder = Decoder(encoder.dim, encoder.input, config.width)

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        """One view of each image with its hole, the whole view, and where the hole is, `(batch, 1, height, width)`."""
        whole = self.view(images, generator)
        hole = holes(whole, generator, self.settings.side)
        return Views((torch.where(hole, self.encoder.mean, whole), whole), labels=hole)

    def forward(self, batch: Views) -> Terms:
        """`pixels`: mean squared error of the normalised pixels inside the hole."""
        (holed, whole), hole = batch.views, batch.required_labels()
        error = self.decoder(self.encoder.features(holed)).float() - painting_target(self.encoder, whole)
        return {"pixels": mean_where(error.square(), hole)}


def holes(images: Tensor, generator: torch.Generator, side: float) -> Tensor:
    """Where the hole of each image is, bool `(batch, 1, height, width)`: one rectangle of this share of each side."""
    inside = []
    for axis in (2, 3):
        length = images.shape[axis]
        size = max(1, round(side * length))
        start = uniform(images.new_zeros(len(images), 1), generator, 0, length - size + 1).floor()
        place = torch.arange(length, device=images.device)
        inside.append((place >= start) & (place < start + size))  # (batch, length)
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]
