"""Small encoders, trained for a moment so that their embeddings spread as those of a real encoder do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgessl.encoders import ENCODERS, EncoderModule, build_encoder
from edgessl.export.calibrate import Ranges, observe
from edgessl.export.graphs import Graphs, traced
from edgessl.export.split import Split, split_encoder
from edgessl.signals import InputSpec, image_spec, series_spec

IMAGES = image_spec(32, 40)
#: What an encoder is tested with where it takes no images.
INPUTS = {
    "conv_series": series_spec(["x", "y", "z"], 48, rate_hz=50.0, units="m/s^2"),
    "tcn_small": series_spec(3, 41),
    "vit_series": series_spec(1, 64, rate_hz=8000, kind="clip"),
}
OPTIONS = {
    "conv_small": {"widths": (6, 10, 12), "dim": 7},
    "res_small": {"widths": (6, 10, 12), "dim": 7},
    "vit_micro": {"dim": 12, "depth": 3, "heads": 3, "patch": 8},
    "conv_series": {"widths": (6, 10, 12), "dim": 7},
    "tcn_small": {"width": 10, "depth": 3, "dim": 7},
    "vit_series": {"dim": 12, "depth": 3, "heads": 3},
}


def smooth_frames(count: int, height: int = 32, width: int = 40, seed: int = 0) -> np.ndarray:
    """Low-pass noise: frames with structure, as a camera gives."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, height // 8, width // 8, 3))
    fine = coarse.repeat(8, 1).repeat(8, 2) + rng.normal(0, 12, (count, height, width, 3))
    return np.clip(fine, 0, 255).astype(np.uint8)


def smooth_series(spec: InputSpec, count: int, seed: int = 0) -> np.ndarray:
    """A few sines per channel, of random pace, phase and size, and a little noise."""
    rng = np.random.default_rng(seed)
    pace, phase, size = (rng.uniform(0, high, (count, *spec.shape[:1], 3, 1)) for high in (9, 2 * np.pi, 1))
    at = np.linspace(0, 1, spec.shape[1])
    sines = (size * np.sin(2 * np.pi * pace * at + phase)).sum(2)
    return (sines + rng.normal(0, 0.05, sines.shape)).astype(np.float32)


def samples(spec: InputSpec, count: int, seed: int = 0) -> np.ndarray:
    """`(count, *sample)` with structure, of any kind."""
    if spec.kind == "image":
        return smooth_frames(count, *spec.shape[:2], seed=seed)
    return smooth_series(spec, count, seed)


def trained_enough(name: str, **options: object) -> EncoderModule:
    """Uniformity on the sphere (Wang & Isola 2020, eq. 2) for some steps: an untrained net maps every frame to one place."""
    torch.manual_seed(3)
    encoder = build_encoder(name, INPUTS.get(name, IMAGES), **(OPTIONS.get(name, {}) | options)).train()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    for seed in range(40):
        vectors = encoder(torch.from_numpy(samples(encoder.input, 24, seed=1000 + seed)))
        loss = torch.pdist(vectors).square().mul(-2).exp().mean().log()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder.eval()


@pytest.fixture(scope="session", params=sorted(set(ENCODERS) - set(INPUTS)))
def encoder(request: pytest.FixtureRequest) -> EncoderModule:
    return trained_enough(request.param)


@pytest.fixture(scope="session")
def split(encoder: EncoderModule) -> Split:
    return split_encoder(encoder)


@pytest.fixture(scope="session")
def frames() -> np.ndarray:
    return smooth_frames(48, seed=99)


@pytest.fixture(scope="session", params=sorted(INPUTS))
def series_encoder(request: pytest.FixtureRequest) -> EncoderModule:
    return trained_enough(request.param)


@pytest.fixture(scope="session")
def series_split(series_encoder: EncoderModule) -> Split:
    return split_encoder(series_encoder)


@pytest.fixture(scope="session")
def graphs(split: Split) -> Graphs:
    """The encoder's graphs, of one trace."""
    return traced(split)


@pytest.fixture(scope="session")
def seen(graphs: Graphs) -> Ranges:
    """What passes through them on real samples."""
    return observe(graphs.encoder, smooth_frames(48, seed=5))
