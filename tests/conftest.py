"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test leaves anything in the cache of whoever runs it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESSL_CACHE", str(folder))
        yield folder


@pytest.fixture
def with_openvino() -> None:
    """Skips where openvino is not installed. Imported here, it would report that: our own file keeps it from it."""
    if find_spec("openvino") is None:
        pytest.skip("pip install 'edgessl[openvino]'")


def write_frames(folder: Path, count: int, *, classes: int = 2, height: int = 32, width: int = 40) -> None:
    """Images with structure, in `classes` sub-folders named a, b, ..."""
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = rng.uniform(0, 255, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1)
        pixels = np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)
        place = folder / "abcdefgh"[index % classes]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{index:03d}.png")


@pytest.fixture(scope="session")
def frames_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """39 readable images in two classes, and one file that only calls itself an image."""
    folder = tmp_path_factory.mktemp("data") / "frames"
    write_frames(folder, 39)
    (folder / "a" / "broken.png").write_bytes(b"not an image")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with random weights, for 32x40 frames."""
    import torch

    from edgessl.checkpoint import write_checkpoint
    from edgessl.encoders import build_encoder
    from edgessl.files import atomic_folder
    from edgessl.signals import image_spec

    torch.manual_seed(3)
    encoder = build_encoder("conv_small", image_spec(32, 40), widths=(6, 10, 12), dim=7)
    folder = tmp_path_factory.mktemp("checkpoint") / "run"
    with atomic_folder(folder) as temporary:
        write_checkpoint(temporary, encoder.eval(), {"made_by": "test"})
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, frames_folder: Path) -> Path:
    """That encoder, exported in fp32 and int8. Read it; copy it before changing it."""
    from edgessl.checkpoint import read_checkpoint
    from edgessl.export.bundle import export
    from edgessl.export.config import ExportConfig
    from edgessl.sources import open_source

    encoder, facts = read_checkpoint(checkpoint)
    output = tmp_path_factory.mktemp("bundle") / "robot.edgessl"
    # Not auto, which would ask this machine what is faster today.
    config = ExportConfig(precision="int8")
    export(encoder, facts, open_source(str(frames_folder), spec=encoder.input), output, config=config)
    return output
