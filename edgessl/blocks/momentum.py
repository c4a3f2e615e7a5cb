"""A teacher that follows its student slowly."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

from torch import nn

from edgessl.vision import vision_module

_Module = TypeVar("_Module", bound=nn.Module)


def teacher_of(student: _Module) -> _Module:
    """A copy of `student` that no gradient reaches.

    It stays in training mode: its batch norms use the statistics of the batch, as BYOL's and MoCo's released code does,
    so their running statistics are its own and are not averaged.
    """
    teacher = copy.deepcopy(student)
    vision_module("lightly.models.utils").deactivate_requires_grad(teacher)
    return teacher


def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move every parameter: teacher <- momentum * teacher + (1 - momentum) * student."""
    vision_module("lightly.models.utils").update_momentum(student, teacher, momentum)


def cosine_momentum(step: int, steps: int, start: float) -> float:
    """From `start` at step 0 to 1 at step `steps` along half a cosine (BYOL, section 3.3)."""
    # lightly's cosine_schedule reaches 1 one step early and stays there.
    return 1 - (1 - start) * (math.cos(math.pi * min(step, steps) / steps) + 1) / 2
