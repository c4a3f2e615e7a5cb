"""Tokens seen in part, against the whole encoder, numpy and counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgessl.blocks.tokens import (
    TokenDecoder,
    block_places,
    encode,
    encode_stages,
    patches,
    random_places,
    tokens_of,
)
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import InputError
from edgessl.signals import image_spec, series_spec


def _encoder(kind: str) -> EncoderModule:
    torch.manual_seed(0)
    if kind == "image":
        return build_encoder("vit_micro", image_spec(8, 12), dim=16, depth=2, heads=2, patch=4)
    return build_encoder("vit_series", series_spec(3, 20), dim=16, depth=2, heads=2, patch=4, mean=[1, 2, 3])


def _samples(kind: str) -> torch.Tensor:
    return torch.rand(3, 3, 8, 12) if kind == "image" else torch.randn(3, 3, 20)


def test_images_and_series_say_how_they_are_cut() -> None:
    image, series = tokens_of(_encoder("image"), "x"), tokens_of(_encoder("series"), "x")
    assert (image.prefix, image.grid, image.patch) == (1, (2, 3), (4, 4))
    assert (series.prefix, series.grid, series.patch) == (0, (5,), (4,))


@pytest.mark.parametrize(
    ("name", "instead"), [("conv_small", "--encoder vit_micro"), ("conv_series", "--encoder vit_series")]
)
def test_an_encoder_without_tokens_is_told_what_to_type(name: str, instead: str) -> None:
    spec = image_spec(16, 24) if instead.endswith("micro") else series_spec(3, 40)
    with pytest.raises(InputError, match=f"recipe 'mae' .* '{name}' is none. Type {instead}"):
        tokens_of(build_encoder(name, spec), "mae")


def test_an_encoder_of_one_patch_has_nothing_to_hide() -> None:
    encoder = build_encoder("vit_series", series_spec(3, 8), dim=16, depth=2, heads=2, patch=8)
    with pytest.raises(InputError, match="one patch"):
        tokens_of(encoder, "mae")


@pytest.mark.parametrize("kind", ["image", "series"])
def test_all_tokens_are_what_the_encoder_pools(kind: str) -> None:
    encoder, samples = _encoder(kind).eval(), _samples(kind)
    torch.testing.assert_close(encoder.pool(encode(encoder, samples)), encoder.features(samples))
    assert len(encode_stages(encoder, samples)) == len(encoder.stages)


@pytest.mark.parametrize("kind", ["image", "series"])
def test_what_is_hidden_changes_nothing(kind: str) -> None:
    encoder, samples = _encoder(kind).eval(), _samples(kind)
    count = torch.Size(tokens_of(encoder, "x").grid).numel()
    keep = torch.tensor([[count - 1, 0]] * 3)  # the order is ours
    found = encode(encoder, samples, keep)
    other = samples.clone()
    other[..., 4:8] = 9  # the second column of patches, or the second patch
    torch.testing.assert_close(encode(encoder, other, keep), found)
    assert not torch.allclose(encode(encoder, other), encode(encoder, samples))


def test_patches_of_a_frame_that_is_not_square_run_row_by_row() -> None:
    images = torch.rand(2, 3, 9, 12)
    cut = patches(images, (2, 3), (4, 4))  # the ninth row belongs to no patch
    assert cut.shape == (2, 6, 48)
    assert torch.equal(cut[1, 5], images[1, :, 4:8, 8:12].permute(1, 2, 0).flatten())


def test_patches_of_a_series_run_through_time() -> None:
    series = torch.randn(2, 3, 21)
    cut = patches(series, (5,), (4,))
    assert cut.shape == (2, 5, 12)
    assert torch.equal(cut[1, 2], series[1, :, 8:12].T.flatten())


@pytest.mark.parametrize("grid", [(2, 3), (6,)])
def test_a_decoder_knows_places_and_not_their_order(grid: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    decoder = TokenDecoder(grid, 10, 7, width=16, depth=2, heads=2).eval()
    tokens = torch.randn(2, 1 + 3, 10)
    keep, ask = torch.tensor([[4, 0, 2], [1, 3, 5]]), torch.tensor([[1, 3], [0, 2]])
    filled = decoder(tokens, keep, ask)
    assert filled.shape == (2, 2, 7)
    turned = decoder(tokens[:, [0, 3, 2, 1]], keep.flip(1), ask.flip(1)).flip(1)
    torch.testing.assert_close(turned, filled, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(decoder(tokens, keep.flip(1), ask), filled, atol=1e-3)


def test_positions_of_one_axis_are_sines() -> None:
    places = TokenDecoder((6,), 10, 7, width=8, depth=1, heads=2).blocks.pos_embed[0].detach().numpy()
    angle = np.arange(6)[:, None] / 10000 ** (np.arange(4) / 4)
    np.testing.assert_allclose(places, np.concatenate([np.sin(angle), np.cos(angle)], 1), atol=1e-6)


@pytest.mark.parametrize(("grid", "width"), [((2, 3), 18), ((6,), 15), ((6,), 0)])
def test_a_width_that_cannot_be_shared_is_named(grid: tuple[int, ...], width: int) -> None:
    with pytest.raises(InputError, match=f"width must be .* not {width}"):
        TokenDecoder(grid, 4, 4, width=width, depth=1, heads=3)


@pytest.mark.parametrize(
    ("count", "hidden", "kept"), [(20, 0.9, 2), (64, 0.75, 16), (7, 0.6, 3), (2, 0.99, 1), (2, 0.01, 1), (5, 0.01, 4)]
)
def test_a_share_of_the_places_is_hidden_never_all_and_never_none(count: int, hidden: float, kept: int) -> None:
    keep, hide = random_places(3, count, hidden, torch.Generator().manual_seed(0))
    assert (keep.shape, hide.shape) == ((3, kept), (3, count - kept))


def test_random_places_are_every_place_once() -> None:
    keep, hide = random_places(50, 7, 0.6, torch.Generator().manual_seed(0))
    assert keep.shape == (50, 3)
    assert torch.equal(torch.cat([keep, hide], 1).sort(1).values, torch.arange(7).expand(50, 7))
    assert len({tuple(row) for row in keep.tolist()}) > 20


@pytest.mark.parametrize("grid", [(8, 8), (4, 6), (16,)])
def test_the_context_of_blocks_holds_no_target(grid: tuple[int, ...]) -> None:
    count = torch.Size(grid).numel()
    for seed in range(20):
        keep, targets = block_places(30, grid, torch.Generator().manual_seed(seed))
        assert keep.shape[1] >= 1
        assert targets.shape[:2] == (30, 4)
        assert 0.1 <= targets.shape[2] / count <= 0.25
        for sample in range(30):
            assert len(set(keep[sample].tolist())) == keep.shape[1]
            assert not set(keep[sample].tolist()) & set(targets[sample].flatten().tolist())
        places = targets.flatten(0, 1)
        if len(grid) == 1:
            assert torch.equal(places - places[:, :1], torch.arange(targets.shape[2]).expand_as(places))
        else:
            row, column = places // grid[1], places % grid[1]
            height, width = (axis.amax(1) - axis.amin(1) + 1 for axis in (row, column))
            assert torch.equal(height * width, torch.full_like(height, targets.shape[2]))


@pytest.mark.parametrize("grid", [(8, 8), (4, 6), (3, 3), (10,), (16,)])
def test_blocks_leave_something_whatever_size_is_drawn(grid: tuple[int, ...]) -> None:
    for seed in range(200):
        keep, targets = block_places(2, grid, torch.Generator().manual_seed(seed))
        assert keep.shape[1] >= 1
        assert 4 * targets.shape[2] < torch.Size(grid).numel()


def test_blocks_that_leave_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="4 blocks of 1x1 patches leave nothing of 2x2"):
        block_places(2, (2, 2), torch.Generator())
