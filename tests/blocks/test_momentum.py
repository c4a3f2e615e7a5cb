"""A teacher follows its student by an exponential moving average."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgessl.blocks.momentum import cosine_momentum, teacher_of, update_teacher


def test_a_teacher_begins_as_its_student_and_takes_no_gradient() -> None:
    student = nn.Linear(3, 5)
    teacher = teacher_of(student)
    assert torch.equal(teacher.weight, student.weight)
    assert teacher.weight is not student.weight
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert all(weight.requires_grad for weight in student.parameters())


def test_an_update_is_the_weighted_mean_of_both() -> None:
    student = nn.Linear(3, 5)
    teacher = teacher_of(student)
    before = teacher.weight.clone()
    with torch.no_grad():
        student.weight.add_(1)
    update_teacher(teacher, student, 0.9)
    torch.testing.assert_close(teacher.weight, before + 0.1)
    torch.testing.assert_close(student.weight, before + 1)


@pytest.mark.parametrize(("step", "momentum"), [(0, 0.99), (50, 0.995), (100, 1.0), (120, 1.0)])
def test_momentum_rises_to_one_along_half_a_cosine(step: int, momentum: float) -> None:
    assert cosine_momentum(step, 100, 0.99) == pytest.approx(momentum)
