"""How many frames make a scene, from the stream alone."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.runtimes.adapt.pace import Pace

DIM, BLOCK, MOST = 24, 32, 8


def stream(scene: int, frames: int = 2000, *, noise: float = 0.3, seed: int = 0) -> np.ndarray:
    """Each scene for so many frames, and a little noise in each."""
    rng = np.random.default_rng(seed)
    scenes = rng.normal(size=(-(-frames // scene), DIM))
    return np.repeat(scenes, scene, 0)[:frames] + noise * rng.normal(size=(frames, DIM))


def after(frames: np.ndarray, *, batch: int = 50) -> Pace:
    pace = Pace(DIM, BLOCK, MOST)
    for start in range(0, len(frames), batch):
        pace.update(frames[start : start + batch])
    return pace


@pytest.mark.parametrize("seed", range(10))
def test_independent_frames_need_no_longer_blocks(seed: int) -> None:
    assert after(stream(1, seed=seed)).stretch == 1


@pytest.mark.parametrize("seed", range(10))
def test_a_video_needs_as_much_longer_ones_as_is_allowed(seed: int) -> None:
    assert after(stream(30, seed=seed)).stretch == MOST


@pytest.mark.parametrize("scene", [2, 4, 8])
def test_the_factor_is_that_of_the_closed_form(scene: int) -> None:
    # The mean over a block of whole scenes varies as one over their number: by `scene` times that of independent frames.
    paces = [after(stream(scene, noise=0.0, seed=seed)).factor for seed in range(30)]
    assert np.mean(paces) == pytest.approx(scene, rel=0.1)


def test_where_the_world_shifts_nothing_is_stretched() -> None:
    frames = stream(1)
    frames[1900:] += 5
    assert after(frames).stretch == 1


def test_it_does_not_matter_how_frames_were_batched() -> None:
    frames = stream(5)
    one, other = after(frames, batch=7), after(frames, batch=2000)
    np.testing.assert_array_equal(one._factors, other._factors)


def test_a_copy_goes_on_as_the_original() -> None:
    frames = stream(5)
    pace, copy = after(frames[:1001]), Pace(DIM, BLOCK, MOST)
    copy.restore(pace.state())
    for each in (pace, copy):
        each.update(frames[1001:])
    np.testing.assert_array_equal(pace._factors, copy._factors)
    assert pace.stretch == copy.stretch
