"""Few labels, splits, layers, corruptions and views: each against what it must be by construction."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LogisticRegression

from edgessl.blocks.views import USUAL_VIEWS, random_view
from edgessl.encoders import build_encoder
from edgessl.errors import InputError
from edgessl.evaluation.corruptions import IMAGE_CORRUPTIONS, JPEG_QUALITY, SERIES_CORRUPTIONS, corruptions
from edgessl.evaluation.fewlabels import few_labels
from edgessl.evaluation.layers import gated_probe, stage_vectors
from edgessl.evaluation.probes import linear_probe, standardised
from edgessl.evaluation.splits import held_out
from edgessl.evaluation.views import two_views
from edgessl.signals import image_spec, series_spec

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)
SERIES = np.random.default_rng(0).normal(3, 2, (7, 4, 21)).astype(np.float32)


def blobs(count: int, seed: int, classes: int = 3, dim: int = 5, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return (2 * np.eye(classes, dim)[labels] + spread * rng.normal(size=(count, dim))).astype(np.float32), labels


def test_more_labels_find_more_and_all_of_them_are_the_linear_probe() -> None:
    (bank, bank_labels), (queries, labels) = blobs(91, 0), blobs(60, 1)
    found = few_labels(bank, bank_labels, queries, labels, seed=3, per_class=(1, 10, 1000), draws=4)
    assert found[1] < found[10]
    assert found[1000] == pytest.approx(linear_probe(queries, labels, bank, bank_labels), abs=0.02)


def test_one_label_per_class_is_drawn_by_the_seed_and_scaled_by_the_whole_bank() -> None:
    (bank, bank_labels), (queries, labels) = blobs(91, 0), blobs(60, 1)
    rng = np.random.default_rng(3)
    drawn = [rng.permutation(np.flatnonzero(bank_labels == each))[0] for each in range(3)]
    scaled, asked = standardised(bank, bank[drawn], queries)
    judge = LogisticRegression(C=0.1, max_iter=500).fit(scaled, bank_labels[drawn])
    found = few_labels(bank, bank_labels, queries, labels, seed=3, per_class=(1,), draws=1)
    assert found == {1: judge.score(asked, labels)}


def test_a_fifth_of_the_samples_is_held_out() -> None:
    assert held_out(53, seed=1).sum() == 10
    assert (held_out(53, seed=1) != held_out(53, seed=2)).any()


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_held_out_whole(seed: int) -> None:
    groups = np.array([f"s{each}" for each in np.random.default_rng(0).integers(0, 11, 200)])
    out = held_out(200, seed=seed, groups=groups)
    assert not set(groups[out]) & set(groups[~out])
    assert 0.2 <= out.mean() < 0.2 + 40 / 200


def test_one_of_two_groups_is_held_out_and_one_alone_is_refused() -> None:
    groups = np.array(["a"] * 9 + ["b"])
    assert set(groups[held_out(10, seed=0, groups=groups)]) in ({"a"}, {"b"})
    with pytest.raises(InputError, match="--no-by-group"):
        held_out(9, seed=0, groups=groups[:9])


def test_the_gate_opens_where_the_labels_can_be_read() -> None:
    (bank, bank_labels), (queries, labels) = blobs(300, 0, dim=9, spread=0.7), blobs(150, 1, dim=9, spread=0.7)
    rng = np.random.default_rng(2)
    noise = [rng.normal(size=(count, 6)).astype(np.float32) for count in (300, 150)]
    found = gated_probe([noise[0], bank, noise[0] ** 2], bank_labels, [noise[1], queries, noise[1] ** 2], labels)
    assert found.names == ("stage 0", "stage 1", "pool")
    assert sum(found.weights) == pytest.approx(1)
    assert found.weights[1] > 0.9
    assert found.best == "stage 1"
    assert found.accuracies[1] == linear_probe(queries, labels, bank, bank_labels)
    assert found.gated == pytest.approx(found.accuracies[1], abs=0.03)


def test_one_stage_behind_a_gate_is_the_linear_probe() -> None:
    (bank, bank_labels), (queries, labels) = blobs(211, 0, spread=1.5), blobs(120, 1, spread=1.5)
    found = gated_probe([bank], bank_labels, [queries], labels)
    assert found.weights == (1.0,)
    assert found.gated == pytest.approx(found.accuracies[0], abs=0.01)


@pytest.mark.parametrize(
    ("name", "shape"), [("conv_series", (3, 32)), ("vit_series", (3, 32)), ("conv_small", (16, 24))]
)
def test_the_last_of_the_stages_is_the_embedding(name: str, shape: tuple[int, int]) -> None:
    spec = image_spec(*shape) if name == "conv_small" else series_spec(*shape)
    with torch.random.fork_rng():
        encoder = build_encoder(name, spec).eval()
    frames = FRAMES if name == "conv_small" else np.resize(SERIES, (5, *shape))
    found = stage_vectors(encoder)(frames)
    assert [each.shape for each in found[:-1]] == [(5, width) for width in encoder.channels]
    with torch.no_grad():
        wanted = encoder(torch.from_numpy(frames)).numpy()
        first = encoder.stages[0](encoder.normalize(encoder.prepare(torch.from_numpy(frames))))
    length = np.linalg.norm(found[-1], axis=1, keepdims=True)
    np.testing.assert_allclose(found[-1] / length, wanted, atol=1e-5)
    places = tuple(axis for axis in range(1, first.ndim) if axis != encoder.channel_axis)
    np.testing.assert_allclose(found[0], first.numpy().mean(places), atol=1e-5)


@pytest.mark.parametrize("name", IMAGE_CORRUPTIONS)
def test_corrupted_images_are_other_images_of_the_same_seed(name: str) -> None:
    frames = FRAMES.copy()
    damage = corruptions("image")[name]
    found = damage(frames, np.random.default_rng(1))
    assert (found.dtype, found.shape) == (np.uint8, frames.shape)
    assert (found != frames).any()
    assert (frames == FRAMES).all()
    assert (damage(frames, np.random.default_rng(1)) == found).all()


def test_images_are_corrupted_by_the_formula() -> None:
    rng = np.random.default_rng(1)
    grey = np.full((40, 16, 24, 3), 128, np.uint8)
    assert IMAGE_CORRUPTIONS["noise"](grey, rng).std() == pytest.approx(25.5, rel=0.02)
    np.testing.assert_array_equal(IMAGE_CORRUPTIONS["dark"](FRAMES, rng), np.rint(FRAMES * np.float32(0.35)))
    mean = FRAMES.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(IMAGE_CORRUPTIONS["contrast"](FRAMES, rng), mean + 0.3 * (FRAMES - mean), atol=0.51)
    file = io.BytesIO()
    Image.fromarray(FRAMES[2]).save(file, "JPEG", quality=JPEG_QUALITY)
    np.testing.assert_array_equal(IMAGE_CORRUPTIONS["jpeg"](FRAMES, rng)[2], np.asarray(Image.open(file)))
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (1, 64, 3))[None]
    smooth[0, 20:40, 20:40] = 0
    wanted = gaussian_filter(smooth[0].astype(float), (2, 2, 0), mode="nearest")
    assert np.abs(IMAGE_CORRUPTIONS["blur"](smooth, rng)[0] - wanted).mean() < 3  # Pillow's is an approximation


@pytest.mark.parametrize("name", SERIES_CORRUPTIONS)
def test_corrupted_series_are_other_series_of_the_same_seed(name: str) -> None:
    series = SERIES.copy()
    damage = corruptions("series")[name]
    found = damage(series, np.random.default_rng(1))
    assert (found.dtype, found.shape) == (np.float32, series.shape)
    assert (found != series).any()
    assert (series == SERIES).all()
    assert (damage(series, np.random.default_rng(1)) == found).all()


def test_series_are_corrupted_by_the_formula() -> None:
    rng = np.random.default_rng(1)
    many = np.tile(SERIES, (300, 1, 1))
    added = SERIES_CORRUPTIONS["noise"](many, rng) - many
    np.testing.assert_allclose(added.std((0, 2)), 0.5 * SERIES.std((0, 2)), rtol=0.02)
    dropped = SERIES_CORRUPTIONS["drop"](SERIES, rng)
    assert ((dropped != SERIES).any(2).sum(1) == 1).all()  # one channel of each window
    silent = (dropped != SERIES).any(2)
    np.testing.assert_allclose(dropped[silent].std(1), 0, atol=1e-6)
    gain = SERIES_CORRUPTIONS["gain"](SERIES, rng) / SERIES
    np.testing.assert_allclose(gain.std(2), 0, atol=1e-5)
    assert 0.5 <= gain.min() < gain.max() <= 2
    ramp = np.broadcast_to(np.arange(21, dtype=np.float32), (60, 2, 21)).copy()
    late = SERIES_CORRUPTIONS["shift"](ramp, rng) - ramp
    assert set(late[:, 0, 10]) == set(range(-5, 6))  # a quarter of 21 steps, either way
    assert SERIES_CORRUPTIONS["shift"](ramp, rng).max() == 20


def test_views_are_those_of_the_blocks_in_the_sensors_own_form() -> None:
    first, second = two_views(FRAMES, image_spec(16, 24), seed=5)
    assert (first.dtype, first.shape) == (np.uint8, FRAMES.shape)
    assert (first != second).any()
    generator = torch.Generator().manual_seed(5)
    wanted = random_view(torch.from_numpy(FRAMES).permute(0, 3, 1, 2) / 255, generator, USUAL_VIEWS["image"])
    np.testing.assert_allclose(first / 255, wanted.permute(0, 2, 3, 1).numpy(), atol=0.51 / 255)
    one, other = two_views(SERIES, series_spec(4, 21), seed=5)
    assert (one.dtype, one.shape) == (np.float32, SERIES.shape)
    assert (one != other).any()
