"""Small encoders, trained for a moment so that their embeddings spread as those of a real encoder do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgessl.encoders import ENCODERS, EncoderModule, build_encoder
from edgessl.export.split import Split, split_encoder
from edgessl.signals import image_spec

OPTIONS = {
    "conv_small": {"widths": (6, 10, 12), "dim": 7},
    "res_small": {"widths": (6, 10, 12), "dim": 7},
    "vit_micro": {"dim": 12, "depth": 3, "heads": 3, "patch": 8},
}


def smooth_frames(count: int, height: int = 32, width: int = 40, seed: int = 0) -> np.ndarray:
    """Low-pass noise: frames with structure, as a camera gives."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, height // 8, width // 8, 3))
    fine = coarse.repeat(8, 1).repeat(8, 2) + rng.normal(0, 12, (count, height, width, 3))
    return np.clip(fine, 0, 255).astype(np.uint8)


def trained_enough(name: str, **options: object) -> EncoderModule:
    """Uniformity on the sphere (Wang & Isola 2020, eq. 2) for some steps: an untrained net maps every frame to one place."""
    torch.manual_seed(3)
    encoder = build_encoder(name, image_spec(32, 40), **(OPTIONS.get(name, {}) | options)).train()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    for seed in range(40):
        vectors = encoder(torch.from_numpy(smooth_frames(24, seed=1000 + seed)))
        loss = torch.pdist(vectors).square().mul(-2).exp().mean().log()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder.eval()


@pytest.fixture(scope="session", params=sorted(ENCODERS))
def encoder(request: pytest.FixtureRequest) -> EncoderModule:
    return trained_enough(request.param)


@pytest.fixture(scope="session")
def split(encoder: EncoderModule) -> Split:
    return split_encoder(encoder)


@pytest.fixture(scope="session")
def frames() -> np.ndarray:
    return smooth_frames(48, seed=99)
