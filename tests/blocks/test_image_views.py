"""Views: one draw per sample, from the generator that is passed in, on images that stay images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgessl.blocks.image_views import ImageViewConfig, blur, crop, random_image_view, recolour
from edgessl.errors import InputError

NOTHING = ImageViewConfig(area=(1, 1), aspect=(1, 1), turn_deg=0, flip=0, light=0, grey=0, blur=0, noise=0)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(batch: int = 5, height: int = 20, width: int = 14) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=_generator(9))


def _only(**settings: Any) -> ImageViewConfig:
    """A config in which nothing else changes."""
    same: dict[str, Any] = {"contrast": (1, 1), "saturation": (1, 1), "tint": 0, "gamma": (1, 1), "gain": (1, 1)}
    still: dict[str, Any] = {
        "area": (1, 1),
        "aspect": (1, 1),
        "turn_deg": 0,
        "flip": 0,
        "light": 0,
        "grey": 0,
        "blur": 0,
    }
    return ImageViewConfig(**{**same, **still, "noise": 0, **settings})


def test_a_view_is_an_image_of_the_same_size() -> None:
    images = _images()
    view = random_image_view(images, _generator(), ImageViewConfig())
    assert view.shape == images.shape
    assert view.dtype == images.dtype
    assert 0 <= view.min() <= view.max() <= 1


def test_extreme_settings_stay_finite_and_within_0_and_1() -> None:
    config = ImageViewConfig(
        area=(0.01, 3), gain=(0.01, 9), gamma=(0.1, 9), tint=3, contrast=(0, 9), noise=2, blur_sigma=(0.1, 1)
    )
    images = torch.stack([torch.zeros(3, 20, 14), torch.ones(3, 20, 14), *_images(3)])
    view = random_image_view(images, _generator(), config)
    assert torch.isfinite(view).all()
    assert 0 <= view.min() <= view.max() <= 1


def test_the_same_seed_gives_the_same_view_and_another_seed_another() -> None:
    images = _images()
    first, again, other = (random_image_view(images, _generator(seed), ImageViewConfig()) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.05)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    random_image_view(_images(), _generator(), ImageViewConfig())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_later_draw_from_one_generator_differs() -> None:
    generator, images = _generator(), _images()
    assert not torch.allclose(
        random_image_view(images, generator, ImageViewConfig()),
        random_image_view(images, generator, ImageViewConfig()),
        atol=0.05,
    )


@pytest.mark.parametrize(
    "config",
    [
        _only(area=(0.2, 0.5)),
        _only(turn_deg=40),
        _only(light=1, gain=(0.2, 0.9)),
        _only(light=1, gamma=(0.5, 2)),
        _only(light=1, tint=0.5),
        _only(light=1, contrast=(0.2, 0.9)),
        _only(light=1, saturation=(0, 0.9)),
        _only(blur=1, blur_sigma=(0.02, 0.1)),
        _only(noise=0.2),
    ],
)
def test_every_sample_of_a_batch_is_changed_in_its_own_way(config: ImageViewConfig) -> None:
    image = _images(1).expand(6, -1, -1, -1)
    views = random_image_view(image, _generator(), config).flatten(1)
    apart = torch.cdist(views, views) + torch.eye(6)
    assert apart.min() > 1e-3
    assert (views - image.flatten(1)).norm(dim=1).min() > 1e-3


def test_settings_of_nothing_change_nothing() -> None:
    images = _images()
    torch.testing.assert_close(random_image_view(images, _generator(), NOTHING), images, atol=1e-5, rtol=0)


def test_probabilities_are_kept() -> None:
    images = _images(400, 6, 6)
    grey = random_image_view(images, _generator(), _only(grey=0.3))
    share = (grey.std(1).amax((1, 2)) < 1e-5).float().mean().item()
    assert abs(share - 0.3) < 0.08
    mirrored = random_image_view(images, _generator(), _only(flip=0.3))
    share = torch.isclose(mirrored, images.flip(3), atol=1e-4).all(3).all(2).all(1).float().mean().item()
    assert abs(share - 0.3) < 0.08


def test_gain_darkens_by_its_factor() -> None:
    images = _images()
    dark = random_image_view(images, _generator(), _only(light=1, gain=(0.25, 0.25)))
    torch.testing.assert_close(dark, images / 4, atol=1e-5, rtol=0)


def test_gamma_is_a_power() -> None:
    images = _images()
    view = random_image_view(images, _generator(), _only(light=1, gamma=(2, 2)))
    torch.testing.assert_close(view, images**2, atol=1e-5, rtol=0)


def test_noise_has_the_spread_that_was_asked_for() -> None:
    images = torch.full((200, 3, 16, 16), 0.5)
    spread = random_image_view(images, _generator(), _only(noise=0.1)).std((1, 2, 3))
    assert spread.max() < 0.11
    assert abs(spread.mean().item() - 0.05) < 0.008  # drawn evenly from 0 to 0.1


def test_recolour_follows_its_formula() -> None:
    images, (grey, factor) = _images(2), (np.array([0.299, 0.587, 0.114]), np.array([1.1, 0.8, 0.9]))
    contrast, saturation = torch.tensor([0.7, 1.3]).view(2, 1, 1, 1), torch.tensor([0.5, 1.5]).view(2, 1, 1, 1)
    tint = torch.tensor(factor, dtype=torch.float32).view(1, 3, 1, 1).expand(2, -1, -1, -1)
    view = recolour(images, contrast=contrast, saturation=saturation, tint=tint).numpy()
    for image, seen, c, s in zip(images.numpy(), view, (0.7, 1.3), (0.5, 1.5), strict=True):
        luma = np.einsum("c,chw->hw", grey, image)
        tinted = (luma + s * (image - luma)) * factor[:, None, None]
        np.testing.assert_allclose(seen, tinted.mean() + c * (tinted - tinted.mean()), atol=1e-5)


def test_a_full_turn_of_a_frame_that_is_not_square_turns_pixels_not_the_grid() -> None:
    # A disc looks the same from every side; on a grid turned without regard to the sides it would be an ellipse.
    height, width = 24, 36
    rows, columns = torch.meshgrid(torch.arange(height) - 11.5, torch.arange(width) - 17.5, indexing="ij")
    disc = ((rows**2 + columns**2) < 64).float().expand(4, 3, -1, -1)
    turned = crop(disc, _generator(), area=(1, 1), aspect=(1, 1), turn_deg=180, flip=0)
    around = (slice(None), slice(None), slice(2, 22), slice(8, 28))  # without its mirror images at the border
    assert (turned - disc)[around].abs().mean() < 0.05


def test_a_crop_of_a_quarter_doubles_lengths() -> None:
    ramp = torch.linspace(0, 1, 33).expand(7, 3, 21, 33)
    view = crop(ramp, _generator(), area=(0.25, 0.25), aspect=(1, 1), turn_deg=0, flip=0)
    slope = view.diff(dim=3)
    torch.testing.assert_close(slope, torch.full_like(slope, 1 / 32 / 2), atol=1e-4, rtol=0)
    starts = view[:, 0, 0, 0]
    assert starts.max() - starts.min() > 0.1  # from different places


def test_a_crop_stays_inside_the_image() -> None:
    # The mirrored border would give values near 0 a second time; inside, a ramp stays a ramp.
    ramp = torch.linspace(0, 1, 40).expand(64, 3, 40, 40)
    view = crop(ramp, _generator(), area=(0.1, 0.5), aspect=(1, 1), turn_deg=0, flip=0)
    assert (view.diff(dim=3) > 0).all()


def test_blur_is_a_gaussian_with_a_sigma_per_sample() -> None:
    point = torch.zeros(3, 1, 41, 31)
    point[:, :, 20, 15] = 1
    sigma = [0.0, 0.8, 2.5]
    blurred = blur(point, torch.tensor(sigma))
    assert torch.equal(blurred[0], point[0])
    for seen, s in zip(blurred[1:, 0], sigma[1:], strict=True):
        rows, columns = np.mgrid[-20:21, -15:16]
        wanted = np.exp(-(rows**2 + columns**2) / (2 * s**2)) / (2 * math.pi * s**2)
        np.testing.assert_allclose(seen.numpy(), wanted / wanted.sum(), atol=2e-6)


def test_blur_keeps_an_even_image() -> None:
    even = torch.full((2, 3, 9, 7), 0.4)
    torch.testing.assert_close(blur(even, torch.tensor([0.5, 3.0])), even)


@pytest.mark.parametrize(
    "wrong",
    [
        {"area": (0.0, 1.0)},
        {"area": (1.0, 0.5)},
        {"gain": (-1.0, 1.0)},
        {"contrast": (-0.1, 1.0)},
        {"flip": 1.1},
        {"blur": -0.1},
        {"noise": -1.0},
        {"turn_deg": math.nan},
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        ImageViewConfig(**wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_cpu_generator_gives_the_same_views_on_a_gpu() -> None:
    images = _images()
    there = random_image_view(images.cuda(), _generator(), ImageViewConfig())
    torch.testing.assert_close(
        there.cpu(), random_image_view(images, _generator(), ImageViewConfig()), atol=1e-4, rtol=0
    )
