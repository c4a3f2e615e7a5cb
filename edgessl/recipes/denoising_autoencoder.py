"""Denoising autoencoder: see a sample of which many values are lost, paint it as it was."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgessl.blocks.decoders import PLAIN_VIEWS, Decoder, painting_target
from edgessl.blocks.draws import chance
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views


@dataclass(frozen=True, kw_only=True)
class DenoisingAutoencoderConfig:
    """Settings of the denoising autoencoder.

    Attributes:
        lost: Share of the pixels, or of the time steps of each channel, that is lost. The paper's is 0.1 to 0.4 of
            digits; neighbours in a photograph tell more about each other.
        width: Channels of the decoder's coarse map; ours.
        views: How far a view may be from its sample; None for a crop and a flip, of series a cut.
    """

    lost: float = 0.5
    width: int = 64
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not 0 < self.lost < 1:
            raise InputError(f"lost is a share of the values, between 0 and 1, not {self.lost}")
        if self.width < 1:
            raise InputError(f"width counts channels, 1 or more, not {self.width}")


class DenoisingAutoencoder(Recipe):
    """Denoising autoencoders (Vincent et al. 2008, doi:10.1145/1390156.1390294), section 2.3: masking noise.

    What is lost is set to its channel's mean in the batch where the paper sets it to 0, which its digits are made of;
    a pixel is lost in all three colours. The loss is the squared error where the paper takes the cross-entropy of
    pixels, and the whole net learns at once where the paper stacks layers.
    """

    config = DenoisingAutoencoderConfig
    defaults = Defaults(lr=2e-3, weight_decay=1e-4, batch=128)
    usual_views = PLAIN_VIEWS

    def __init__(self, encoder: EncoderModule, config: DenoisingAutoencoderConfig) -> None:
        super().__init__(encoder, config)
        self.decoder = Decoder(encoder.dim, encoder.input, config.width)

    def views(self, samples: Tensor, generator: torch.Generator) -> Views:
        """One view of each sample with values lost, and the same view whole."""
        whole = self.view(samples, generator)
        places = whole[:, :1] if self.encoder.input.kind == "image" else whole
        middle = whole.mean([axis for axis in range(whole.ndim) if axis != 1], keepdim=True)
        return Views((torch.where(chance(places, generator, self.settings.lost), middle, whole), whole))

    def forward(self, batch: Views) -> Terms:
        """`paint`: mean squared error of the normalised sample, lost values and others; 1 means nothing is known."""
        noisy, whole = batch.views
        painted = self.decoder(self.encoder.features(noisy))
        return {"paint": functional.mse_loss(painted.float(), painting_target(self.encoder, whole))}
