"""VICReg: views agree, while every dimension keeps its spread and no two dimensions say the same."""

from __future__ import annotations

from dataclasses import dataclass

from edgessl.blocks.gather import gathered
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views
from edgessl.vision import vision_module


@dataclass(frozen=True, kw_only=True)
class VICRegConfig:
    """Settings of VICReg.

    Attributes:
        invariance, variance, covariance: Weights of the terms; lambda, mu and nu of the paper, section 4.2.
        hidden: Width of the expander's hidden layers; the paper's is 8192.
        out: Width that the loss sees; the paper's is 8192.
        views: How far a view may be from its sample; None for what is usual.
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    hidden: int = 512
    out: int = 512
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        for name in ("invariance", "variance", "covariance"):
            if not getattr(self, name) >= 0:
                raise InputError(f"the weight of {name} must be 0 or more, not {getattr(self, name)}")


class VICReg(Recipe):
    """Variance-Invariance-Covariance Regularization (Bardes et al. 2022, arXiv:2105.04906), algorithm 1 and eq. 6.

    As the released code and algorithm 1, not eq. 5 and 6: the invariance is a mean over dimensions too, and the
    variance is the mean of both views'.
    """

    config = VICRegConfig
    defaults = Defaults(lr=1e-3, weight_decay=1e-4, batch=128)

    def __init__(self, encoder: EncoderModule, config: VICRegConfig) -> None:
        super().__init__(encoder, config)
        heads = vision_module("lightly.models.modules")
        # The expander is Barlow Twins' projector: three layers, batch norm and ReLU between them.
        self.expander = heads.BarlowTwinsProjectionHead(encoder.dim, config.hidden, config.out)

    def forward(self, batch: Views) -> Terms:
        """`invariance`, `variance` and `covariance`, weighted."""
        loss, weight = vision_module("lightly.loss.vicreg_loss"), self.settings
        z_a, z_b = (self.expander(self.encoder.features(view)).float() for view in batch.views)  # (batch, out)
        invariance = loss.invariance_loss(z_a, z_b)
        z_a, z_b = gathered(z_a), gathered(z_b)  # the statistics are those of the batch over all devices
        return {
            "invariance": weight.invariance * invariance,
            "variance": weight.variance * (loss.variance_loss(z_a) + loss.variance_loss(z_b)) / 2,
            "covariance": weight.covariance * (loss.covariance_loss(z_a) + loss.covariance_loss(z_b)),
        }
