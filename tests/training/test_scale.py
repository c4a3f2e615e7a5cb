from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgessl.checkpoint import read_checkpoint
from edgessl.data.scale import channel_scale
from edgessl.errors import InputError
from edgessl.pretrain import pretrain
from edgessl.signals import series_spec
from edgessl.sources.arrays import ArraySource
from edgessl.trainer import Run


def _source() -> ArraySource:
    rng = np.random.default_rng(0)
    series = rng.normal([[5.0], [-200.0], [3.0]], [[0.5], [40.0], [0.0]], (300, 3, 32)).astype(np.float32)
    return ArraySource("logs", series, series_spec(3, 32), [f"w/{index:03d}" for index in range(300)])


def test_the_scale_is_numpys_mean_and_deviation_of_each_channel() -> None:
    source, scale = _source(), channel_scale(_source())
    frames = source.read(range(300))[1].astype(np.float64)
    np.testing.assert_allclose(scale["mean"], frames.mean((0, 2)), rtol=1e-9)
    np.testing.assert_allclose(scale["std"][:2], frames.std((0, 2))[:2], rtol=1e-6)
    assert scale["std"][2] == 1.0


def test_an_encoder_of_series_is_given_the_scale_of_what_it_learns_from(tmp_path: Path) -> None:
    run = Run(steps=1, batch=8, accelerator="cpu", devices=1, progress=False)
    options = {"widths": [4, 6], "dim": 8}
    pretrain(_source(), recipe="simclr", encoder="conv_series", output=tmp_path / "a", run=run, encoder_options=options)
    encoder, facts = read_checkpoint(tmp_path / "a")
    np.testing.assert_allclose(encoder.mean.flatten().numpy(), channel_scale(_source())["mean"], rtol=1e-6)
    assert set(facts["encoder"]["options"]) == {"widths", "dim", "mean", "std"}


def test_an_encoder_for_images_says_what_it_takes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'conv_small' takes images, not series"):
        pretrain(_source(), recipe="simclr", encoder="conv_small", output=tmp_path / "a")
