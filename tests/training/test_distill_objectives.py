"""Each objective against its formula, in numpy loops."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgessl.distillation.maps import last_latent, map_of
from edgessl.distillation.objectives import cosine, relations, similarity
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import InputError
from edgessl.signals import image_spec

Array = NDArray[np.float64]


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def _softmax(logits: Array) -> Array:
    weight = np.exp(logits - logits.max())
    return np.asarray(weight / weight.sum())


@pytest.fixture
def rows() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, 3)), rng.normal(size=(4, 6))


def test_cosine_is_a_mean_over_vectors_and_places() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 3, 5, 7))
    wanted = np.mean([1 - _unit(a[i, j]) @ _unit(b[i, j]) for i, j in product(range(3), range(5))])
    assert cosine(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(wanted, rel=1e-9)


def test_relations_is_the_divergence_of_the_similarities(rows: tuple[Array, Array]) -> None:
    a, b = map(_unit, rows)

    def shares(unit: Array, row: int) -> Array:
        return _softmax(np.delete(unit @ unit[row], row) / 0.2)

    wanted = np.mean([(shares(b, i) * np.log(shares(b, i) / shares(a, i))).sum() for i in range(4)])
    assert relations(*map(torch.tensor, rows), 0.2).item() == pytest.approx(wanted, rel=1e-6)


def test_similarity_is_the_cross_entropy_over_the_queue_and_the_sample_itself() -> None:
    rng = np.random.default_rng(2)
    student, teacher, queue = rng.normal(size=(4, 3)), _unit(rng.normal(size=(4, 3))), _unit(rng.normal(size=(7, 3)))
    losses = []
    for z, own in zip(_unit(student), teacher, strict=True):
        against = np.concatenate([queue, own[None]])
        losses.append(-(_softmax(against @ own / 0.05) * np.log(_softmax(against @ z / 0.3))).sum())
    found = similarity(torch.tensor(student), torch.tensor(teacher), torch.tensor(queue), 0.3, 0.05)
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-9)


def test_a_map_has_the_tokens_at_their_places() -> None:
    encoder = build_encoder("vit_micro", image_spec(16, 24), dim=6, depth=2, heads=2, patch=4)
    latent = last_latent(encoder, torch.rand(2, 3, 16, 24))
    prefix = encoder.stages[0].prefix
    assert map_of(encoder, latent).shape == (2, 6, 4, 6)
    assert torch.equal(map_of(encoder, latent)[:, :, 2, 5], latent[:, prefix + 2 * 6 + 5])  # type: ignore[operator]


def test_convolutions_have_a_map_already() -> None:
    encoder = build_encoder("conv_small", image_spec(16, 24), widths=(4, 7))
    latent = last_latent(encoder, torch.rand(2, 3, 16, 24))
    assert map_of(encoder, latent) is latent


def test_an_encoder_without_a_grid_is_refused() -> None:
    encoder = build_encoder("conv_small", image_spec(16, 24), widths=(4, 7))
    encoder.channel_axis = 2
    with pytest.raises(InputError, match="tokens=0"):
        map_of(encoder, torch.rand(2, 5, 7))


def test_what_comes_before_the_pool_is_what_features_are_made_of() -> None:
    encoder: EncoderModule = build_encoder("conv_small", image_spec(16, 24), widths=(4, 7)).eval()
    samples = torch.rand(2, 3, 16, 24)
    assert torch.equal(encoder.pool(last_latent(encoder, samples)), encoder.features(samples))
