"""DINO: say of any part of a sample what a slow teacher says of all of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgessl.blocks.class_head import ClassHead
from edgessl.blocks.momentum import cosine_momentum, teacher_of, update_teacher
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views
from edgessl.vision import vision_module


@dataclass(frozen=True, kw_only=True)
class DINOConfig:
    """Settings of DINO.

    Attributes:
        out: Classes that student and teacher agree on; the paper's are 65,536.
        temperature: Of the student; the paper's.
        teacher_start, teacher_temperature: Of the teacher, at first and after `warmup`; the paper's.
        warmup: Share of the steps in which the teacher's temperature rises; the paper's 30 epochs of 100 to 800.
        momentum: Of the teacher at the first step, 1 at the last; the paper's is 0.996 for batches of 1024.
        local_views: Views of a small part, which the student sees alone; the paper's are 8.
        hidden, narrow: Widths of the head's hidden layers and before its classes; the paper's are 2048 and 256.
        views: How far a view may be from its sample; None for what is usual.
    """

    out: int = 1024
    temperature: float = 0.1
    teacher_start: float = 0.04
    teacher_temperature: float = 0.07
    warmup: float = 0.3
    momentum: float = 0.99
    local_views: int = 2
    hidden: int = 256
    narrow: int = 64
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        for name in ("temperature", "teacher_start", "teacher_temperature"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("warmup", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie in 0 to 1, not {getattr(self, name)}")
        if self.local_views < 0:
            raise InputError(f"local_views counts views, 0 or more, not {self.local_views}")


class DINO(Recipe):
    """Self-distillation with no labels (Caron et al. 2021, arXiv:2104.14294), algorithm 1, with multi-crop.

    The last layer learns from the first step on, where the paper freezes it for an epoch; weight decay is constant.
    The head has batch norms, an option of the released code: small encoders begin with one answer for all samples otherwise.
    """

    config = DINOConfig
    defaults = Defaults(lr=1e-3, weight_decay=0.04, batch=128)
    heat: Tensor

    def __init__(self, encoder: EncoderModule, config: DINOConfig) -> None:
        super().__init__(encoder, config)
        self.head = ClassHead(encoder.dim, config.hidden, config.narrow, config.out)
        self.teacher, self.teacher_head = teacher_of(self.encoder), teacher_of(self.head)
        losses = vision_module("lightly.loss")
        self.distance = losses.DINOLoss(config.out, student_temp=config.temperature, center_momentum=0.9)
        self.register_buffer("heat", torch.tensor(config.teacher_start))  # the teacher's temperature now

    def forward(self, batch: Views) -> Terms:
        """`classes`: cross entropy between the teacher on each of the first two views and the student on the others."""
        student = self.head(self.encoder.features(torch.cat(batch.views)))
        with torch.no_grad():
            teacher = self.teacher_head(self.teacher.features(torch.cat(batch.views[:2])))
        said, seen = teacher.float().chunk(2), student.float().chunk(len(batch.views))  # (batch, out) each
        return {"classes": self.distance(list(said), list(seen), teacher_temp=self.heat.item())}

    def after_step(self, step: int, steps: int) -> None:
        """The teacher follows, ever more slowly, and grows less sure of itself."""
        momentum = cosine_momentum(step, steps, self.settings.momentum)
        update_teacher(self.teacher, self.encoder, momentum)
        update_teacher(self.teacher_head, self.head, momentum)
        start, end = self.settings.teacher_start, self.settings.teacher_temperature
        self.heat.fill_(start + (end - start) * min(1.0, (step + 1) / max(1.0, self.settings.warmup * steps)))
