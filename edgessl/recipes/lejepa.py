"""LeJEPA: views agree, while all embeddings together keep the shape of a round Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views
from edgessl.vision import vision_module


@dataclass(frozen=True, kw_only=True)
class LeJEPAConfig:
    """Settings of LeJEPA.

    Attributes:
        gaussian: Weight of the shape, and 1 minus it that of the agreement; lambda of the released code.
        slices: Random directions along which the shape is judged, others at every step; as the paper.
        local_views: Views of a small part; the paper's are 6.
        hidden: Width of the projector's hidden layers; the released code's is 2048.
        out: Width that the loss sees; the paper's are 16 to 128.
        views: How far a view may be from its sample; None for what is usual.
    """

    gaussian: float = 0.05
    slices: int = 256
    local_views: int = 2
    hidden: int = 512
    out: int = 64
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.gaussian <= 1:
            raise InputError(f"the weight of gaussian must lie in 0 to 1, not {self.gaussian}")
        if self.slices < 1:
            raise InputError(f"slices counts directions, 1 or more, not {self.slices}")
        if self.local_views < 0:
            raise InputError(f"local_views counts views, 0 or more, not {self.local_views}")


class LeJEPA(Recipe):
    """Latent-Euclidean JEPA (Balestriero & LeCun 2025, arXiv:2511.08544), section 5: agreement and SIGReg.

    No teacher, no predictor, no stop-gradient. The slices of a step come from its number, as in the released code: they
    are the same on all devices, and after a resume.
    """

    config = LeJEPAConfig
    defaults = Defaults(lr=2e-3, weight_decay=0.05, batch=128)
    step: Tensor

    def __init__(self, encoder: EncoderModule, config: LeJEPAConfig) -> None:
        super().__init__(encoder, config)
        heads, losses = vision_module("lightly.models.modules"), vision_module("lightly.loss.lejepa_loss")
        self.project = heads.BarlowTwinsProjectionHead(encoder.dim, config.hidden, config.out)  # batch norm, ReLU
        self.sigreg = losses.SIGReg(num_vectors=config.slices, gather_distributed=True)
        self.register_buffer("step", torch.tensor(0))

    def forward(self, batch: Views) -> Terms:
        """`agreement`: distance of each view from the mean of the first two; `gaussian`: SIGReg; weighted."""
        z = self.project(self.encoder.features(torch.cat(batch.views))).float()
        z = torch.stack(z.chunk(len(batch.views)))  # (views, batch, out)
        agreement = vision_module("lightly.loss.lejepa_loss").lejepa_invariance_loss(all_proj=z, global_proj=z[:2])
        with torch.random.fork_rng([z.device] if z.is_cuda else []):
            torch.manual_seed(int(self.step))
            gaussian = self.sigreg(z)
        weight = self.settings.gaussian
        return {"agreement": (1 - weight) * agreement, "gaussian": weight * gaussian}

    def after_step(self, step: int, steps: int) -> None:
        """Other slices for the next step."""
        self.step.fill_(step + 1)
