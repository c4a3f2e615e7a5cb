"""Barlow Twins: every dimension says of both views the same, and what no other dimension says."""

from __future__ import annotations

from dataclasses import dataclass

from edgessl.blocks.gather import gathered
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views
from edgessl.vision import vision_module


@dataclass(frozen=True, kw_only=True)
class BarlowTwinsConfig:
    """Settings of Barlow Twins.

    Attributes:
        redundancy: Weight of what two dimensions share; lambda of the paper, section 3.
        hidden: Width of the projector's hidden layers; the paper's is 8192.
        out: Width that the loss sees; the paper's is 8192.
        views: How far a view may be from its sample; None for what is usual. The paper's two views differ in blur and
            solarisation; ours do not.
    """

    redundancy: float = 0.005
    hidden: int = 512
    out: int = 256
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not self.redundancy >= 0:
            raise InputError(f"the weight of redundancy must be 0 or more, not {self.redundancy}")


class BarlowTwins(Recipe):
    """Self-Supervised Learning via Redundancy Reduction (Zbontar et al. 2021, arXiv:2103.03230), algorithm 1, eq. 1.

    AdamW in place of LARS.
    """

    config = BarlowTwinsConfig
    defaults = Defaults(lr=1e-3, weight_decay=1e-4, batch=128)

    def __init__(self, encoder: EncoderModule, config: BarlowTwinsConfig) -> None:
        super().__init__(encoder, config)
        heads, losses = vision_module("lightly.models.modules"), vision_module("lightly.loss")
        self.project = heads.BarlowTwinsProjectionHead(encoder.dim, config.hidden, config.out)
        self.distance = losses.BarlowTwinsLoss(config.redundancy)

    def forward(self, batch: Views) -> Terms:
        """`correlation`: distance of the views' cross-correlation matrix from the identity."""
        # lightly's own gathering normalises the part of each process alone.
        z_a, z_b = (gathered(self.project(self.encoder.features(view)).float()) for view in batch.views)  # (batch, out)
        return {"correlation": self.distance(z_a, z_b)}
