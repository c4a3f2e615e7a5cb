"""BYOL: from one view, predict what a slowly moving copy of the network makes of the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgessl.blocks.momentum import cosine_momentum, teacher_of, update_teacher
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views
from edgessl.vision import vision_module


@dataclass(frozen=True, kw_only=True)
class BYOLConfig:
    """Settings of BYOL.

    Attributes:
        momentum: Of the teacher at the first step, 1 at the last; the paper's is 0.996 for 1,000 epochs, and 0.99 for
            300 (appendix), which is nearer to what runs on small machines.
        hidden: Width of the hidden layers of projector and predictor; the paper's is 4096.
        out: Width of projection and prediction; the paper's is 256.
        views: How far a view may be from its sample; None for what is usual. The paper's two views differ in blur and
            solarisation; ours do not.
    """

    momentum: float = 0.99
    hidden: int = 512
    out: int = 128
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise InputError(f"momentum must lie in 0 to 1, not {self.momentum}")


class BYOL(Recipe):
    """Bootstrap Your Own Latent (Grill et al. 2020, arXiv:2006.07733), section 3.1, eq. 2.

    The loss is the mean over both directions where the paper takes the sum; AdamW in place of LARS.
    """

    config = BYOLConfig
    defaults = Defaults(lr=1e-3, weight_decay=1e-4, batch=128)

    def __init__(self, encoder: EncoderModule, config: BYOLConfig) -> None:
        super().__init__(encoder, config)
        heads = vision_module("lightly.models.modules")
        self.project = heads.BYOLProjectionHead(encoder.dim, config.hidden, config.out)  # g
        self.predict = heads.BYOLPredictionHead(config.out, config.hidden, config.out)  # q
        self.teacher, self.teacher_project = teacher_of(self.encoder), teacher_of(self.project)
        self.negative_cosine = vision_module("lightly.loss").NegativeCosineSimilarity()

    def forward(self, batch: Views) -> Terms:
        """`cosine`: 2 - 2 cos(prediction, target), the mean of both directions."""
        v, w = batch.views
        p, q = self.online(v), self.online(w)  # (batch, out)
        loss = 2 + self.negative_cosine(p, self.target(w)) + self.negative_cosine(q, self.target(v))
        return {"cosine": loss}

    def online(self, view: Tensor) -> Tensor:
        """The student's prediction `(batch, out)`."""
        prediction: Tensor = self.predict(self.project(self.encoder.features(view)))
        return prediction.float()

    @torch.no_grad()
    def target(self, view: Tensor) -> Tensor:
        """The teacher's projection `(batch, out)`."""
        projection: Tensor = self.teacher_project(self.teacher.features(view))
        return projection.float()

    def after_step(self, step: int, steps: int) -> None:
        """The teacher follows, ever more slowly."""
        momentum = cosine_momentum(step, steps, self.settings.momentum)
        update_teacher(self.teacher, self.encoder, momentum)
        update_teacher(self.teacher_project, self.project, momentum)
