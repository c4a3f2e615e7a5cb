"""What every recipe promises; a line in `RECIPES` is enough to be tested here."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import InputError, UnknownNameError
from edgessl.recipes import RECIPES, Recipe, Terms, build_recipe
from edgessl.signals import InputSpec, image_spec

SIZE = (16, 24)  # not square, so that a swapped axis shows


def _encoder(recipe: str) -> EncoderModule:
    torch.manual_seed(0)
    if recipe == "mae":
        return build_encoder("vit_micro", image_spec(*SIZE), dim=16, depth=2, heads=2, patch=4)
    return build_encoder("conv_small", image_spec(*SIZE), widths=(8, 12, 16), dim=16)


def _recipe(name: str) -> Recipe:
    return build_recipe(name, _encoder(name))


def _images(batch: int = 12) -> Tensor:
    """Coarse random patterns, which bear cropping."""
    coarse = torch.rand(batch, 3, 4, 6, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")


def _terms(recipe: Recipe, seed: int) -> Terms:
    terms: Terms = recipe(recipe.views(_images(), torch.Generator().manual_seed(seed)))
    return terms


@pytest.fixture(params=sorted(RECIPES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_terms_are_named_finite_scalars(name: str) -> None:
    terms = _terms(_recipe(name), 1)
    assert terms
    assert all(term.shape == () and torch.isfinite(term) for term in terms.values())


def test_the_same_seed_gives_the_same_losses(name: str) -> None:
    first, again, other = (_terms(_recipe(name), seed) for seed in (1, 1, 2))
    assert {key: term.item() for key, term in first.items()} == {key: term.item() for key, term in again.items()}
    assert any(first[key].item() != other[key].item() for key in first)


def test_views_are_images_and_differ_from_each_other(name: str) -> None:
    images = _images()
    batch = _recipe(name).views(images, torch.Generator().manual_seed(0))
    for view in batch.views:
        assert view.shape == images.shape
        assert 0 <= view.min() <= view.max() <= 1
        assert not torch.equal(view, images)
    assert len({view.sum().item() for view in batch.views}) == len(batch.views)


def test_a_gradient_reaches_every_part_of_the_encoder_that_features_use(name: str) -> None:
    recipe = _recipe(name)
    torch.autograd.backward(list(_terms(recipe, 1).values()))
    reached = {key for key, weight in recipe.encoder.stages.named_parameters() if weight.grad is not None}
    assert reached == {key for key, _ in recipe.encoder.stages.named_parameters()}
    assert all(torch.isfinite(weight.grad).all() for weight in recipe.parameters() if weight.grad is not None)


def test_the_loss_falls(name: str) -> None:
    recipe = _recipe(name)
    optimizer = torch.optim.AdamW([weight for weight in recipe.parameters() if weight.requires_grad], lr=3e-3)
    losses = []
    for step in range(20):
        terms = list(_terms(recipe, 5).values())  # the same views at every step
        optimizer.zero_grad()
        torch.autograd.backward(terms)
        optimizer.step()
        recipe.after_step(step, 20)
        losses.append(sum(term.item() for term in terms))
    assert sum(losses[-4:]) / 4 < 0.95 * losses[0]


def test_a_recipe_trains_the_encoder_it_was_given(name: str) -> None:
    encoder = _encoder(name)
    assert build_recipe(name, encoder).encoder is encoder


def test_a_state_dict_restores_the_losses(name: str) -> None:
    recipe, other = _recipe(name), _recipe(name)
    with torch.no_grad():
        for weight in recipe.parameters():
            weight.mul_(1.1)
    other.load_state_dict(recipe.state_dict())
    assert {k: v.item() for k, v in _terms(recipe, 1).items()} == {k: v.item() for k, v in _terms(other, 1).items()}


def test_a_config_is_frozen_and_refuses_unknown_settings(name: str) -> None:
    recipe = _recipe(name)
    config = recipe.config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(config)[0].name, 1)
    with pytest.raises(UnknownNameError, match="setting of recipe"):
        build_recipe(name, _encoder(name), no_such_setting=1)


def test_defaults_are_numbers_that_an_optimizer_takes(name: str) -> None:
    defaults = _recipe(name).defaults
    assert 0 < defaults.lr < 1
    assert 0 <= defaults.weight_decay < 1
    assert defaults.batch >= 2


def test_it_works_under_mixed_precision(name: str) -> None:
    recipe = _recipe(name)
    views = recipe.views(_images(), torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        terms = recipe(views)
    assert all(torch.isfinite(term) for term in terms.values())


def test_series_are_refused_by_recipes_for_images(name: str) -> None:
    encoder = _encoder(name)
    encoder.input = InputSpec(kind="series", shape=(6, 100), dtype="float32", units="as recorded")
    with pytest.raises(InputError, match="learns from image samples"):
        build_recipe(name, encoder)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no recipe 'simclear'; did you mean 'simclr'.*byol, mae, simclr, vicreg"
    ):
        build_recipe("simclear", _encoder("simclr"))


@pytest.mark.parametrize(
    ("recipe", "option", "value"),
    [
        ("simclr", "temperature", 0.0),
        ("vicreg", "variance", -1.0),
        ("byol", "momentum", 1.5),
        ("mae", "hidden", 1.0),
        ("mae", "width", 30),
    ],
)
def test_a_setting_out_of_range_is_named(recipe: str, option: str, value: float) -> None:
    with pytest.raises(InputError, match=option):
        build_recipe(recipe, _encoder(recipe), **{option: value})
