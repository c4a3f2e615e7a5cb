"""Masked recipes against the papers' formulas in numpy, from the outputs of the recipe's own parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgessl.blocks.tokens import tokens_of
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import InputError
from edgessl.recipes import Masks, Recipe, Views, build_recipe
from edgessl.signals import image_spec, series_spec

Array = NDArray[np.float64]


def _encoder(kind: str = "image") -> EncoderModule:
    torch.manual_seed(0)
    if kind == "image":
        return build_encoder("vit_micro", image_spec(8, 12), dim=16, depth=2, heads=2, patch=4)
    return build_encoder("vit_series", series_spec(3, 24), dim=16, depth=2, heads=2, patch=4, std=[1, 2, 3])


def _samples(kind: str = "image", batch: int = 3) -> Tensor:
    shape = (batch, 3, 8, 12) if kind == "image" else (batch, 3, 24)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def _array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def _outputs(module: nn.Module) -> list[Tensor]:
    found: list[Tensor] = []
    module.register_forward_hook(lambda module, given, out: found.append(out))
    return found


def _masks(batch: Views) -> Masks:
    assert batch.masks is not None
    return batch.masks


def _patch(recipe: Recipe, samples: Tensor, sample: int, place: int) -> Array:
    """The values of one patch of 4, cut by hand: last axis the channel."""
    values = (_array(samples) - _array(recipe.encoder.mean)) / _array(recipe.encoder.std)
    if samples.ndim == 3:
        return values[sample, :, place * 4 : place * 4 + 4].T.ravel()
    row, column = divmod(place, 3)
    return values[sample, :, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4].transpose(1, 2, 0).ravel()


def _painting_error(recipe: Recipe, samples: Tensor, masks: Masks, painted: Tensor) -> float:
    errors = []
    for sample, places in enumerate(masks.hide.tolist()):
        for slot, place in enumerate(places):
            patch = _patch(recipe, samples, sample, place)
            target = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
            errors.append((_array(painted[sample, slot]) - target) ** 2)
    return float(np.mean(errors))


@pytest.mark.parametrize("kind", ["image", "series"])
def test_mae_is_the_squared_error_of_normalised_hidden_patches(kind: str) -> None:
    recipe = build_recipe("mae", _encoder(kind), hidden=0.5)
    batch = recipe.views(_samples(kind), torch.Generator().manual_seed(2))
    painted = _outputs(recipe.decoder)
    loss = recipe(batch)["values"].item()
    assert _masks(batch).hide.shape == (3, 3)
    assert loss == pytest.approx(_painting_error(recipe, batch.views[0], _masks(batch), painted[0]), rel=1e-4)


def test_maes_encoder_does_not_see_what_is_hidden() -> None:
    recipe = build_recipe("mae", _encoder(), hidden=0.5)
    images = _samples(batch=2)
    masks = Masks(keep=torch.tensor([[0, 1, 2]] * 2), hide=torch.tensor([[3, 4, 5]] * 2))  # the lower half
    other = images.clone()
    other[:, :, 4:] = torch.rand(2, 3, 4, 12)
    painted = _outputs(recipe.decoder)
    recipe(Views((images, images), masks))
    recipe(Views((other, other), masks))
    assert torch.equal(painted[0], painted[1])


def test_every_patch_of_maes_views_is_kept_or_hidden() -> None:
    masks = _masks(
        build_recipe("mae", _encoder(), hidden=0.75).views(_samples(batch=4), torch.Generator().manual_seed(0))
    )
    assert masks.keep.shape == (4, 2)
    assert torch.equal(torch.cat([masks.keep, masks.hide], 1).sort(1).values, torch.arange(6).expand(4, -1))
    assert len({tuple(row) for row in masks.hide.tolist()}) > 1


@pytest.mark.parametrize("name", ["mae", "ijepa", "bootleg", "crobo"])
def test_an_encoder_without_tokens_is_named(name: str) -> None:
    with pytest.raises(InputError, match=r"'conv_small' is none\. Type --encoder vit_micro"):
        build_recipe(name, build_encoder("conv_small", image_spec(16, 24), widths=(6, 8), dim=10))


def _layer_norm(values: Array) -> Array:
    centred = values - values.mean(-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5))


def _smooth_l1(error: Array) -> float:
    size = np.abs(error)
    return float(np.where(size < 1, size**2 / 2, size - 0.5).mean())


def _block_loss(recipe: Recipe, levels: list[int], weight: float) -> tuple[dict[str, float], dict[str, float]]:
    """The terms of a recipe that asks for blocks, and the same by numpy from hooked outputs."""
    batch = recipe.views(_samples(recipe.encoder.input.kind), torch.Generator().manual_seed(2))
    predicted = _outputs(recipe.get_submodule("blocks.predictor"))
    stages = [_outputs(stage) for stage in recipe.teacher.stages]
    terms = {key: term.item() for key, term in recipe(batch).items()}
    prefix = tokens_of(recipe.encoder, "x").prefix
    wanted = []
    for sample, places in enumerate(_masks(batch).hide.tolist()):
        for place in places:
            depths = [_layer_norm(_array(stages[level][-1][sample, prefix + place])) for level in levels]
            wanted.append(np.concatenate(depths))
    target = np.stack(wanted)
    tokens, pooled = (_array(each).reshape(target.shape) for each in predicted)
    return terms, {"tokens": _smooth_l1(tokens - target), "pooled": weight * _smooth_l1(pooled - target)}


@pytest.mark.parametrize("kind", ["image", "series"])
def test_ijepa_is_smooth_l1_to_the_teachers_tokens_of_the_blocks(kind: str) -> None:
    recipe = build_recipe("ijepa", _encoder(kind), pooled=0.5, blocks=2)
    terms, wanted = _block_loss(recipe, [3], 0.5)  # behind the last norm
    assert terms == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("kind", ["image", "series"])
def test_bootleg_asks_for_several_depths_each_without_mean_and_scale(kind: str) -> None:
    recipe = build_recipe("bootleg", _encoder(kind), levels=2, blocks=2)
    terms, wanted = _block_loss(recipe, [1, 2], 1.0)  # behind both blocks
    assert terms == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", ["ijepa", "bootleg"])
def test_without_the_term_that_is_ours_only_tokens_are_predicted(name: str) -> None:
    recipe = build_recipe(name, _encoder(), pooled=0.0)
    assert set(recipe(recipe.views(_samples(), torch.Generator().manual_seed(2)))) == {"tokens"}
    assert not any("front" in key for key in recipe.state_dict())


@pytest.mark.parametrize("name", ["mae", "ijepa", "bootleg", "crobo"])
def test_masked_recipes_ask_for_their_masks(name: str) -> None:
    images = _samples()
    with pytest.raises(InputError, match="no masks; make them with the recipe's own `views`"):
        build_recipe(name, _encoder())(Views((images, images)))


@pytest.mark.parametrize(("depth", "levels", "wanted"), [(6, 3, [2, 4, 6]), (6, 4, [2, 3, 4, 6]), (2, 3, [1, 2])])
def test_bootlegs_depths_are_spread_evenly(depth: int, levels: int, wanted: list[int]) -> None:
    encoder = build_encoder("vit_micro", image_spec(16, 24), dim=16, depth=depth, heads=2, patch=4)
    recipe = build_recipe("bootleg", encoder, levels=levels)
    assert list(recipe.blocks.levels) == wanted


@pytest.mark.parametrize("name", ["ijepa", "bootleg"])
def test_a_block_is_predicted_without_what_is_in_it(name: str) -> None:
    recipe = build_recipe(name, _encoder(), blocks=1)
    images = _samples(batch=2)
    masks = Masks(keep=torch.tensor([[0, 1, 2]] * 2), hide=torch.tensor([[3, 4]] * 2))
    other = images.clone()
    other[:, :, 4:] = torch.rand(2, 3, 4, 12)  # the lower half
    predicted = _outputs(recipe.get_submodule("blocks.predictor"))
    recipe(Views((images, images), masks))
    recipe(Views((other, other), masks))
    assert torch.equal(predicted[0], predicted[2])
    assert torch.equal(predicted[1], predicted[3])


@pytest.mark.parametrize("name", ["ijepa", "bootleg"])
def test_a_masked_teacher_moves_by_its_schedule(name: str) -> None:
    recipe = build_recipe(name, _encoder(), momentum=0.8)
    student, teacher = next(recipe.encoder.parameters()), next(recipe.teacher.parameters())
    start = teacher.clone()
    with torch.no_grad():
        student.add_(1)
    recipe.after_step(0, 10)
    torch.testing.assert_close(teacher, start + 0.2)


def test_crobo_is_the_error_of_mae_on_the_local_crop() -> None:
    recipe = build_recipe("crobo", _encoder(), hidden=0.5)
    batch = recipe.views(_samples(), torch.Generator().manual_seed(2))
    painted = _outputs(recipe.decoder)
    loss = recipe(batch)["pixels"].item()
    assert loss == pytest.approx(_painting_error(recipe, batch.views[1], _masks(batch), painted[0]), rel=1e-4)


def test_crobos_source_reaches_the_decoder_as_one_vector() -> None:
    recipe = build_recipe("crobo", _encoder(), hidden=0.5)
    given: list[Tensor] = []
    recipe.decoder.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    batch = recipe.views(_samples(), torch.Generator().manual_seed(2))
    recipe(batch)
    assert given[0].shape == (3, 1 + 3, 16)
    torch.testing.assert_close(given[0][:, 0], recipe.front(recipe.encoder.features(batch.views[0])))


def test_crobos_local_crop_lies_in_its_source() -> None:
    recipe = build_recipe("crobo", _encoder(), views={"area": [1.0, 1.0], "aspect": [1.0, 1.0], "flip": 0.0})
    ramp = torch.linspace(0, 1, 12).expand(40, 3, 8, 12)
    source, local = recipe.views(ramp, torch.Generator().manual_seed(0)).views
    torch.testing.assert_close(source, ramp)
    width = (local[:, 0, 0, -1] - local[:, 0, 0, 0]).clamp_min(0)
    assert (local[:, 0, 0].diff() >= 0).all()  # not mirrored
    assert 0.35 < width.min() < width.max() < 0.95


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("ijepa", "blocks", 0),
        ("ijepa", "momentum", 1.5),
        ("ijepa", "pooled", -1.0),
        ("bootleg", "levels", 0),
        ("crobo", "hidden", 1.0),
        ("crobo", "local", [0.5, 1.5]),
        ("crobo", "width", 30),
    ],
)
def test_a_masked_setting_out_of_range_is_named(name: str, option: str, value: object) -> None:
    with pytest.raises(InputError, match=option):
        build_recipe(name, _encoder(), **{option: value})
