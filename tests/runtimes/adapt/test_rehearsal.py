"""Clean frames disturbed as a stream is, of which only the spectrum is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter

from edgessl.runtimes.adapt.rehearsal import Rehearsal
from edgessl.runtimes.spectrum import Spectrum, frame_spectra

SIDE, GREY = 32, np.full(3, 3**-0.5)
#: rows: grey, and two colours that hold none of it
AXES = np.stack([GREY, np.array([1, -1, 0]) / 2**0.5, np.array([1, 1, -2]) / 6**0.5]).astype(np.float32)
MEAN, STD = np.array([0.4, 0.5, 0.45], np.float32), np.full(3, 0.22, np.float32)


def pictures(count: int, seed: int) -> np.ndarray:
    """Frames whose power falls with frequency as that of photographs, with half as much colour as light."""
    rng = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")
    falling = 1 / np.maximum(np.hypot(rows, columns), 1)
    light = idctn(rng.normal(size=(count, 1, SIDE, SIDE)) * falling, axes=(2, 3), norm="ortho")
    colour = idctn(rng.normal(size=(count, 3, SIDE, SIDE)) * falling, axes=(2, 3), norm="ortho")
    shown = 0.5 + 0.6 * light + 0.3 * colour
    return np.clip(255 * shown.transpose(0, 2, 3, 1), 0, 255).round().astype(np.uint8)


def read(frames: np.ndarray) -> np.ndarray:
    return ((frames / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)


def spectrum(frames: np.ndarray) -> Spectrum:
    means, power = frame_spectra(read(frames), AXES)
    return Spectrum(mean=means.mean(0), var=means.var(0), power=power / len(frames))


def rehearsal(frames: np.ndarray) -> Rehearsal:
    seen = spectrum(frames)
    source = {"spectrum.axes": AXES, "prepare.mean": MEAN, "prepare.std": STD}
    source |= {f"spectrum.{part}": getattr(seen, part).astype(np.float32) for part in ("mean", "var", "power")}
    return Rehearsal(source, frames, np.arange(len(frames), dtype=np.float32)[:, None])


def colours(frames: np.ndarray) -> np.ndarray:
    """Along the axes, `(n, 3, height, width)`, by scipy alone."""
    return np.tensordot(read(frames), AXES, axes=([1], [1])).transpose(0, 3, 1, 2)


def noisy(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(frames + rng.normal(0, 25, frames.shape), 0, 255).round().astype(np.uint8)


def blurred(frames: np.ndarray) -> np.ndarray:
    return gaussian_filter(frames.astype(np.float32), (0, 1.2, 1.2, 0)).round().astype(np.uint8)


def hazy(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half the contrast, and a cloud of grey as smooth as a picture."""
    cloud = gaussian_filter(rng.normal(size=frames.shape[:3]), (0, 3, 3))[..., None]
    return np.clip(64 + frames / 2 + 220 * cloud, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("kind", ["noisy", "hazy", "blurred"])
def test_disturbed_frames_have_the_streams_mean_and_power(kind: str) -> None:
    rng, own, others = np.random.default_rng(1), pictures(400, 2), pictures(400, 3)
    stream = blurred(others) if kind == "blurred" else {"noisy": noisy, "hazy": hazy}[kind](others, rng)
    got, wanted = colours(rehearsal(own).disturbed(own, spectrum(stream), rng)), colours(stream)
    np.testing.assert_allclose(got.mean((0, 2, 3)), wanted.mean((0, 2, 3)), atol=0.06)
    powers = [
        np.square(dctn(each - each.mean((2, 3), keepdims=True), axes=(2, 3), norm="ortho")) for each in (got, wanted)
    ]
    for low, high in ((1, 4), (4, 10), (10, 20)):  # along the diagonal; what is above is below a level's rounding
        band = np.s_[:, :, low:high, low:high]
        rounding = 1 / 12 / (255 * STD) ** 2  # once in the stream, and once more here
        ratio = powers[0][band].mean((0, 2, 3)) / (powers[1][band].mean((0, 2, 3)) + rounding)
        np.testing.assert_allclose(ratio, 1, atol=0.25)


def test_a_blur_is_no_noise() -> None:
    own = pictures(300, 4)
    found = rehearsal(own).disturbed(own, spectrum(blurred(pictures(300, 5))), np.random.default_rng(0))
    apart, moved = (np.square(each.astype(float) - blurred(own)).mean() for each in (found, own))
    assert apart < 0.4 * moved  # what remains is the rounding of levels, which a blur leaves little above


def test_a_grey_haze_leaves_the_colours_alone_but_for_their_contrast() -> None:
    own = pictures(300, 6)
    stream = spectrum(hazy(pictures(300, 7), np.random.default_rng(8)))
    found, before = colours(rehearsal(own).disturbed(own, stream, np.random.default_rng(0))), colours(own)

    def alike(channel: int) -> float:
        rest = [each[:, channel] - each[:, channel].mean((1, 2), keepdims=True) for each in (found, before)]
        return float(np.corrcoef(*(each.ravel() for each in rest))[0, 1])

    assert alike(0) < 0.8
    assert min(alike(1), alike(2)) > 0.95


def test_a_world_as_the_sources_disturbs_nothing() -> None:
    own = pictures(200, 9)
    found = rehearsal(own).disturbed(own, spectrum(own), np.random.default_rng(0))
    assert np.abs(found.astype(int) - own).mean() < 1


def test_what_is_drawn_is_disturbed_twice_and_the_same_seed_gives_the_same() -> None:
    own = pictures(40, 10)
    stream = spectrum(noisy(own, np.random.default_rng(11)))
    one, other = (rehearsal(own).draw(12, stream, np.random.default_rng(5)) for _ in range(2))
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert one.first.shape == one.second.shape == (12, SIDE, SIDE, 3)
    assert not np.array_equal(one.first, one.second)
    rows = one.vectors[:, 0].astype(int)
    assert len(set(rows)) == 12
    apart = np.square(one.first.astype(float) - own[rows]).mean((1, 2, 3))
    wrong = np.square(one.first.astype(float) - own[np.roll(rows, 1)]).mean((1, 2, 3))
    assert (apart < wrong).mean() > 0.9
    assert len(rehearsal(own[:5]).draw(12, stream, np.random.default_rng(5)).vectors) == 12
