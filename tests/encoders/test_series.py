"""Encoders of series: what they compute, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgessl.encoders import build_encoder
from edgessl.errors import InputError
from edgessl.signals import InputSpec, image_spec, series_spec

NAMES = ("conv_series", "tcn_small", "vit_series")


@pytest.mark.parametrize("name", NAMES)
def test_a_series_is_taken_as_it_is_and_normalised_per_channel(name: str) -> None:
    encoder = build_encoder(name, series_spec(2, 64), mean=[1.0, -2.0], std=[2.0, 4.0])
    batch = torch.randn(3, 2, 64)
    assert torch.equal(encoder.prepare(batch), batch)
    expected = (batch.numpy() - np.array([[1], [-2]])) / np.array([[2], [4]])
    np.testing.assert_allclose(encoder.normalize(batch).numpy(), expected, rtol=1e-5, atol=1e-6)
    plain = build_encoder(name, series_spec(2, 64))
    assert torch.equal(plain.normalize(batch), batch)
    assert encoder.blank(2).shape == (2, 2, 64)
    assert encoder.blank(2).dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_is_a_series_too(name: str) -> None:
    encoder = build_encoder(name, series_spec(1, 256, rate_hz=8000, kind="clip")).eval()
    with torch.no_grad():
        assert encoder(torch.randn(2, 1, 256)).shape == (2, encoder.dim)


def test_the_stem_of_tcn_small_is_a_convolution_over_time() -> None:
    """Against torch's own one-dimensional convolution."""
    encoder = build_encoder("tcn_small", series_spec(3, 41), width=5).eval()
    batch = torch.randn(2, 3, 41)
    kernel = encoder.stages[0][1].weight.squeeze(2)
    expected = torch.nn.functional.conv1d(batch, kernel, stride=2, padding=3) / (1 + 1e-5) ** 0.5
    with torch.no_grad():
        torch.testing.assert_close(encoder.stages[0](batch).squeeze(2), expected)


def test_tcn_small_sees_as_far_as_it_says() -> None:
    encoder = build_encoder("tcn_small", series_spec(1, 200), depth=3).eval()
    batch = torch.randn(1, 1, 200, requires_grad=True)
    latent = batch
    for stage in encoder.stages:
        latent = stage(latent)
    latent[0, :, 0, 50].sum().backward()
    seen = batch.grad[0, 0].nonzero().flatten()
    assert int(seen[-1] - seen[0]) == 4 * 2 * (2**3 - 1) + 6  # and the stem's own seven


@pytest.mark.parametrize(
    ("name", "input", "options", "message"),
    [
        ("tcn_small", image_spec(32, 32), {}, r"takes series \(channels, time\), not image"),
        ("conv_series", series_spec(3, 15), {}, "at least 16 time steps, not 15"),
        ("vit_series", series_spec(3, 61), {}, "multiples of 8, not 61; cut windows of 64"),
        ("vit_series", series_spec(3, 64), {"tail": 4}, "leaves no trunk"),
        ("vit_series", series_spec(3, 64), {"patch": 0}, "at least 1 time step"),
        ("tcn_small", series_spec(3, 64), {"kernel": 4}, "must be odd"),
        ("tcn_small", series_spec(3, 64), {"mean": [0.0]}, "mean has 1 values, the samples have 3 channels"),
        ("tcn_small", series_spec(3, 64), {"std": [1.0, 0.0, 1.0]}, "std must be positive"),
        ("tcn_small", InputSpec(kind="series", shape=(64,), dtype="float32", units=""), {}, "takes series"),
    ],
)
def test_what_cannot_be_built_says_what_can(
    name: str, input: InputSpec, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build_encoder(name, input, **options)
