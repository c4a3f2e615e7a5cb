"""CIFAR-10-C-style corruptions do what their names and constants say."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
from corruption_kinds import disk_kernel, line_weights, plasma
from corruptions import BENCHMARK, EXTRA, cifar10, corrupt
from numpy.testing import assert_allclose
from PIL import Image
from scipy import ndimage

from edgessl.errors import InputError, UnknownNameError

NAMES = [*BENCHMARK, *EXTRA]
# The published constants are not monotone here, or trade one kind of damage for another.
UNEVEN = {"glass_blur", "motion_blur", "snow", "frost", "elastic_transform", "spatter", "saturate"}


@pytest.fixture(scope="module")
def scenes() -> np.ndarray:
    """37 frames of blobs before a sloping ground: edges, colour and structure at several scales."""
    rng = np.random.default_rng(5)
    smooth = sum(ndimage.gaussian_filter(rng.normal(size=(37, 32, 32, 3)), (0, s, s, 0)) * s for s in (0.6, 2, 6))
    edges = ndimage.gaussian_filter(rng.normal(size=(37, 32, 32, 1)), (0, 3, 3, 0)) > 0
    images = 0.5 + 0.18 * smooth + np.where(edges, 0.15, -0.15) * rng.uniform(-1, 1, (37, 1, 1, 3))
    return (images.clip(0, 1) * 255).astype(np.uint8)


def flat(value: int, count: int = 200) -> np.ndarray:
    return np.full((count, 32, 32, 3), value, np.uint8)


def test_there_are_15_and_4_each_with_5_severities():
    assert (len(BENCHMARK), len(EXTRA)) == (15, 4)
    assert {len(each) for each in [*BENCHMARK.values(), *EXTRA.values()]} == {5}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes_and_leaves_the_frames_alone(name, scenes):
    before = scenes.copy()
    first, again = (corrupt(name, scenes, severity=3, seed=7) for _ in range(2))
    assert first.shape == scenes.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert np.array_equal(scenes, before)
    assert not np.array_equal(first, scenes)
    drawn = not np.array_equal(first, corrupt(name, scenes, severity=3, seed=8))
    fixed = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur")
    assert drawn == (name not in (*fixed, "saturate"))


@pytest.mark.parametrize("name", NAMES)
def test_a_higher_severity_is_farther_from_the_frame(name, scenes):
    wide = [np.abs(corrupt(name, scenes, severity=s, seed=1) - scenes.astype(float)).mean() for s in range(1, 6)]
    assert min(wide) > 0.3
    if name not in UNEVEN:
        assert np.all(np.diff(wide) > 0), wide
    elif name not in ("spatter", "elastic_transform"):
        assert wide[4] > wide[0]


def test_what_does_not_exist_is_said(scenes):
    with pytest.raises(UnknownNameError, match="did you mean 'snow'"):
        corrupt("snoww", scenes, severity=1, seed=0)
    with pytest.raises(InputError, match="severity 6 does not exist; choose 1 to 5"):
        corrupt("snow", scenes, severity=6, seed=0)
    with pytest.raises(InputError, match=r"not float64 \(2, 32, 32, 3\)"):
        corrupt("snow", np.zeros((2, 32, 32, 3)), severity=1, seed=0)


@pytest.mark.parametrize("severity", [1, 5])
def test_noise_has_the_spread_it_is_called_by(severity):
    grey, at = flat(128), 128 / 255
    for name, sigma in (
        ("gaussian_noise", BENCHMARK["gaussian_noise"][severity - 1]),
        ("speckle_noise", EXTRA["speckle_noise"][severity - 1] * at),
        ("shot_noise", np.sqrt(at / BENCHMARK["shot_noise"][severity - 1])),  # a Poisson count's variance is its mean
    ):
        noisy = corrupt(name, grey, severity=severity, seed=0) / 255
        assert_allclose(noisy.mean(), at, atol=0.001, err_msg=name)
        assert_allclose(noisy.std(), sigma, rtol=0.01, err_msg=name)


def test_impulses_are_salt_and_pepper_by_halves():
    for severity, amount in enumerate(BENCHMARK["impulse_noise"], 1):
        hit = corrupt("impulse_noise", flat(128), severity=severity, seed=0)
        assert_allclose([(hit == 0).mean(), (hit == 255).mean()], amount / 2, rtol=0.05)
        assert_allclose((hit == 128).mean(), 1 - amount, atol=0.001)


def test_contrast_shrinks_about_each_channels_mean(scenes):
    x = scenes / 255
    mean = x.mean((1, 2), keepdims=True)
    for severity, factor in enumerate(BENCHMARK["contrast"], 1):
        low = corrupt("contrast", scenes, severity=severity, seed=0) / 255
        assert_allclose(low, mean + factor * (x - mean), atol=0.51 / 255)


@pytest.mark.parametrize("severity", [1, 4, 5])
@pytest.mark.parametrize("name", ["brightness", "saturate"])
def test_colours_change_as_in_hsv(name, severity, scenes):
    frames = scenes[:1].copy()
    frames[0, 0, :3] = [[0, 0, 0], [90, 90, 90], [255, 255, 255]]  # no hue
    changed = corrupt(name, frames, severity=severity, seed=0)
    factor, more = EXTRA["saturate"][severity - 1]
    for pixel, found in zip(frames.reshape(-1, 3) / 255, changed.reshape(-1, 3) / 255, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        if name == "brightness":
            value = min(value + BENCHMARK["brightness"][severity - 1], 1)
        else:
            saturation = np.clip(saturation * factor + more, 0, 1)
        assert_allclose(found, colorsys.hsv_to_rgb(hue, saturation, value), atol=0.51 / 255)


def test_pixelate_is_a_smaller_image_and_its_nearest_pixels(scenes):
    found = corrupt("pixelate", scenes, severity=5, seed=0)
    for frame, each in zip(scenes, found, strict=True):
        small = Image.fromarray(frame).resize((20, 20), Image.Resampling.BOX)  # 0.65 of 32
        assert np.array_equal(each, np.asarray(small.resize((32, 32), Image.Resampling.NEAREST)))


def test_jpeg_is_pillows_at_that_quality(scenes):
    for severity, quality in enumerate(BENCHMARK["jpeg_compression"], 1):
        file = io.BytesIO()
        Image.fromarray(scenes[3]).save(file, "JPEG", quality=quality)
        assert np.array_equal(corrupt("jpeg_compression", scenes[3:4], severity=severity, seed=0)[0], Image.open(file))


def test_a_point_under_defocus_is_the_disk():
    point = np.zeros((1, 32, 32, 3), np.uint8)
    point[0, 16, 16] = 255
    for severity, (radius, alias) in enumerate(BENCHMARK["defocus_blur"], 1):
        kernel = disk_kernel(radius, alias)
        assert_allclose(kernel.sum(), 1)
        assert_allclose(kernel, kernel.T)
        seen = corrupt("defocus_blur", point, severity=severity, seed=0)[0, 13:20, 13:20, 1] / 255
        assert_allclose(seen, kernel, atol=0.51 / 255)
    sharp = disk_kernel(1.5, 0.1)  # hardly softened: 9 pixels lie within 1.5 of the middle
    assert_allclose(sharp[2:5, 2:5], 1 / 9, atol=1e-6)
    assert sharp.sum() - sharp[2:5, 2:5].sum() < 1e-6


def test_a_gaussian_blur_has_its_sigma():
    edge = np.zeros((1, 32, 32, 3), np.uint8)
    edge[:, :, 16:] = 255
    for severity, sigma in enumerate(EXTRA["gaussian_blur"], 1):
        across = np.diff(corrupt("gaussian_blur", edge, severity=severity, seed=0)[0, 16, :, 0] / 255.0)
        place = np.arange(31)
        middle = (across * place).sum()
        taps = np.exp(-(np.arange(-4, 5) ** 2) / (2 * sigma**2))
        assert_allclose(middle, 15)
        assert_allclose(
            (across * (place - middle) ** 2).sum(), (taps * np.arange(-4, 5) ** 2).sum() / taps.sum(), atol=0.02
        )


def test_motion_smears_a_point_one_way_along_a_line():
    point = np.zeros((300, 32, 32, 3), np.uint8)
    point[:, 16, 16] = 255
    for severity, (radius, sigma) in enumerate(BENCHMARK["motion_blur"], 1):
        weights = line_weights(radius, sigma)
        assert_allclose(weights.sum(), 1)
        assert len(weights) == 2 * radius + 1
        assert_allclose(weights[1] / weights[0], np.exp(-1 / (2 * sigma**2)))
        seen = corrupt("motion_blur", point, severity=severity, seed=0)[..., 0] / 255.0
        assert_allclose(seen.sum((1, 2)), 1, atol=0.02)
        assert_allclose(seen.sum(1)[:, 17:], 0)  # what comes from the right lies to the left
        tilt = (seen.sum(2) * np.arange(32)).sum(1) / seen.sum((1, 2)) - 16
        assert -0.3 < tilt.mean() / np.abs(tilt).max() < 0.3  # as often up as down


def test_zoom_blur_holds_the_middle_and_smears_outwards():
    ring = np.zeros((1, 32, 32, 3), np.uint8)
    ring[:, 15:17, 15:17] = 255
    ring[:, 4, 4] = 255
    seen = corrupt("zoom_blur", ring, severity=5, seed=0)[0, :, :, 0]
    assert seen[15:17, 15:17].min() > 240
    assert 0 < seen[4, 4] < 128
    assert seen[:4, :4].max() > 0
    assert seen[5:13, 5:13].max() == 0
    assert np.array_equal(seen[15:17, 15:17], seen[15:17, 15:17].T)


def test_glass_moves_pixels_to_the_next_place_only():
    ramp = np.repeat(np.arange(32, dtype=np.uint8)[:, None] * 5, 32, 1)  # the row, by 5
    frames = np.repeat(np.stack([ramp, ramp.T, ramp], -1)[None], 5, 0)
    moved = corrupt("glass_blur", frames, severity=1, seed=0).astype(int) - frames  # its blur is none
    assert set(np.unique(moved)) == {-5, 0}
    assert_allclose((moved[:, 2:, 2:] == 0).mean(), 0.5, atol=0.02)
    assert not moved[:, :2].any()


def test_plasma_is_rougher_when_it_decays_less():
    rng = np.random.default_rng(0)
    maps = {decay: plasma(50, decay, rng) for decay in (1.2, 1.75, 3.0)}
    rough = [np.abs(np.diff(each, axis=2)).mean() for each in maps.values()]
    assert rough[0] > rough[1] > rough[2]
    for each in maps.values():
        assert_allclose(each.min((1, 2)), 0)
        assert_allclose(each.max((1, 2)), 1)
        inside, around = np.abs(np.diff(each, axis=1)).mean(), np.abs(each[:, 0] - each[:, -1]).mean()
        assert_allclose(around, inside, rtol=0.35)  # it goes round


def test_fog_is_plasma_that_keeps_the_brightest_value():
    severity, (weight, decay) = 5, BENCHMARK["fog"][4]
    rng = np.random.default_rng([*b"fog", severity, 3])
    veil = weight * plasma(9, decay, rng)[..., None]
    found = corrupt("fog", flat(100, 9), severity=severity, seed=3) / 255
    at = 100 / 255
    assert_allclose(found, np.broadcast_to((at + veil) * at / (at + weight), found.shape), atol=0.51 / 255)


def test_snow_and_frost_brighten_and_mud_darkens():
    dark, light = flat(40), flat(220)
    for name in ("snow", "frost"):
        assert all(corrupt(name, dark, severity=s, seed=0).mean() > 40 for s in range(1, 6))
    frost = corrupt("frost", flat(0), severity=5, seed=0).mean((0, 1, 2))
    assert frost[2] > frost[0]  # ice is bluish
    assert np.all(frost / 255 < BENCHMARK["frost"][4][1])
    mud, water = (corrupt("spatter", light, severity=s, seed=0).astype(int) for s in (5, 1))
    assert mud.min() < 70
    assert mud.max() == 220
    assert (water - 220).min() == 0


def test_elastic_moves_little_and_its_waves_stay_in_bounds():
    yy, xx = np.mgrid[:32, :32]
    frames = np.repeat(np.stack([yy, xx, yy], -1)[None] * 6, 100, 0).astype(np.uint8)  # the place, by 6
    for severity, (alpha, _, jitter) in enumerate(BENCHMARK["elastic_transform"], 1):
        moved = (corrupt("elastic_transform", frames, severity=severity, seed=0).astype(float) - frames)[
            :, 12:20, 12:20
        ] / 6
        assert np.abs(moved[..., :2].mean((0, 1, 2))).max() < 0.5  # no way is preferred
        assert 0.2 < np.abs(moved).mean() < 32 * (alpha + jitter)


@pytest.mark.slow  # the loader's own imports
def test_the_first_frames_of_a_split_come_with_their_labels(tmp_path, scenes):
    files = []
    for frame in scenes[:4]:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    packed = np.frombuffer(b"".join(files), np.uint8)
    (tmp_path / "cifar10").mkdir()
    labels = np.array([7, 3, 7, 1], np.uint8)
    offsets = np.cumsum([0, *map(len, files)])
    np.savez(tmp_path / "cifar10" / "cifar10.npz", jpeg_test=packed, off_test=offsets, y_test=labels)
    frames, found = cifar10(tmp_path, "test", 3)
    assert np.array_equal(frames[2], Image.open(io.BytesIO(files[2])))
    assert (frames.shape, frames.dtype, found.dtype) == ((3, 32, 32, 3), np.uint8, np.int64)
    assert np.array_equal(found, labels[:3])
