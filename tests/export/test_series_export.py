"""Encoders of series through the same export as those of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgessl.encoders import EncoderModule
from edgessl.export.graph import write_graph
from edgessl.export.objectives import Source
from edgessl.export.split import Split
from edgessl.export.tail import write_tail
from edgessl.export.train_step import Step, StepConfig, step_parity, write_step
from edgessl.runtimes.engines import open_engine
from tests.export.conftest import samples


def run(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    engine = open_engine("onnxruntime", path)
    try:
        return engine.run(feeds)
    finally:
        engine.close()


def test_trunk_and_tail_are_the_encoder(series_encoder: EncoderModule, series_split: Split) -> None:
    batch = torch.from_numpy(samples(series_encoder.input, 5))
    with torch.no_grad():
        latents, *statistics = series_split.trunk(batch, *series_split.identity_ports())
        torch.testing.assert_close(series_split.tail(latents), series_encoder(batch), rtol=1e-5, atol=1e-6)
    assert len(statistics) == len(series_split.statistic_names())
    assert series_split.tail_weights()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in series_split.encoder.modules())


@pytest.mark.slow
def test_every_graph_is_that_of_pytorch(series_encoder: EncoderModule, series_split: Split, tmp_path: Path) -> None:
    split, batch = series_split, samples(series_encoder.input, 5, seed=3)
    ports = tuple(port + 0.1 * (place + 1) for place, port in enumerate(split.identity_ports()))
    statistics = split.statistic_names()
    blank = split.encoder.blank(2)
    write_graph(
        split.encoder, (blank,), tmp_path / "e.onnx", inputs=["frames"], outputs=["vectors"], dynamic=["frames"]
    )
    write_graph(
        split.trunk,
        (blank, *split.identity_ports()),
        tmp_path / "trunk.onnx",
        inputs=["frames", *split.port_names()],
        outputs=["latents", *statistics],
        dynamic=["frames"],
    )
    write_tail(split, tmp_path / "tail.onnx")
    with torch.no_grad():
        whole = series_encoder(torch.from_numpy(batch)).numpy()
        latents, *expected = (value.numpy() for value in split.trunk(torch.from_numpy(batch), *ports))
        vectors = split.tail(torch.from_numpy(latents)).numpy()
    np.testing.assert_allclose(run(tmp_path / "e.onnx", {"frames": batch})["vectors"], whole, rtol=0, atol=1e-5)
    feeds = dict(zip(split.port_names(), (port.numpy() for port in ports), strict=True)) | {"frames": batch}
    given = run(tmp_path / "trunk.onnx", feeds)
    for name, value in zip(("latents", *statistics), (latents, *expected), strict=True):
        np.testing.assert_allclose(given[name], value, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run(tmp_path / "tail.onnx", {"latents": latents})["vectors"], vectors, atol=1e-5)
    convolutions = [node for node in onnx.load(tmp_path / "e.onnx").graph.node if node.op_type == "Conv"]
    assert convolutions
    kernels = [next(each.ints for each in node.attribute if each.name == "kernel_shape") for node in convolutions]
    assert all(len(kernel) == 2 and kernel[0] == 1 for kernel in kernels), "a convolution of another rank than two"


@pytest.mark.slow
def test_the_training_step_is_that_of_pytorch(
    series_encoder: EncoderModule, series_split: Split, tmp_path: Path
) -> None:
    with torch.no_grad():
        batch = torch.from_numpy(samples(series_encoder.input, 64))
        latents = series_split.trunk(batch, *series_split.identity_ports())[0]
        vectors = series_split.tail(latents)
    source = Source(mean=vectors.mean(0), std=vectors.std(0))
    step = Step(series_split, StepConfig(batch=6, anchors=5), source)
    write_step(step, tmp_path / "step.onnx")
    step_parity(step, tmp_path / "step.onnx", "onnxruntime", latents.numpy())  # raises where it is not
