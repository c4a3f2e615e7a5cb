"""SimSiam: from one view, predict what the same network makes of the other, which stands still meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views
from edgessl.vision import vision_module


@dataclass(frozen=True, kw_only=True)
class SimSiamConfig:
    """Settings of SimSiam.

    Attributes:
        hidden: Width of the projector's hidden layers; the paper's is 2048.
        narrow: Width of the predictor's hidden layer, a quarter of `out` as in the paper.
        out: Width of projection and prediction; the paper's is 2048.
        haste: How many times faster the predictor learns than the rest; ours.
        views: How far a view may be from its sample; None for what is usual.
    """

    hidden: int = 512
    narrow: int = 64
    out: int = 256
    haste: float = 10.0
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not self.haste > 0:
            raise InputError(f"haste is a factor, more than 0, not {self.haste}")


class SimSiam(Recipe):
    """Exploring Simple Siamese Representation Learning (Chen & He 2021, arXiv:2011.10566), algorithm 1, eq. 4.

    1 is added to the loss, so that 0 is the best there is. AdamW in place of SGD. The paper's predictor keeps its learning
    rate while that of the rest falls, and does better for it; ours learns faster from the first step on, and the
    representation keeps more of its rank in a short training.
    """

    config = SimSiamConfig
    defaults = Defaults(lr=1e-3, weight_decay=1e-4, batch=128)

    def __init__(self, encoder: EncoderModule, config: SimSiamConfig) -> None:
        super().__init__(encoder, config)
        heads = vision_module("lightly.models.modules")
        self.project = heads.SimSiamProjectionHead(encoder.dim, config.hidden, config.out)
        self.predict = heads.SimSiamPredictionHead(config.out, config.narrow, config.out)  # h
        self.negative_cosine = vision_module("lightly.loss").NegativeCosineSimilarity()

    def lr_factors(self) -> Mapping[str, float]:
        """The predictor runs ahead."""
        return {"predict": self.settings.haste}

    def forward(self, batch: Views) -> Terms:
        """`cosine`: 1 - cos(prediction, projection), the mean of both directions; no gradient through the projection."""
        z_1, z_2 = (self.project(self.encoder.features(view)) for view in batch.views)  # (batch, out)
        p_1, p_2 = self.predict(z_1).float(), self.predict(z_2).float()
        loss = self.negative_cosine(p_1, z_2.detach().float()) + self.negative_cosine(p_2, z_1.detach().float())
        return {"cosine": 1 + loss / 2}
