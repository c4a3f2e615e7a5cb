"""MoCo v2: find what a slow teacher sees in another view among what it saw in the last steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from edgessl.blocks.gather import gathered
from edgessl.blocks.momentum import teacher_of, update_teacher
from edgessl.blocks.queue import Queue
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views
from edgessl.vision import vision_module


@dataclass(frozen=True, kw_only=True)
class MoCoConfig:
    """Settings of MoCo.

    Attributes:
        temperature: Of the contrast; v2's.
        momentum: Of the teacher; the paper's is 0.999, for 200 epochs of ImageNet. Ours suits some 1,000 steps.
        queue: Keys of earlier batches that stand against each pair; the paper's are 65,536.
        hidden: Width of the head's hidden layer; v2's is 2048.
        out: Width that the contrast sees; as the paper.
        views: How far a view may be from its sample; None for what is usual.
    """

    temperature: float = 0.2
    momentum: float = 0.99
    queue: int = 2048
    hidden: int = 256
    out: int = 128
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"temperature must be positive, not {self.temperature}")
        if not 0 <= self.momentum <= 1:
            raise InputError(f"momentum must lie in 0 to 1, not {self.momentum}")
        if self.queue < 1:
            raise InputError(f"queue counts keys, 1 or more, not {self.queue}")


class MoCo(Recipe):
    """Momentum Contrast (He et al. 2019, arXiv:1911.05722, eq. 1 and 2) with the head of v2 (Chen et al. 2020, 2003.04297).

    Batch norms are not shuffled between devices.
    """

    config = MoCoConfig
    defaults = Defaults(lr=2e-3, weight_decay=1e-4, batch=128)

    def __init__(self, encoder: EncoderModule, config: MoCoConfig) -> None:
        super().__init__(encoder, config)
        heads = vision_module("lightly.models.modules")
        self.project = heads.MoCoProjectionHead(encoder.dim, config.hidden, config.out)
        self.teacher, self.teacher_project = teacher_of(self.encoder), teacher_of(self.project)
        self.queue = Queue(config.queue, config.out)

    def forward(self, batch: Views) -> Terms:
        """`contrast`: InfoNCE of the first view against the second one's key and those in the queue, eq. 1."""
        query, key = batch.views
        q = functional.normalize(self.project(self.encoder.features(query)), dim=1)  # (batch, out)
        with torch.no_grad():
            k = functional.normalize(self.teacher_project(self.teacher.features(key)), dim=1)
        own, others = (q * k).sum(1, keepdim=True), q @ self.queue.rows.T  # (batch, 1), (batch, queue)
        logits = torch.cat([own, others.to(own)], 1) / self.settings.temperature
        self.queue.push(gathered(k))
        return {"contrast": functional.cross_entropy(logits, logits.new_zeros(len(q), dtype=torch.long))}

    def after_step(self, step: int, steps: int) -> None:
        """The teacher follows."""
        update_teacher(self.teacher, self.encoder, self.settings.momentum)
        update_teacher(self.teacher_project, self.project, self.settings.momentum)
