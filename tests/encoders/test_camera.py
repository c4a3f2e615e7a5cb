"""The resize inside the graph against Pillow, torch and torchvision, none of which shares a line with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from edgessl.checkpoint import read_checkpoint, write_checkpoint
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.encoders.camera import FILTERS, Resize, resampling, with_camera
from edgessl.errors import CheckpointError, InputError
from edgessl.export.graph import write_graph
from edgessl.runtimes.engines import open_engine
from edgessl.signals import image_spec, series_spec
from edgessl.sources.images import resized
from edgessl.vision import vision_module

PILLOW = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
SIZES = [  # before, after: down, up, mixed, one band and several, by a factor that is a whole number
    ((37, 53), (24, 32)),
    ((24, 32), (37, 53)),
    ((50, 20), (33, 41)),
    ((96, 64), (32, 32)),
    ((5, 7), (1, 3)),
]


def frames(height: int, width: int, count: int = 2) -> np.ndarray:
    """Noise on a slope: edges in both directions, and every level."""
    rng = np.random.default_rng(height * width)
    slope = np.linspace(0, 255, height * width).reshape(1, height, width, 1)
    return np.clip(slope + rng.normal(0, 60, (count, height, width, 3)), 0, 255).astype(np.uint8)


def levels(batch: np.ndarray, size: tuple[int, int], **options: object) -> np.ndarray:
    resize = Resize((batch.shape[1], batch.shape[2]), size, **options)
    return resize(torch.from_numpy(batch)).numpy()


@pytest.fixture(scope="module")
def encoder() -> EncoderModule:
    torch.manual_seed(0)
    return build_encoder("conv_small", image_spec(24, 32), widths=(6, 10), dim=5).eval()


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_it_is_torch_antialiased(before: tuple[int, int], after: tuple[int, int], interpolation: str) -> None:
    batch = frames(*before)
    images = torch.from_numpy(batch).permute(0, 3, 1, 2).double()
    expected = functional.interpolate(images, after, mode=interpolation, antialias=True, align_corners=False)
    got = levels(batch, after, interpolation=interpolation)
    assert np.abs(got - expected.clamp(0, 255).numpy()).max() <= 1e-3


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize("interpolation", sorted(FILTERS))
def test_it_is_pillow_but_for_its_rounding(before: tuple[int, int], after: tuple[int, int], interpolation: str) -> None:
    batch = frames(*before)
    expected = np.stack(
        [np.asarray(Image.fromarray(frame).resize(after[::-1], PILLOW[interpolation])) for frame in batch]
    )
    off = np.abs(levels(batch, after, interpolation=interpolation) - expected.transpose(0, 3, 1, 2))
    assert off.mean() < 0.5
    if interpolation != "bicubic":  # Pillow cuts off what reaches beyond black and white after each pass
        assert off.max() < 2.5


def test_it_is_what_the_sources_do() -> None:
    batch = frames(37, 53, count=1)
    off = np.abs(levels(batch, (24, 32))[0].transpose(1, 2, 0) - resized(batch[0], (24, 32)))
    assert off.mean() < 0.5


@pytest.mark.parametrize("camera", [(60, 80), (81, 50), (64, 64), (37, 53), (20, 31)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_a_crop_is_that_of_torchvision(camera: tuple[int, int], crop_pct: float) -> None:
    transforms = vision_module("torchvision.transforms.v2")
    batch = frames(*camera)
    images = torch.from_numpy(batch).permute(0, 3, 1, 2).double()
    evaluate = transforms.Compose(
        [transforms.Resize(int(28 / crop_pct), antialias=True), transforms.CenterCrop((28, 28))]
    )
    got = levels(batch, (28, 28), fit="crop", crop_pct=crop_pct)
    assert np.abs(got - evaluate(images).numpy()).max() <= 1e-3


@settings(max_examples=80, deadline=None)
@given(before=st.integers(1, 90), after=st.integers(1, 90), interpolation=st.sampled_from(sorted(FILTERS)))
def test_a_grey_line_stays_grey_and_a_mirrored_line_is_mirrored(before: int, after: int, interpolation: str) -> None:
    weights = resampling(before, after, interpolation)
    np.testing.assert_allclose(weights.sum(1), 1)
    if interpolation != "box":  # a box's edge belongs to one side
        np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-9)
    resize = Resize((before, 1), (after, 1), interpolation=interpolation)
    line = np.random.default_rng(0).integers(0, 256, before, dtype=np.uint8)
    got = resize(torch.from_numpy(line).view(1, before, 1, 1).expand(-1, -1, -1, 3))
    expected = np.clip(weights @ line, 0, 255)
    assert np.abs(got[0, 1, :, 0].numpy() - expected).max() <= 1e-3, "the bands are not the matrix"


def test_the_copy_takes_the_camera_and_the_encoder_stays_as_it_was(encoder: EncoderModule) -> None:
    seen = with_camera(encoder, 48, 40)
    batch = frames(48, 40)
    by_hand = np.stack([resized(frame, (24, 32)) for frame in batch])
    with torch.no_grad():
        cosine = (seen(torch.from_numpy(batch)) * encoder(torch.from_numpy(by_hand))).sum(1)
        images = torch.rand(2, 3, 24, 32)
        torch.testing.assert_close(seen.features(images), encoder.features(images), rtol=0, atol=0)
    assert cosine.min() > 0.9999
    assert seen.input == image_spec(48, 40)
    assert encoder.input == image_spec(24, 32)
    assert encoder.resize is None
    assert seen.prepare(torch.from_numpy(batch)).shape == (2, 3, 24, 32)


def test_equal_sizes_cost_nothing(encoder: EncoderModule) -> None:
    assert with_camera(encoder, 24, 32).resize is None
    assert with_camera(encoder, 24, 32, fit="crop").resize is None
    assert with_camera(encoder, 24, 40, fit="crop").resize is not None


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_the_graph_resizes_with_operators_that_every_engine_has(
    encoder: EncoderModule, tmp_path: Path, fit: str
) -> None:
    seen = with_camera(encoder, 53, 77, fit=fit)
    path = tmp_path / "encoder.onnx"
    write_graph(seen, (seen.blank(2),), path, inputs=["frames"], outputs=["vectors"], dynamic=["frames"])
    graph = onnx.load(path).graph
    assert {node.op_type for node in graph.node} <= {
        *("Cast", "Transpose", "Reshape", "Gather", "MatMul", "Slice", "Div", "Sub", "Mul", "Add", "Clip"),
        *("Conv", "Relu", "ReduceMean", "Gemm", "ReduceL2", "Max", "Pow", "ReduceSum", "Sqrt"),
    }
    named = [tensor.name for tensor in graph.initializer if "resize." in tensor.name]
    assert sorted(name.partition("resize.")[2] for name in named) == ["columns.weights", "rows.weights"]
    batch = frames(53, 77, count=3)
    engine = open_engine("onnxruntime", path)
    with torch.no_grad():
        expected = seen(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(engine.run({"frames": batch})["vectors"], expected, rtol=0, atol=1e-5)
    engine.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "strech"}, "did you mean 'stretch'"),
        ({"interpolation": "lanczos"}, "bicubic"),
        ({"fit": "crop", "crop_pct": 0.0}, "crop_pct is a share"),
        ({"height": 0}, "not 0x40; type --input-size"),
    ],
)
def test_what_cannot_be_is_refused(encoder: EncoderModule, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_camera(encoder, **({"height": 48, "width": 40} | options))


def test_a_second_camera_and_a_series_are_refused(encoder: EncoderModule) -> None:
    with pytest.raises(InputError, match="has a camera already"):
        with_camera(with_camera(encoder, 48, 40), 96, 80)
    encoder.input, kept = series_spec(3, 16), encoder.input
    with pytest.raises(InputError, match="only images"):
        with_camera(encoder, 48, 40)
    encoder.input = kept


def test_a_checkpoint_does_not_forget_the_camera_silently(encoder: EncoderModule, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, with_camera(encoder, 48, 40), {})
    with pytest.raises(CheckpointError, match="does not fit"):
        read_checkpoint(tmp_path)
