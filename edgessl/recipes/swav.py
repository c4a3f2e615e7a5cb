"""SwAV: from each view, predict the cluster of the other; no cluster may take more than its share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views
from edgessl.vision import vision_module


@dataclass(frozen=True, kw_only=True)
class SwAVConfig:
    """Settings of SwAV.

    Attributes:
        prototypes: Centres of clusters; the paper's are 3000 for the 1000 classes of ImageNet.
        temperature: Of the prediction; the paper's.
        sharpness: Temperature of the codes, epsilon of the paper, section 3.1.
        frozen: Share of the steps in which prototypes stay as drawn; the paper's first epoch of 200 to 800.
        local_views: Views of a small part, which are predicted from but have no codes; the paper's are 6.
        hidden: Width of the head's hidden layer; the paper's is 2048.
        out: Width in which clusters are formed; as the paper.
        views: How far a view may be from its sample; None for what is usual.
    """

    prototypes: int = 300
    temperature: float = 0.1
    sharpness: float = 0.05
    frozen: float = 0.1
    local_views: int = 2
    hidden: int = 256
    out: int = 128
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        for name in ("temperature", "sharpness"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.frozen <= 1:
            raise InputError(f"frozen is a share of the steps, 0 to 1, not {self.frozen}")
        if self.local_views < 0:
            raise InputError(f"local_views counts views, 0 or more, not {self.local_views}")


class SwAV(Recipe):
    """Swapping Assignments between Views (Caron et al. 2020, arXiv:2006.09882), section 3, algorithm 1.

    No queue; AdamW in place of LARS.
    """

    config = SwAVConfig
    defaults = Defaults(lr=1e-3, weight_decay=1e-4, batch=128)
    free: torch.Tensor

    def __init__(self, encoder: EncoderModule, config: SwAVConfig) -> None:
        super().__init__(encoder, config)
        heads, losses = vision_module("lightly.models.modules"), vision_module("lightly.loss")
        self.project = heads.SwaVProjectionHead(encoder.dim, config.hidden, config.out)
        self.prototypes = nn.Linear(config.out, config.prototypes, bias=False)  # C; lightly's have a bias
        self.swap = losses.SwaVLoss(config.temperature, 3, config.sharpness, sinkhorn_gather_distributed=True)
        self.register_buffer("free", torch.tensor(False))  # prototypes learn
        self.after_step(-1, 1)

    def forward(self, batch: Views) -> Terms:
        """`swap`: cross entropy between the codes of each of the first two views and what the others predict."""
        h = self.encoder.features(torch.cat(batch.views))
        z = functional.normalize(self.project(h), dim=1)
        centres = self.prototypes.weight if self.free else self.prototypes.weight.detach()
        scores = functional.linear(z, centres).float().chunk(len(batch.views))  # (batch, prototypes) each
        return {"swap": self.swap(scores[:2], scores[2:]).squeeze()}

    @torch.no_grad()
    def after_step(self, step: int, steps: int) -> None:
        """Prototypes go back to the unit sphere; after a while they learn."""
        self.free.fill_(step + 1 >= self.settings.frozen * steps)
        self.prototypes.weight.copy_(functional.normalize(self.prototypes.weight, dim=1))
