"""The export says which constants take a map of the first convolution's patches in, and what frames look like to it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from edgessl.bundle import open_bundle
from edgessl.encoders import EncoderModule
from edgessl.encoders.camera import with_camera
from edgessl.export.bundle import export
from edgessl.export.config import ExportConfig
from edgessl.export.split import split_encoder
from edgessl.export.stem import probe_map, source_spectrum, stem_of
from edgessl.export.train_step import StepConfig
from edgessl.metrics import cosines
from edgessl.runtimes.adapt.served import Affine, Served
from edgessl.runtimes.adapt.serving import Serving
from edgessl.runtimes.encoder import open_encoder
from edgessl.runtimes.prepare import prepared
from edgessl.runtimes.split import Port, Tail, Trunk
from edgessl.runtimes.stem import PatchMap
from edgessl.signals import image_spec
from edgessl.sources.arrays import ArraySource
from tests.export.conftest import smooth_frames, trained_enough

CONFIG = ExportConfig(
    targets=("onnx", "openvino"), precision="int8", calibration=40, statistics=40, golden=24, anchors=9,
    step=StepConfig(batch=4, anchors=3),
)  # fmt: skip
GRAPHS = {"encoder.onnx", "encoder.int8.onnx", "trunk.fp32.onnx", "trunk.int8.onnx"} | {
    f"openvino/{role}.{precision}.xml" for role in ("encoder", "trunk") for precision in ("fp32", "int8")
}


def written(encoder: EncoderModule, folder: Path, height: int = 32, width: int = 40) -> Path:
    frames = smooth_frames(72, height, width)
    source = ArraySource("frames", frames, image_spec(height, width), [str(row) for row in range(len(frames))])
    return export(encoder, {"recipe": "none"}, source, folder / "robot.edgessl", config=CONFIG).path


@pytest.fixture(scope="module", params=["conv_small", "conv_small edge", "vit_micro"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[EncoderModule, Path]:
    name, *padding = request.param.split()
    encoder = trained_enough(name, **({"padding": padding[0]} if padding else {}))
    return encoder, written(encoder, tmp_path_factory.mktemp(name))


def pytorch_with(encoder: EncoderModule, patch: PatchMap) -> EncoderModule:
    """Mapped in PyTorch: each patch is cut out, mapped and multiplied; nothing here knows of constants."""
    mapped = copy.deepcopy(split_encoder(encoder).encoder)
    stem = stem_of(split_encoder(encoder))
    assert stem is not None
    place = next(name for name, module in mapped.named_modules() if isinstance(module, torch.nn.Conv2d))
    height, width = stem.kernel_size

    class Mapped(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            padding = stem.padding if isinstance(stem.padding, tuple) else (0, 0)
            mode = "constant" if stem.padding_mode == "zeros" else stem.padding_mode
            around = torch.nn.functional.pad(images, (padding[1], padding[1], padding[0], padding[0]), mode=mode)
            columns = torch.nn.functional.unfold(around, stem.kernel_size, stride=stem.stride)
            pixels = columns.unflatten(1, (3, height * width))  # (batch, channels, positions, patches)
            axes, blocks, shift = (torch.from_numpy(each) for each in (patch.axes, patch.blocks, patch.shift))
            turned = torch.einsum("kpq,bkqn->bkpn", blocks, torch.einsum("kc,bcqn->bkqn", axes, pixels))
            seen = torch.einsum("kc,bkpn->bcpn", axes, turned + shift[None, :, :, None]).flatten(1, 2)
            out = torch.einsum("om,bmn->bon", stem.weight.flatten(1), seen) + stem.bias[:, None]
            rows = (images.shape[2] + 2 * padding[0] - height) // stem.stride[0] + 1
            return out.unflatten(2, (rows, -1))

    mapped.set_submodule(place, Mapped())
    return mapped.eval()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_is_served_is_what_pytorch_makes_of_mapped_patches(
    whole: tuple[EncoderModule, Path], with_openvino: None, engine: str, precision: str
) -> None:
    encoder, path = whole
    kernel = open_bundle(path).manifest["split"]["stem"]["kernel"]
    patch, frames = probe_map(3, int(np.prod(kernel)), seed=4), smooth_frames(16, seed=9)
    with torch.no_grad():
        wanted = pytorch_with(encoder, patch)(torch.from_numpy(frames)).numpy()
    with open_encoder(path, engine=engine, precision=precision) as opened, Serving(opened) as serving:
        factory = opened.embed(frames)
        serving.use(Served(number=1, front=patch))
        assert serving.info()["path"] == "folded"
        got = serving.embed(frames)
        options = {"engine": engine, "precision": precision}
        with Trunk(opened.bundle, **options, patch=patch) as trunk, Tail(opened.bundle, engine=engine) as tail:
            halves = tail.run(trunk.run(frames, trunk.identity).latents)
    bound = {"fp32": 1e-5, "int8": 0.02}[precision]
    assert 1 - cosines(wanted, factory).mean() > 2 * bound
    assert (1 - cosines(wanted, got)).mean() < bound
    assert (1 - cosines(wanted, halves)).mean() < bound


def test_every_graph_has_its_record(whole: tuple[EncoderModule, Path]) -> None:
    assert set(open_bundle(whole[1]).manifest["split"]["stem"]["constants"]) == GRAPHS


def test_ports_and_recentring_come_behind_the_map(whole: tuple[EncoderModule, Path]) -> None:
    path = whole[1]
    frames, rng = smooth_frames(8, seed=3), np.random.default_rng(5)
    with open_encoder(path, engine="onnxruntime", precision="fp32") as opened, Serving(opened) as serving:
        split, dim = opened.manifest["split"], opened.dim
        patch = probe_map(3, int(np.prod(split["stem"]["kernel"])), seed=6)
        ports: tuple[Port, ...] = tuple(
            (
                rng.uniform(0.8, 1.2, port["channels"]).astype(np.float32),
                rng.normal(0, 0.1, port["channels"]).astype(np.float32),
            )
            for port in split["ports"]
        )
        affine = Affine(matrix=np.eye(dim, dtype=np.float32) * 0.9, shift=rng.normal(0, 0.1, dim).astype(np.float32))
        serving.use(Served(number=1, front=patch, ports=ports, affine=affine))
        got = serving.embed(frames)
        options = {"engine": "onnxruntime"}
        with (
            Trunk(opened.bundle, **options, precision="fp32", patch=patch) as trunk,
            Tail(opened.bundle, **options) as tail,
        ):
            wanted = affine.apply(tail.run(trunk.run(frames, ports).latents))
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_numpy_prepares_a_cameras_frames_as_the_encoder_does() -> None:
    encoder = with_camera(trained_enough("conv_small"), 48, 64, fit="crop")
    split, frames = split_encoder(encoder), smooth_frames(5, 48, 64)
    with torch.no_grad():
        wanted = encoder.normalize(encoder.prepare(torch.from_numpy(frames))).numpy()
    source = source_spectrum(split, frames)
    np.testing.assert_allclose(prepared(frames, source), wanted, atol=1e-4)
    assert source["spectrum.size"].tolist() == list(wanted.shape[2:])


def test_a_camera_of_another_size_adapts_too(tmp_path: Path) -> None:
    path = written(with_camera(trained_enough("conv_small"), 48, 64), tmp_path, 48, 64)
    stem = open_bundle(path).manifest["split"]["stem"]
    assert stem["prepare"] == ["mean", "std", "rows", "columns"]
    noise = np.random.default_rng(0).normal(0, 60, (400, 48, 64, 3))
    noisy = np.clip(smooth_frames(400, 48, 64, seed=2) + noise, 0, 255).astype(np.uint8)
    with open_encoder(path, engine="onnxruntime") as opened:
        for level in ("recenter", "tail"):  # a filter cannot stand in front of a graph that makes its own size
            with opened.learner(tmp_path / level, level=level) as learner:
                learner.observe(noisy)
                assert isinstance(learner.served.front, PatchMap)


def test_a_first_convolution_in_groups_or_behind_something_else_is_none() -> None:
    split = split_encoder(trained_enough("conv_small"))
    assert stem_of(split) is not None
    first = next(module for module in split.encoder.modules() if isinstance(module, torch.nn.Conv2d))
    first.dilation = (2, 2)
    assert stem_of(split) is None
    first.dilation = (1, 1)
    split.encoder.stages[0] = torch.nn.Sequential(torch.nn.ReLU(), split.encoder.stages[0])
    assert stem_of(split) is None


def test_a_series_has_no_stem() -> None:
    assert stem_of(split_encoder(trained_enough("conv_series"))) is None
