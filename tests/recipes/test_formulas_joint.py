"""Losses of the joint-embedding recipes against the papers' formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgessl.blocks.image_views import ImageViewConfig
from edgessl.blocks.queue import Queue
from edgessl.blocks.series_views import SeriesViewConfig
from edgessl.blocks.views import multi_crop, narrowed
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import InputError
from edgessl.recipes import Recipe, Views, build_recipe
from edgessl.recipes.barlow_twins import BarlowTwins
from edgessl.recipes.dino import DINO
from edgessl.recipes.lejepa import LeJEPA
from edgessl.recipes.moco import MoCo
from edgessl.recipes.moco_v3 import MoCoV3
from edgessl.recipes.simsiam import SimSiam
from edgessl.recipes.swav import SwAV
from edgessl.signals import image_spec

Array = NDArray[np.float64]


def _conv() -> EncoderModule:
    torch.manual_seed(0)
    return build_encoder("conv_small", image_spec(8, 12), widths=(6, 8), dim=10)


def _batch(views: int = 2, batch: int = 5) -> Views:
    return Views(tuple(torch.rand(views, batch, 3, 8, 12, generator=torch.Generator().manual_seed(1))))


def _array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def _unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _log_softmax(rows: Array) -> Array:
    rows = rows - rows.max(1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(1, keepdims=True))


def test_moco_is_eq_1_of_its_paper_over_key_and_queue() -> None:
    recipe, batch = build_recipe("moco", _conv(), temperature=0.3, hidden=14, out=7, queue=11), _batch()
    assert isinstance(recipe, MoCo)
    queue = _array(recipe.queue.rows)
    loss = recipe(batch)["contrast"].item()
    q = _unit(_array(recipe.project(recipe.encoder.features(batch.views[0]))))
    k = _unit(_array(recipe.teacher_project(recipe.teacher.features(batch.views[1]))))
    own, others = np.exp((q * k).sum(1) / 0.3), np.exp(q @ queue.T / 0.3).sum(1)
    assert loss == pytest.approx(-np.log(own / (own + others)).mean(), rel=1e-5)
    np.testing.assert_allclose(_array(recipe.queue.rows), np.concatenate([k, queue])[:11], atol=1e-6)


def test_a_queue_keeps_the_newest_rows_and_is_part_of_the_state() -> None:
    queue, other = Queue(5, 3), Queue(5, 3)
    for first in (0, 2, 4):
        queue.push(torch.arange(first, first + 2.0)[:, None].expand(2, 3))
    assert queue.rows[:, 0].tolist() == [4, 5, 2, 3, 0]
    other.load_state_dict(queue.state_dict())
    assert torch.equal(other.rows, queue.rows)
    queue.push(torch.ones(7, 3))
    assert queue.rows.shape == (5, 3)


def test_moco_v3_is_algorithm_1_of_its_paper() -> None:
    recipe, batch = build_recipe("moco_v3", _conv(), temperature=0.3, hidden=14, out=7), _batch()
    assert isinstance(recipe, MoCoV3)
    loss = recipe(batch)["contrast"].item()
    total = 0.0
    for seen, other in (batch.views, batch.views[::-1]):
        q = _unit(_array(recipe.predict(recipe.project(recipe.encoder.features(seen)))))
        k = _unit(_array(recipe.teacher_project(recipe.teacher.features(other))))
        total -= 2 * 0.3 * np.diag(_log_softmax(q @ k.T / 0.3)).mean()
    assert loss == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("name", ["moco", "moco_v3", "dino"])
def test_a_teacher_gets_no_gradient_and_moves_after_a_step(name: str) -> None:
    recipe = build_recipe(name, _conv(), momentum=0.8)
    torch.autograd.backward(list(recipe(recipe.views(_batch().views[0], torch.Generator())).values()))
    teacher: EncoderModule = recipe.get_submodule("teacher")  # type: ignore[assignment]
    assert all(weight.grad is None for weight in teacher.parameters())
    student, moved = next(recipe.encoder.parameters()), next(teacher.parameters())
    start = moved.clone()
    with torch.no_grad():
        student.add_(1)
    recipe.after_step(0, 10)
    torch.testing.assert_close(moved, start + 0.2)


def test_simsiam_is_eq_4_of_its_paper_plus_1_and_its_targets_stand_still() -> None:
    recipe, batch = build_recipe("simsiam", _conv(), hidden=14, narrow=3, out=7), _batch()
    assert isinstance(recipe, SimSiam)
    z = [recipe.project(recipe.encoder.features(view)) for view in batch.views]
    p = [_unit(_array(recipe.predict(each))) for each in z]
    cosines = [(p[0] * _unit(_array(z[1]))).sum(1).mean(), (p[1] * _unit(_array(z[0]))).sum(1).mean()]
    loss = recipe(batch)["cosine"]
    assert loss.item() == pytest.approx(1 - np.mean(cosines), rel=1e-4)
    recipe.predict = _Constant()  # the student's way is cut: nothing is left to learn
    assert not recipe(batch)["cosine"].requires_grad


class _Constant(torch.nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.ones_like(z)


def test_barlow_twins_is_eq_1_of_its_paper() -> None:
    recipe, batch = build_recipe("barlow_twins", _conv(), hidden=14, out=7, redundancy=0.3), _batch()
    assert isinstance(recipe, BarlowTwins)
    loss = recipe(batch)["correlation"].item()
    a, b = (_array(recipe.project(recipe.encoder.features(view))) for view in batch.views)
    a, b = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (a, b))
    c = a.T @ b / 5
    off = (c**2).sum() - (np.diag(c) ** 2).sum()
    assert loss == pytest.approx(((1 - np.diag(c)) ** 2).sum() + 0.3 * off, rel=1e-4)


def test_swav_swaps_the_codes_of_its_algorithm_1() -> None:
    recipe, batch = build_recipe("swav", _conv(), prototypes=6, temperature=0.2, sharpness=0.1, out=7), _batch(4)
    assert isinstance(recipe, SwAV)
    loss = recipe(batch)["swap"].item()
    z = _unit(_array(recipe.project(recipe.encoder.features(torch.cat(batch.views)))))
    scores = np.split(z @ _array(recipe.prototypes.weight).T, 4)

    def codes(score: Array) -> Array:
        q = np.exp(score / 0.1)
        for _ in range(3):  # rows are samples: every prototype takes a sixth, every sample gives a fifth
            q = q / q.sum(0, keepdims=True) / 6
            q = q / q.sum(1, keepdims=True) / 5
        return q * 5

    terms = [
        -(codes(scores[i]) * _log_softmax(scores[v] / 0.2)).sum(1).mean() for i in (0, 1) for v in range(4) if v != i
    ]
    assert len(terms) == 6
    assert loss == pytest.approx(np.mean(terms), rel=1e-4)


def test_swavs_prototypes_are_of_length_1_at_first_and_after_each_step() -> None:
    recipe = build_recipe("swav", _conv(), prototypes=6, out=7)
    assert isinstance(recipe, SwAV)
    for _ in range(2):
        torch.testing.assert_close(recipe.prototypes.weight.norm(dim=1), torch.ones(6))
        with torch.no_grad():
            recipe.prototypes.weight.mul_(3)
        recipe.after_step(0, 10)


def test_swavs_prototypes_stay_as_drawn_for_a_while_and_then_learn() -> None:
    recipe, learned = build_recipe("swav", _conv(), prototypes=6, out=7, frozen=0.3), []
    assert isinstance(recipe, SwAV)
    for step in range(10):
        recipe.zero_grad()
        recipe(_batch())["swap"].backward()
        learned.append(recipe.prototypes.weight.grad is not None)
        recipe.after_step(step, 10)
    assert learned == [False] * 3 + [True] * 7


def test_dino_is_algorithm_1_of_its_paper_with_every_other_view() -> None:
    recipe, batch = build_recipe("dino", _conv(), out=9, hidden=14, narrow=7), _batch(4)
    assert isinstance(recipe, DINO)
    recipe(batch)
    centre = _array(recipe.distance.center).ravel()
    teacher = np.split(_array(recipe.teacher_head(recipe.teacher.features(torch.cat(batch.views[:2])))), 2)
    np.testing.assert_allclose(centre, 0.1 * np.concatenate(teacher).mean(0), atol=1e-5)
    student = np.split(_array(recipe.head(recipe.encoder.features(torch.cat(batch.views)))), 4)
    terms = [
        -(np.exp(_log_softmax((teacher[t] - centre) / 0.04)) * _log_softmax(student[s] / 0.1)).sum(1).mean()
        for t in (0, 1)
        for s in range(4)
        if s != t
    ]
    assert recipe(batch)["classes"].item() == pytest.approx(np.mean(terms), rel=1e-4)


def test_dinos_teacher_grows_less_sure_while_it_warms_up() -> None:
    recipe = build_recipe("dino", _conv(), warmup=0.5)
    assert isinstance(recipe, DINO)
    heats = [recipe.heat.item()]
    for step in range(10):
        recipe.after_step(step, 10)
        heats.append(recipe.heat.item())
    assert heats == pytest.approx([0.04, 0.046, 0.052, 0.058, 0.064, *[0.07] * 6])


def _lejepa() -> LeJEPA:
    recipe = build_recipe("lejepa", _conv(), hidden=14, out=7, gaussian=0.2, slices=13)
    assert isinstance(recipe, LeJEPA)
    return recipe


def test_lejepa_is_agreement_and_the_epps_pulley_statistic_over_slices() -> None:
    recipe, batch = _lejepa(), _batch(4)
    terms = recipe(batch)
    z = np.stack(np.split(_array(recipe.project(recipe.encoder.features(torch.cat(batch.views)))), 4))
    assert terms["agreement"].item() == pytest.approx(0.8 * ((z - z[:2].mean(0)) ** 2).mean(), rel=1e-4)
    slices = _array(torch.randn(7, 13, generator=torch.Generator().manual_seed(0)))
    x = z @ (slices / np.linalg.norm(slices, axis=0))  # (views, batch, slices)
    t = np.linspace(-3, 3, 33)
    found = np.exp(1j * t * x[..., None]).mean(1)  # (views, slices, t): the characteristic function
    error = np.abs(found - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
    statistic = 5 * np.trapezoid(error, t, axis=-1)
    assert terms["gaussian"].item() == pytest.approx(0.2 * statistic.mean(), rel=1e-3)


def test_lejepas_slices_are_others_at_every_step_and_leave_the_global_generator_alone() -> None:
    recipe, batch = _lejepa(), _batch()
    torch.manual_seed(5)
    first, again = (recipe(batch)["gaussian"].item() for _ in range(2))
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    recipe.after_step(0, 10)
    assert first == again != recipe(batch)["gaussian"].item()


def test_views_of_a_part_show_at_most_what_the_smallest_view_shows() -> None:
    assert narrowed(ImageViewConfig(area=(0.3, 1.0), flip=0)) == ImageViewConfig(area=(0.15, 0.3), flip=0)
    assert narrowed(SeriesViewConfig(span=(0.5, 1.0), drop=0)) == SeriesViewConfig(span=(0.25, 0.5), drop=0)
    line = torch.linspace(0, 1, 50).expand(3, 1, 50)
    still = SeriesViewConfig(span=(0.5, 1.0), scale=(1, 1), drop=0, noise=0)
    views = multi_crop(line, torch.Generator().manual_seed(0), still, 3)
    shown = torch.stack([view.amax((1, 2)) - view.amin((1, 2)) for view in views])
    assert len(views) == 5
    assert shown[:2].min() >= 0.5 >= shown[2:].max() >= shown[2:].min() >= 0.25


@pytest.mark.parametrize("name", ["swav", "dino", "lejepa"])
def test_without_views_of_a_part_there_are_two(name: str) -> None:
    recipe: Recipe = build_recipe(name, _conv(), local_views=0)
    batch = recipe.views(_batch().views[0], torch.Generator())
    assert len(batch.views) == 2
    assert all(torch.isfinite(term) for term in recipe(batch).values())


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("moco", "temperature", 0.0),
        ("moco", "momentum", 1.5),
        ("moco", "queue", 0),
        ("moco_v3", "temperature", -1.0),
        ("moco_v3", "momentum", -0.1),
        ("barlow_twins", "redundancy", -1.0),
        ("swav", "sharpness", 0.0),
        ("swav", "frozen", 1.5),
        ("swav", "local_views", -1),
        ("dino", "teacher_start", 0.0),
        ("dino", "warmup", 2.0),
        ("dino", "local_views", -1),
        ("lejepa", "gaussian", 1.5),
        ("lejepa", "slices", 0),
        ("lejepa", "local_views", -1),
    ],
)
def test_a_setting_out_of_range_is_named(name: str, option: str, value: float) -> None:
    with pytest.raises(InputError, match=option):
        build_recipe(name, _conv(), **{option: value})
