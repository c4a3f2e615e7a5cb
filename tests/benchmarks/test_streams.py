"""Streams show everything once, in the order that their names promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from streams import class_sorted, dirichlet, iid, video

ORDERS = {
    "iid": iid,
    "class_sorted": class_sorted,
    "dirichlet 0.1": lambda labels, *, seed: dirichlet(labels, 0.1, seed=seed),
    "dirichlet 0.01": lambda labels, *, seed: dirichlet(labels, 0.01, seed=seed),
    "dirichlet in 3": lambda labels, *, seed: dirichlet(labels, 1.0, seed=seed, slots=3),
}


def labels_of(count: int = 5000) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 10, count)


def runs(seen: np.ndarray) -> int:
    return 1 + np.count_nonzero(np.diff(seen))


def classes_at_once(seen: np.ndarray, batch: int = 50) -> float:
    return float(np.mean([len(np.unique(part)) for part in seen.reshape(-1, batch)]))


@pytest.mark.parametrize("name", ORDERS)
@given(labels=st.lists(st.integers(-2, 6), min_size=1, max_size=60), seed=st.integers(0, 2**32))
def test_every_frame_comes_exactly_once(name, labels, seed):
    order = ORDERS[name](np.array(labels), seed=seed)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(len(labels)))


@pytest.mark.parametrize("name", ORDERS)
def test_the_seed_decides_the_order(name):
    labels = labels_of()
    first, again, other = (ORDERS[name](labels, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_class_sorted_is_one_run_for_each_class_in_a_random_order():
    labels = labels_of()
    order = class_sorted(labels, seed=3)
    assert runs(labels[order]) == 10
    assert not np.array_equal(labels[order], np.sort(labels))
    assert np.any(np.diff(order[labels[order] == 4]) < 0)


def test_a_batch_has_fewer_classes_the_smaller_delta_is():
    labels = labels_of()
    orders = [ORDERS["iid"](labels, seed=0), *(dirichlet(labels, delta, seed=0) for delta in (100, 1, 0.1, 0.01))]
    orders.append(class_sorted(labels, seed=0))
    mixed, *stretches, few, fewer, single = [runs(labels[order]) for order in orders]
    assert mixed > 4000
    assert all(90 < each <= 100 for each in stretches)  # each class in each; now and then two stretches meet in one
    assert 60 > few > 25 > fewer >= single == 10
    wide = [classes_at_once(labels[order]) for order in orders]
    assert wide[0] > 9
    assert wide[1] > wide[3] > wide[5]
    assert wide[3] < 2


def test_a_dirichlet_class_falls_on_the_stretches_by_its_draw():
    labels = np.zeros(100_000, int)
    # One class in 4 stretches of one class each: nothing to see but that none is lost; two classes show the shares.
    assert len(np.unique(dirichlet(labels, 0.1, seed=0, slots=4))) == len(labels)
    labels[50_000:] = 1
    rng = np.random.default_rng(9)
    ends = []
    for each in (0, 1):
        rng.permutation(np.flatnonzero(labels == each))
        ends.append(rng.dirichlet([1.0] * 4))
    seen = labels[dirichlet(labels, 1.0, seed=9, slots=4)]
    places = np.cumsum(sum(ends)) * 50_000
    first = [np.mean(part == 0) for part in np.split(seen, np.rint(places[:-1]).astype(int))]
    assert_allclose(first, ends[0] / sum(ends), atol=0.001)


@pytest.fixture(scope="module")
def shown() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.uniform(60, 200, (37, 4, 4, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    return (coarse, *video(coarse, seed=1))


def test_a_video_shows_each_image_30_times_in_order(shown):
    images, frames, owner = shown
    assert frames.shape == (37 * 30, 32, 32, 3)
    assert frames.dtype == np.uint8
    assert np.array_equal(owner, np.repeat(np.arange(37), 30))
    distance = np.abs(frames[:, None, ::4, ::4].astype(float) - images[None, :, ::4, ::4]).mean((2, 3, 4))
    assert np.array_equal(distance.argmin(1), owner)


def test_neighbours_in_a_video_are_alike_but_not_the_same(shown):
    _, frames, _ = shown
    clips = frames.reshape(37, 30, 32, 32, 3).astype(float)
    near, far = (np.abs(clips[:, step:] - clips[:, :-step]).mean() for step in (1, 8))
    cut = np.abs(clips[1:, 0] - clips[:-1, -1]).mean()
    assert 1 < near < far / 1.5
    assert far < cut / 1.5
    assert np.all(np.abs(clips[:, 1:] - clips[:, :-1]).mean((2, 3, 4)) > 1)


def test_a_video_of_nothing_shows_the_light_and_the_noise():
    grey = np.full((40, 32, 32, 3), 100, np.uint8)
    clips = video(grey, seed=2, copies=7)[0].reshape(40, 7, -1).astype(float)
    light = clips.mean(2) / 100
    assert 0.895 < light.min() < 0.91
    assert 1.09 < light.max() < 1.105
    assert_allclose(clips.std(2).mean() / 255, 0.01, rtol=0.02)


def test_the_seed_decides_how_a_video_sways(shown):
    images, frames, _ = shown
    assert np.array_equal(video(images, seed=1)[0], frames)
    assert not np.array_equal(video(images, seed=2)[0], frames)
