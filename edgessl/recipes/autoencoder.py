"""Autoencoder: squeeze the sample into the feature vector, and paint it from there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgessl.blocks.decoders import PLAIN_VIEWS, Decoder, painting_target
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Settings of the autoencoder; all numbers are ours.

    Attributes:
        width: Channels of the decoder's coarse map.
        views: How far a view may be from its sample; None for a crop and a flip, of series a cut.
    """

    width: int = 64
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"width counts channels, 1 or more, not {self.width}")


class Autoencoder(Recipe):
    """The autoencoder with a bottleneck (Hinton and Salakhutdinov 2006, doi:10.1126/science.1127647).

    The loss is the squared error where the paper takes the cross-entropy of pixels; the whole net learns at once, with
    batch norms in place of pretraining layer by layer. The bottleneck is the encoder's feature vector.
    """

    config = AutoencoderConfig
    defaults = Defaults(lr=2e-3, weight_decay=1e-4, batch=128)
    usual_views = PLAIN_VIEWS

    def __init__(self, encoder: EncoderModule, config: AutoencoderConfig) -> None:
        super().__init__(encoder, config)
        self.decoder = Decoder(encoder.dim, encoder.input, config.width)

    def views(self, samples: Tensor, generator: torch.Generator) -> Views:
        """One view of each sample, to be seen and to be painted."""
        view = self.view(samples, generator)
        return Views((view, view))

    def forward(self, batch: Views) -> Terms:
        """`paint`: mean squared error of the normalised sample; 1 means that nothing of it is known."""
        seen, whole = batch.views  # the same samples, but in the negative control
        painted = self.decoder(self.encoder.features(seen))
        return {"paint": functional.mse_loss(painted.float(), painting_target(self.encoder, whole))}
