"""The filter of frames, and what frames look like, beside scipy's cosine transform."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.fft import dctn, idctn

from edgessl.runtimes.framefilter import FrameFilter
from edgessl.runtimes.spectrum import BANDS, frame_spectra, frequencies, spread_bands

RNG = np.random.default_rng(0)
AXES = np.linalg.qr(RNG.normal(size=(3, 3)))[0].astype(np.float32)
MEAN, STD = (np.array(each, np.float32) for each in ((0.5, 0.45, 0.4), (0.2, 0.25, 0.3)))


def filter_of(size: tuple[int, int], **changes: np.ndarray) -> FrameFilter:
    bands = tuple(min(BANDS, side) for side in size)
    still = {"gain": np.ones((3, *bands)), "mean_gain": np.ones(3), "shift": np.zeros(3)}
    numbers = {name: value.astype(np.float32) for name, value in (still | changes).items()}
    return FrameFilter(axes=AXES, mean=MEAN, std=STD, size=size, **numbers)


@pytest.mark.parametrize("size", [(32, 32), (12, 10), (48, 40)])
def test_a_gain_of_one_gives_every_frame_back(size):
    frames = RNG.integers(0, 256, (5, *size, 3), dtype=np.uint8)
    given = filter_of(size)(frames)
    assert given.dtype == np.uint8
    np.testing.assert_array_equal(given, frames)


def test_gains_are_those_of_cosine_coefficients_of_the_frame_less_its_mean():
    size = (12, 10)
    frames = RNG.integers(60, 190, (4, *size, 3), dtype=np.uint8)
    changes = {
        "gain": RNG.uniform(0.5, 1.2, (3, *size)),
        "mean_gain": np.array([0.9, 1.1, 1.0]),
        "shift": RNG.normal(0, 0.1, 3),
    }
    given = filter_of(size, **changes)(frames)
    colours = np.einsum("kc,nhwc->nkhw", AXES.astype(np.float64), (frames / 255 - MEAN) / STD)
    own = colours.mean((2, 3), keepdims=True)
    rest = idctn(dctn(colours - own, axes=(2, 3), norm="ortho") * changes["gain"], axes=(2, 3), norm="ortho")
    whole = rest + own * changes["mean_gain"][:, None, None] + changes["shift"][:, None, None]
    wanted = np.clip((np.einsum("kc,nkhw->nhwc", AXES, whole) * STD + MEAN) * 255, 0, 255)
    np.testing.assert_allclose(given, wanted, atol=0.51)


@pytest.mark.parametrize("size", [(32, 32), (12, 10), (48, 40)])
def test_spectra_are_means_and_mean_squares_of_cosine_coefficients(size):
    images = RNG.normal(size=(6, 3, *size)).astype(np.float32)
    means, power = frame_spectra(images, AXES)
    colours = np.einsum("kc,nchw->nkhw", AXES.astype(np.float64), images)
    np.testing.assert_allclose(means, colours.mean((2, 3)), atol=1e-5)
    squares = dctn(colours - colours.mean((2, 3), keepdims=True), axes=(2, 3), norm="ortho") ** 2
    bands = [np.arange(side) * min(BANDS, side) // side for side in size]
    for row, column in [(0, 0), (3, 2), (power.shape[1] - 1, power.shape[2] - 1)]:
        wanted = squares[:, :, bands[0] == row][..., bands[1] == column].mean((2, 3)).sum(0)
        np.testing.assert_allclose(power[:, row, column], wanted, rtol=1e-4, atol=1e-5)
    assert sum(frequencies(size[0])[1]) == size[0]
    spread = spread_bands(power, size)
    assert spread.shape == (3, *size)
    np.testing.assert_allclose(spread[:, -1, -1], power[:, -1, -1], rtol=1e-6)
