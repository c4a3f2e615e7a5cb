"""The front moves to where the closed forms say, and takes away what a sensor did."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from edgessl.runtimes.adapt.equalize import EqualizeConfig, Equalizer
from edgessl.runtimes.framefilter import FrameFilter
from edgessl.runtimes.spectrum import frame_spectra
from edgessl.runtimes.stem import PatchMap

SIZE, KERNEL = (24, 20), (3, 3)


def images(count: int, seed: int) -> np.ndarray:
    """Smooth scenes with a little texture, `(count, 3, 24, 20)`, colours uncorrelated, brightness of their own."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(count, 3, *SIZE)), (0, 0, 2, 2)) * 4
    return (smooth + 0.1 * rng.normal(size=smooth.shape) + rng.normal(0, 0.7, (count, 3, 1, 1))).astype(np.float32)


@pytest.fixture(scope="module")
def source() -> dict[str, np.ndarray]:
    means, power = frame_spectra(images(400, 1), np.eye(3))
    return {
        "spectrum.axes": np.eye(3),
        "spectrum.mean": means.mean(0),
        "spectrum.var": means.var(0),
        "spectrum.power": power / 400,
        "spectrum.size": np.array(SIZE),
        "prepare.mean": np.full(3, 0.5),
        "prepare.std": np.full(3, 0.25),
    }


def fitted(source, stream: np.ndarray, kernel: tuple[int, int] | None, **settings) -> PatchMap | FrameFilter:
    equalizer = Equalizer(source, kernel, EqualizeConfig(**({"trust": 1e-3} | settings)))
    assert equalizer.observe(stream)
    assert equalizer.candidate is not None
    return equalizer.candidate


def patches(stream: np.ndarray) -> np.ndarray:
    """`(patches, channels, positions)`."""
    windows = np.lib.stride_tricks.sliding_window_view(stream, KERNEL, axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, stream.shape[1], KERNEL[0] * KERNEL[1]).astype(np.float64)


def mapped(front: PatchMap, stream: np.ndarray) -> np.ndarray:
    return np.einsum("kpq,nkq->nkp", front.blocks, patches(stream)) + front.shift


def test_the_sources_own_frames_are_left_alone(source):
    stream = images(400, 2)
    front = fitted(source, stream, KERNEL)
    assert isinstance(front, PatchMap)
    before = patches(stream)
    assert np.sqrt(((mapped(front, stream) - before) ** 2).mean()) < 0.1 * before.std()
    whole = fitted(source, stream, None)
    assert isinstance(whole, FrameFilter)
    assert np.abs(np.log(whole.gain)).mean() < 0.1


def test_a_lost_contrast_comes_back_and_the_frames_brightness_stays(source):
    stream = images(400, 3)
    own = stream.mean((2, 3), keepdims=True)
    flat = own + (stream - own) * 0.2
    whole = fitted(source, flat, None)
    np.testing.assert_allclose(np.median(whole.gain), 5, rtol=0.05)
    np.testing.assert_allclose(whole.mean_gain, 1, atol=0.15)


def test_the_map_comes_closer_to_the_clean_patches_than_the_noise_left_them(source):
    clean = images(400, 4)
    noisy = clean + np.random.default_rng(5).normal(0, 0.4, clean.shape).astype(np.float32)
    front = fitted(source, noisy, KERNEL)
    was = ((patches(noisy) - patches(clean)) ** 2).mean()
    assert ((mapped(front, noisy) - patches(clean)) ** 2).mean() < 0.6 * was


def test_it_is_the_least_squares_fit_of_what_the_filter_puts_into_patches(source):
    """Beside a regression of filtered patches on patches: away from the border, where the stationary model is exact."""
    clean = images(600, 6)
    stream = clean + np.random.default_rng(7).normal(0, 0.3, clean.shape).astype(np.float32)
    whole, front = (fitted(source, stream, kernel, smooth=0.01) for kernel in (None, KERNEL))
    from scipy.fft import dctn, idctn

    own = stream.mean((2, 3), keepdims=True)
    coefficients = dctn(stream - own, axes=(2, 3), norm="ortho") * whole.gains
    wanted = (
        idctn(coefficients, axes=(2, 3), norm="ortho")
        + own * whole.mean_gain[:, None, None]
        + whole.shift[:, None, None]
    )
    inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    seen, aim = patches(stream[inner]), patches(wanted[inner])
    error = ((mapped(front, stream[inner]) - aim) ** 2).mean()
    regressed = 0.0
    for channel in range(3):
        x = np.concatenate([seen[:, channel], np.ones((len(seen), 1))], 1)
        solution = np.linalg.lstsq(x, aim[:, channel], rcond=None)[0]
        regressed += ((x @ solution - aim[:, channel]) ** 2).mean() / 3
    assert error < 1.1 * regressed
    assert regressed < 0.5 * ((seen - aim) ** 2).mean()


def test_a_filter_is_smooth_along_frequencies(source):
    """The logarithm of the ratio of powers, each band averaged with all others but the frame's mean, by normal weights."""
    noisy = images(40, 8) + np.random.default_rng(9).normal(0, 0.5, (40, 3, *SIZE)).astype(np.float32)
    rough, smooth = (fitted(source, noisy, None, smooth=share, clip=1e9) for share in (0.01, 0.1))
    wanted, place = np.zeros_like(rough.gain), np.log1p(np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), -1))
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            weights = np.exp(-0.5 * np.square((place - place[row, column]) / 0.1).sum(-1))
            weights[0, 0] = 0
            wanted[:, row, column] = (np.log(rough.gain) * weights).sum((1, 2)) / weights.sum()
    found, wanted = (each.reshape(3, -1)[:, 1:] for each in (np.log(smooth.gain), wanted))
    np.testing.assert_allclose(found, wanted, atol=2e-3)  # a width of 0.01 is not quite none


def test_of_few_scenes_a_smooth_filter_is_nearer_to_that_of_many(source):
    rng = np.random.default_rng(9)
    many = images(2000, 8) + rng.normal(0, 0.5, (2000, 3, *SIZE)).astype(np.float32)
    aim = np.log(fitted(source, many, None, smooth=0.01).gain)[:, 1:, 1:]
    rough, smooth = (np.log(fitted(source, many[:40], None, smooth=share).gain)[:, 1:, 1:] for share in (0.01, 0.125))
    assert np.square(smooth - aim).mean() < 0.7 * np.square(rough - aim).mean()


def test_few_votes_move_it_less(source):
    noisy = images(40, 8) + np.random.default_rng(9).normal(0, 0.5, (40, 3, *SIZE)).astype(np.float32)
    trusted, careful = (fitted(source, noisy, None, trust=trust) for trust in (1e-3, 400.0))
    assert np.abs(np.log(careful.gain)).mean() < 0.5 * np.abs(np.log(trusted.gain)).mean()


def test_faded_statistics_count_for_so_many_votes(source):
    """And what follows from them is looked at again at once."""
    long, short = (Equalizer(source, None, EqualizeConfig()) for _ in range(2))
    for equalizer, count in ((long, 600), (short, 50)):
        equalizer.observe(np.repeat(images(1, 20), count, axis=0))
        equalizer.serve()
    long.fade(50)
    for equalizer in (long, short):
        equalizer.observe(2 * images(30, 21))
    np.testing.assert_allclose(long.state().tensors["power"], short.state().tensors["power"], rtol=1e-5)
    assert long.state().values["weight"] == short.state().values["weight"] == 80
    assert long.candidate is not None
    long.fade(500)  # more than there are
    assert long.state().values["weight"] == 80


@pytest.mark.parametrize("kernel", [KERNEL, None])
def test_a_copy_goes_on_as_if_nothing_had_been(source, kernel):
    one, other = (Equalizer(source, kernel, EqualizeConfig(least=0.0)) for _ in range(2))
    assert one.observe(images(40, 10))
    one.serve()
    assert not one.observe(images(30, 11))
    assert one.observe(images(90, 12))
    other.restore(one.state())
    for equalizer in (one, other):
        equalizer.serve()
        equalizer.observe(images(10, 13))
    state, copied = one.state(), other.state()
    assert state.values == copied.values
    for name, value in state.tensors.items():
        np.testing.assert_array_equal(value, copied.tensors[name], err_msg=name)
