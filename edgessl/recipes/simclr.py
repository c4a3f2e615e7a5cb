"""SimCLR: two views of a sample attract, views of different samples repel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views
from edgessl.vision import vision_module


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig:
    """Settings of SimCLR.

    Attributes:
        temperature: Of the contrast; the paper's on ImageNet (table 5; 0.5 was best on CIFAR-10 with 1,000 epochs).
        hidden: Width of the head's hidden layer; the paper's is the encoder's 2048. 0 leaves the head out: what is
            contrasted is then what is compared later, which suits retrieval, and the width out is the encoder's.
        out: Width that the contrast sees; as the paper, section 2.1.
        views: How far a view may be from its sample; None for what is usual.
    """

    temperature: float = 0.1
    hidden: int = 256
    out: int = 128
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"temperature must be positive, not {self.temperature}")


class SimCLR(Recipe):
    """A Simple Framework for Contrastive Learning (Chen et al. 2020, arXiv:2002.05709), algorithm 1 and eq. 1.

    AdamW and small batches in place of LARS and 4096.
    """

    config = SimCLRConfig
    defaults = Defaults(lr=2e-3, weight_decay=1e-4, batch=128)

    def __init__(self, encoder: EncoderModule, config: SimCLRConfig) -> None:
        super().__init__(encoder, config)
        heads = vision_module("lightly.models.modules")
        self.head = (
            heads.SimCLRProjectionHead(encoder.dim, config.hidden, config.out) if config.hidden else nn.Identity()
        )  # g
        self.contrast = vision_module("lightly.loss").NTXentLoss(config.temperature, gather_distributed=True)

    def forward(self, batch: Views) -> Terms:
        """`contrast`: NT-Xent over both views."""
        h = self.encoder.features(torch.cat(batch.views))  # one pass: the batch norms see both views
        z_1, z_2 = self.head(h).chunk(2)  # (batch, out)
        return {"contrast": self.contrast(z_1, z_2)}
