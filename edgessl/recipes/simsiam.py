"""SimSiam: from one view, predict what the same network makes of the other, which stands still meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.recipes.base import Defaults, Recipe, Terms, Views
from edgessl.vision import vision_module


@dataclass(frozen=True, kw_only=True)
class SimSiamConfig:
    """Settings of SimSiam.

    Attributes:
        hidden: Width of the projector's hidden layers; the paper's is 2048.
        narrow: Width of the predictor's hidden layer, a quarter of `out` as in the paper.
        out: Width of projection and prediction; the paper's is 2048.
        views: How far a view may be from its sample; None for what is usual.
    """

    hidden: int = 512
    narrow: int = 64
    out: int = 256
    views: ViewConfig | None = None


class SimSiam(Recipe):
    """Exploring Simple Siamese Representation Learning (Chen & He 2021, arXiv:2011.10566), algorithm 1, eq. 4.

    1 is added to the loss, so that 0 is the best there is. AdamW in place of SGD, and one learning rate for all: the
    paper's predictor keeps its own.
    """

    config = SimSiamConfig
    defaults = Defaults(lr=1e-3, weight_decay=1e-4, batch=128)

    def __init__(self, encoder: EncoderModule, config: SimSiamConfig) -> None:
        super().__init__(encoder, config)
        heads = vision_module("lightly.models.modules")
        self.project = heads.SimSiamProjectionHead(encoder.dim, config.hidden, config.out)
        self.predict = heads.SimSiamPredictionHead(config.out, config.narrow, config.out)  # h
        self.negative_cosine = vision_module("lightly.loss").NegativeCosineSimilarity()

    def forward(self, batch: Views) -> Terms:
        """`cosine`: 1 - cos(prediction, projection), the mean of both directions; no gradient through the projection."""
        z_1, z_2 = (self.project(self.encoder.features(view)) for view in batch.views)  # (batch, out)
        p_1, p_2 = self.predict(z_1).float(), self.predict(z_2).float()
        loss = self.negative_cosine(p_1, z_2.detach().float()) + self.negative_cosine(p_2, z_1.detach().float())
        return {"cosine": 1 + loss / 2}
