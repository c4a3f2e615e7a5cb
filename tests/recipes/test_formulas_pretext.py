"""Recipes that make their own answer: against numpy, from the outputs of the recipe's own parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgessl.blocks.decoders import Decoder, painting_target
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import InputError
from edgessl.recipes import Recipe, Views, build_recipe
from edgessl.recipes.inpainting import holes
from edgessl.recipes.rotation import turned
from edgessl.signals import InputSpec, image_spec, series_spec

Array = NDArray[np.float64]
PAINTERS = ("autoencoder", "denoising_autoencoder")


def _conv() -> EncoderModule:
    torch.manual_seed(0)
    return build_encoder("conv_small", image_spec(8, 12), widths=(6, 8), dim=10)


def _series(channels: int = 3, time: int = 41) -> EncoderModule:
    torch.manual_seed(0)
    return build_encoder("conv_series", series_spec(channels, time), widths=(6, 8), dim=10)


def _random(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def _array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def _watched(part: nn.Module) -> list[Tensor]:
    """What this part gives, call by call."""
    outputs: list[Tensor] = []
    part.register_forward_hook(lambda module, given, out: outputs.append(out))
    return outputs


def _batch(recipe: Recipe, samples: Tensor, seed: int = 2) -> Views:
    return recipe.views(samples, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("hidden", [0, 7])
def test_rotation_is_eq_3_of_its_paper(hidden: int) -> None:
    recipe = build_recipe("rotation", _conv(), hidden=hidden)
    batch = _batch(recipe, _random(5, 3, 8, 12))
    logits = _watched(recipe.get_submodule("head"))
    loss = recipe(batch)["turn"].item()
    assert batch.labels is not None
    scores = np.exp(_array(logits[0]))
    assert scores.shape == (5, 4)
    right = (scores / scores.sum(1, keepdims=True))[np.arange(5), batch.labels.numpy()]
    assert loss == pytest.approx(-np.log(right).mean(), rel=1e-5)


def test_square_images_are_turned_as_they_are() -> None:
    images = _random(4, 3, 5, 5)
    found = turned(images, torch.tensor([2, 0, 3, 1]))
    for row, quarters in enumerate((2, 0, 3, 1)):
        assert np.array_equal(found[row].numpy(), np.rot90(images[row].numpy(), quarters, (1, 2)))


@pytest.mark.parametrize(("height", "width"), [(8, 16), (16, 8), (9, 27)])
def test_of_other_images_the_middle_is_turned_and_enlarged_without_a_change_of_shape(height: int, width: int) -> None:
    images = _random(4, 3, height, width)
    found = turned(images, torch.tensor([0, 1, 2, 3]))
    zoom = max(height, width) // min(height, width)
    for quarters in range(4):
        whole = torch.from_numpy(np.rot90(images[quarters].numpy(), quarters, (1, 2)).copy())
        top, left = ((size - side // zoom) // 2 for size, side in zip(whole.shape[1:], (height, width), strict=True))
        middle = whole[None, :, top : top + height // zoom, left : left + width // zoom]
        wanted = nn.functional.interpolate(middle, scale_factor=zoom, mode="bilinear")
        torch.testing.assert_close(found[quarters], wanted[0])


def test_rotations_label_says_how_its_view_was_turned() -> None:
    still = {"area": (1.0, 1.0), "aspect": (1.0, 1.0), "flip": 0.0}
    recipe = build_recipe("rotation", build_encoder("conv_small", image_spec(8, 8), widths=(6, 8), dim=10), views=still)
    images = _random(9, 3, 8, 8)
    batch = _batch(recipe, images)
    assert batch.labels is not None
    for image, view, quarters in zip(images, batch.views[0], batch.labels.tolist(), strict=True):
        torch.testing.assert_close(view, image.rot90(quarters, (1, 2)), atol=1e-5, rtol=0)


def test_every_turn_is_drawn_about_equally_often() -> None:
    labels = _batch(build_recipe("rotation", _conv()), _random(400, 3, 8, 12)).labels
    assert labels is not None
    assert all(70 < count < 130 for count in torch.bincount(labels, minlength=4).tolist())


def test_rotation_and_inpainting_ask_for_their_labels() -> None:
    images = _random(3, 3, 8, 12)
    for name in ("rotation", "inpainting"):
        with pytest.raises(InputError, match="no labels; make them with the recipe's own `views`"):
            build_recipe(name, _conv())(Views((images, images)))


def test_inpainting_is_eq_1_of_its_paper_per_value_of_the_hole() -> None:
    recipe = build_recipe("inpainting", _conv(), side=0.4)
    batch = _batch(recipe, _random(5, 3, 8, 12))
    painted = _watched(recipe.get_submodule("decoder"))
    loss = recipe(batch)["pixels"].item()
    assert batch.labels is not None
    hole = np.broadcast_to(batch.labels.numpy(), (5, 3, 8, 12))
    whole = (_array(batch.views[1]) - _array(recipe.encoder.mean)) / _array(recipe.encoder.std)
    assert loss == pytest.approx(((_array(painted[0]) - whole)[hole] ** 2).mean(), rel=1e-5)


def test_the_encoder_sees_the_mean_in_the_hole_and_the_view_around_it() -> None:
    recipe = build_recipe("inpainting", _conv())
    (holed, whole), hole = (batch := _batch(recipe, _random(5, 3, 8, 12))).views, batch.labels
    assert hole is not None
    everywhere = hole.expand_as(whole)
    assert torch.equal(holed[~everywhere], whole[~everywhere])
    assert not recipe.encoder.normalize(holed)[everywhere].any()


def test_a_hole_is_a_rectangle_of_its_share_that_may_lie_at_every_border() -> None:
    found = holes(torch.zeros(300, 3, 8, 12), torch.Generator().manual_seed(0), 0.5)
    assert found.shape == (300, 1, 8, 12)
    rows, columns = found[:, 0].any(2), found[:, 0].any(1)
    assert torch.equal(found[:, 0], rows[:, :, None] & columns[:, None, :])
    assert (rows.sum(1) == 4).all()
    assert (columns.sum(1) == 6).all()
    for edge in (rows[:, 0], rows[:, -1], columns[:, 0], columns[:, -1]):
        assert 0 < edge.sum() < 150


@pytest.mark.parametrize("name", PAINTERS)
def test_the_autoencoders_loss_is_the_squared_error_of_normalised_pixels(name: str) -> None:
    recipe = build_recipe(name, _conv())
    batch = _batch(recipe, _random(5, 3, 8, 12))
    painted = _watched(recipe.get_submodule("decoder"))
    loss = recipe(batch)["paint"].item()
    whole = (_array(batch.views[1]) - _array(recipe.encoder.mean)) / _array(recipe.encoder.std)
    assert loss == pytest.approx(((_array(painted[0]) - whole) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("name", PAINTERS)
def test_the_autoencoders_loss_is_the_squared_error_of_series_in_shares_of_their_spread(name: str) -> None:
    recipe = build_recipe(name, _series())
    batch = _batch(recipe, _random(5, 3, 41) * torch.tensor([[1.0], [50.0], [0.01]]))
    painted = _watched(recipe.get_submodule("decoder"))
    loss = recipe(batch)["paint"].item()
    whole = _array(batch.views[1])
    whole = (whole - whole.mean((0, 2), keepdims=True)) / whole.std((0, 2), keepdims=True)
    assert loss == pytest.approx(((_array(painted[0]) - whole) ** 2).mean(), rel=1e-5)


def test_units_do_not_matter_and_a_channel_that_stands_still_is_zero() -> None:
    encoder, series = _series(4), _random(5, 4, 41)
    series[:, 2] = 9.81
    target = painting_target(encoder, series)
    assert not target[:, 2].any()
    other = painting_target(encoder, series * torch.tensor([[1.0], [1e-3], [7.0], [1e3]]) + 5)
    torch.testing.assert_close(other, target, atol=2e-3, rtol=0)


def test_what_is_lost_is_its_share_and_stands_at_the_mean() -> None:
    images, series = _random(40, 3, 8, 12), _random(40, 3, 41)
    for recipe, samples in ((_noisy(_conv()), images), (_noisy(_series()), series)):
        noisy, whole = _batch(recipe, samples).views
        lost = noisy != whole
        assert lost.float().mean().item() == pytest.approx(0.3, abs=0.03)
        middle = whole.mean([axis for axis in range(whole.ndim) if axis != 1], keepdim=True)
        assert torch.equal(noisy, torch.where(lost, middle, whole))
        together = (lost == lost[:, :1]).all()
        assert together if samples is images else not together  # a pixel in all colours, a channel by itself


def _noisy(encoder: EncoderModule) -> Recipe:
    return build_recipe("denoising_autoencoder", encoder, lost=0.3)


@pytest.mark.parametrize(
    "sample",
    [
        image_spec(5, 3),
        image_spec(16, 24),
        image_spec(33, 70),
        series_spec(3, 40),
        series_spec(12, 128),
        series_spec(1, 3),
    ],
    ids=lambda sample: "x".join(map(str, sample.shape)),
)
def test_a_decoder_gives_samples_of_every_size(sample: InputSpec) -> None:
    decoder = Decoder(10, sample, 32)
    wanted = (3, *sample.shape[:2]) if sample.kind == "image" else sample.shape
    assert decoder(torch.randn(2, 10)).shape == (2, *wanted)


@pytest.mark.parametrize("encoder", [_conv, _series])
def test_a_decoder_learns_to_paint_a_handful_of_samples(encoder: object) -> None:
    made = _conv() if encoder is _conv else _series()
    codes, shape = torch.eye(5, 10), (5, 3, 8, 12) if encoder is _conv else (5, 3, 41)
    decoder = Decoder(10, made.input, 32)
    target = painting_target(made, _random(*shape))
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-2)
    for _ in range(150):
        loss = nn.functional.mse_loss(decoder(codes), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * target.var().item()


@pytest.mark.parametrize(
    ("recipe", "option", "value"),
    [
        ("rotation", "hidden", -1),
        ("inpainting", "side", 1.0),
        ("inpainting", "width", 0),
        ("autoencoder", "width", 0),
        ("denoising_autoencoder", "lost", 0.0),
        ("denoising_autoencoder", "width", 0),
    ],
)
def test_a_setting_of_these_out_of_range_is_named(recipe: str, option: str, value: float) -> None:
    with pytest.raises(InputError, match=option):
        build_recipe(recipe, _conv(), **{option: value})
