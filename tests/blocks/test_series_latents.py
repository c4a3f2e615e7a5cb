"""Latent steps of a series: what an encoder says of each, what is hidden, what is painted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgessl.blocks.series_latents import (
    StepPainter,
    hidden,
    mean_where,
    places_in_time,
    step_count,
    step_features,
    to_time,
)
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.signals import series_spec

SMALL: dict[str, dict[str, Any]] = {
    "conv_series": {"widths": (6, 8), "dim": 10},
    "tcn_small": {"width": 6, "depth": 2, "dim": 10},
    "vit_series": {"dim": 12, "depth": 2, "heads": 2, "patch": 4},
}


def _encoder(name: str = "conv_series", time: int = 28) -> EncoderModule:
    torch.manual_seed(0)
    return build_encoder(name, series_spec(3, time), **SMALL[name])


def _series(batch: int = 5, time: int = 28, seed: int = 1) -> Tensor:
    return torch.randn(batch, 3, time, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SMALL)
def test_the_mean_of_step_features_is_what_the_encoder_gives(name: str) -> None:
    encoder, series = _encoder(name).eval(), _series()
    steps = step_features(encoder, series)
    assert steps.shape == (5, step_count(encoder), encoder.dim)
    torch.testing.assert_close(steps.mean(1), encoder.features(series))


def test_counting_the_steps_leaves_an_encoder_as_it_was() -> None:
    encoder = _encoder()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    assert step_count(encoder) == 7
    assert encoder.training
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


def test_steps_of_latents_stand_for_equal_parts_of_time() -> None:
    assert to_time(torch.tensor([[5, 6, 7]]), 7).tolist() == [[5, 5, 5, 6, 6, 7, 7]]


def test_a_step_is_painted_by_its_own_features() -> None:
    painter = StepPainter(_encoder(time=26))  # 7 steps of 3 or 4
    features = torch.randn(2, 7, 10)
    painted = painter(features)
    assert painted.shape == (2, 3, 26)
    at = to_time(torch.arange(7), 26)
    assert at.bincount().tolist() == [4, 4, 4, 3, 4, 4, 3]
    for step in range(7):
        wanted = painter.paint(features[:, step]).view(2, 3, 4)[..., : (at == step).sum()]
        torch.testing.assert_close(painted[:, :, at == step], wanted)


def test_a_mean_over_nothing_is_nothing() -> None:
    values = torch.arange(6.0).view(1, 2, 3)
    assert mean_where(values, torch.tensor([[[True, False, True]]])).item() == pytest.approx((0 + 2 + 3 + 5) / 4)
    assert mean_where(values, torch.zeros(1, 1, 3, dtype=torch.bool)).item() == 0


def test_what_is_hidden_stands_at_the_batchs_mean() -> None:
    series, where = _series() + 9.81, torch.rand(5, 1, 28) < 0.5
    values = series.double().numpy()
    wanted = np.where(where.numpy(), values.mean((0, 2), keepdims=True), values)
    np.testing.assert_allclose(hidden(series, where).numpy(), wanted, rtol=1e-5)


def test_chosen_steps_are_where_they_stand_in_time() -> None:
    where = places_in_time(torch.tensor([[2], [0]]), 3, 7)
    assert where.int().tolist() == [[[0, 0, 0, 0, 0, 1, 1]], [[1, 1, 1, 0, 0, 0, 0]]]
