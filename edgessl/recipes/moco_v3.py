"""MoCo v3: predict what a slow teacher sees in the other view, among what it sees in the rest of the batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgessl.blocks.gather import gathered
from edgessl.blocks.momentum import cosine_momentum, teacher_of, update_teacher
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views
from edgessl.vision import vision_module


@dataclass(frozen=True, kw_only=True)
class MoCoV3Config:
    """Settings of MoCo v3.

    Attributes:
        temperature: Of the contrast; the paper's.
        momentum: Of the teacher at the first step, 1 at the last; the paper's.
        hidden: Width of the hidden layers of projector and predictor; the paper's is 4096.
        out: Width that the contrast sees; the paper's is 256.
        views: How far a view may be from its sample; None for what is usual.
    """

    temperature: float = 0.2
    momentum: float = 0.99
    hidden: int = 256
    out: int = 128
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"temperature must be positive, not {self.temperature}")
        if not 0 <= self.momentum <= 1:
            raise InputError(f"momentum must lie in 0 to 1, not {self.momentum}")


class MoCoV3(Recipe):
    """An Empirical Study of Training Self-Supervised Vision Transformers (Chen et al. 2021, arXiv:2104.02057), algorithm 1.

    The paper freezes a transformer's patch embedding to keep its largest models stable; here it learns.
    """

    config = MoCoV3Config
    defaults = Defaults(lr=2e-3, weight_decay=1e-4, batch=128)

    def __init__(self, encoder: EncoderModule, config: MoCoV3Config) -> None:
        super().__init__(encoder, config)
        head = vision_module("lightly.models.modules").MoCoProjectionHead
        self.project = head(encoder.dim, config.hidden, config.out, num_layers=3, batch_norm=True)
        self.predict = head(config.out, config.hidden, config.out, num_layers=2, batch_norm=True)
        self.teacher, self.teacher_project = teacher_of(self.encoder), teacher_of(self.project)

    def forward(self, batch: Views) -> Terms:
        """`contrast`: the sum of both directions, each 2 * temperature * InfoNCE."""
        x_1, x_2 = batch.views
        q_1, q_2 = (self.predict(self.project(self.encoder.features(view))) for view in (x_1, x_2))  # (batch, out)
        with torch.no_grad():
            k_1, k_2 = (self.teacher_project(self.teacher.features(view)) for view in (x_1, x_2))
        return {"contrast": self.contrast(q_1, k_2) + self.contrast(q_2, k_1)}

    def contrast(self, q: Tensor, k: Tensor) -> Tensor:
        """Each prediction against all keys of the batch, its own being the right one: `(batch, out)` both -> scalar."""
        logits = functional.normalize(q, dim=1) @ functional.normalize(gathered(k), dim=1).T / self.settings.temperature
        right = torch.arange(len(q), device=q.device) + len(q) * vision_module("lightly.utils.dist").rank()
        loss: Tensor = 2 * self.settings.temperature * functional.cross_entropy(logits, right)
        return loss

    def after_step(self, step: int, steps: int) -> None:
        """The teacher follows, ever more slowly."""
        momentum = cosine_momentum(step, steps, self.settings.momentum)
        update_teacher(self.teacher, self.encoder, momentum)
        update_teacher(self.teacher_project, self.project, momentum)
