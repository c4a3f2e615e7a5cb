"""Masked recipes against the papers' formulas in numpy, from the outputs of the recipe's own parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

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
    assert masks.keep.shape == (4, 1)
    assert torch.equal(torch.cat([masks.keep, masks.hide], 1).sort(1).values, torch.arange(6).expand(4, -1))
    assert len({tuple(row) for row in masks.hide.tolist()}) > 1


@pytest.mark.parametrize("name", ["mae"])
def test_an_encoder_without_tokens_is_named(name: str) -> None:
    with pytest.raises(InputError, match=r"'conv_small' is none\. Type --encoder vit_micro"):
        build_recipe(name, build_encoder("conv_small", image_spec(16, 24), widths=(6, 8), dim=10))
