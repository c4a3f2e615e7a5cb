"""A recording of series -> a bundle -> vectors, int8 too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgessl.encoders import EncoderModule
from edgessl.export.bundle import ExportConfig, export
from edgessl.export.train_step import StepConfig
from edgessl.metrics import cosines
from edgessl.runtimes.encoder import open_encoder
from edgessl.sources import open_source
from tests.export.conftest import samples


@pytest.mark.slow
def test_a_recording_becomes_a_bundle(series_encoder: EncoderModule, tmp_path: Path) -> None:
    spec = series_encoder.input
    np.savez(tmp_path / "recording.npz", x=samples(spec, 60))
    config = ExportConfig(precision="int8", calibration=40, golden=20, anchors=9, step=StepConfig(batch=4, anchors=3))
    report = export(
        series_encoder, {}, open_source(str(tmp_path / "recording.npz")), tmp_path / "imu.edgessl", config=config
    )
    assert report.rejected == {}, "int8 was left out"
    fresh = samples(spec, 7, seed=9)
    with torch.no_grad():
        expected = series_encoder(torch.from_numpy(fresh)).numpy()
    with open_encoder(report.path, precision="fp32") as opened:
        assert opened.input == spec
        np.testing.assert_allclose(opened.embed(fresh), expected, rtol=0, atol=1e-5)
    with open_encoder(report.path, precision="int8") as opened:
        assert cosines(opened.embed(fresh), expected).mean() > 0.99
