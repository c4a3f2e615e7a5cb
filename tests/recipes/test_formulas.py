"""Losses against the papers' formulas in numpy, from the outputs of the recipe's own parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgessl.encoders import EncoderModule, build_encoder
from edgessl.recipes import Views, build_recipe
from edgessl.recipes.byol import BYOL
from edgessl.recipes.simclr import SimCLR
from edgessl.recipes.vicreg import VICReg
from edgessl.signals import image_spec

Array = NDArray[np.float64]


def _conv() -> EncoderModule:
    torch.manual_seed(0)
    return build_encoder("conv_small", image_spec(8, 12), widths=(6, 8), dim=10)


def _pair(batch: int = 5) -> Views:
    first, second = torch.rand(2, batch, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    return Views((first, second))


def _array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def test_simclr_is_eq_1_of_its_paper() -> None:
    recipe, batch = build_recipe("simclr", _conv(), temperature=0.3), _pair()
    assert isinstance(recipe, SimCLR)
    loss = recipe(batch)["contrast"].item()
    z = _array(recipe.head(recipe.encoder.features(torch.cat(batch.views))))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    n = len(z) // 2
    total = 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = sum(math.exp(z[i] @ z[k] / 0.3) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(z[i] @ z[j] / 0.3) / others)
    assert loss == pytest.approx(total / (2 * n), rel=1e-5)


def test_vicreg_is_algorithm_1_of_its_paper() -> None:
    recipe, batch = (
        build_recipe("vicreg", _conv(), hidden=14, out=7, invariance=3.0, variance=5.0, covariance=2.0),
        _pair(),
    )
    assert isinstance(recipe, VICReg)
    terms = recipe(batch)
    a, b = (_array(recipe.expander(recipe.encoder.features(view))) for view in batch.views)
    n, d = a.shape

    def variance(z: Array) -> float:
        return float(np.maximum(0, 1 - np.sqrt(z.var(0, ddof=1) + 1e-4)).mean())

    def covariance(z: Array) -> float:
        c = np.cov(z, rowvar=False)
        return float(((c**2).sum() - (np.diag(c) ** 2).sum()) / d)

    assert (n, d) == (5, 7)
    assert terms["invariance"].item() == pytest.approx(3 * ((a - b) ** 2).mean(), rel=1e-4)
    assert terms["variance"].item() == pytest.approx(5 * (variance(a) + variance(b)) / 2, rel=1e-4)
    assert terms["covariance"].item() == pytest.approx(2 * (covariance(a) + covariance(b)), rel=1e-4)


def test_byol_is_eq_2_of_its_paper_in_both_directions() -> None:
    recipe, batch = build_recipe("byol", _conv(), hidden=14, out=7), _pair()
    assert isinstance(recipe, BYOL)
    loss = recipe(batch)["cosine"].item()
    total = 0.0
    for seen, hidden in (batch.views, batch.views[::-1]):
        q, z = _array(recipe.online(seen)), _array(recipe.target(hidden))
        q, z = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (q, z))
        total += ((q - z) ** 2).sum(1).mean()
    assert loss == pytest.approx(total / 2, rel=1e-4)


def test_byols_teacher_moves_by_its_schedule_and_only_after_a_step() -> None:
    recipe = build_recipe("byol", _conv(), momentum=0.8)
    assert isinstance(recipe, BYOL)
    student, teacher = next(recipe.encoder.parameters()), next(recipe.teacher.parameters())
    start = teacher.clone()
    with torch.no_grad():
        student.add_(1)
    assert torch.equal(teacher, start)
    recipe.after_step(0, 10)
    torch.testing.assert_close(teacher, start + 0.2)
    recipe.after_step(10, 10)
    torch.testing.assert_close(teacher, start + 0.2)
