"""Contract over the table of encoders, and timm's models taken apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from edgessl.checkpoint import FACTS, WEIGHTS, read_checkpoint, read_facts, write_checkpoint
from edgessl.encoders import ENCODERS, EncoderModule, build_encoder
from edgessl.errors import CheckpointError, InputError, UnknownNameError
from edgessl.signals import InputSpec, image_spec, series_spec
from edgessl.vision import vision_module

SMALL = {"vit_micro": {"dim": 12, "depth": 3, "heads": 3}, "vit_series": {"dim": 12, "depth": 3, "heads": 3}}
SERIES = {"conv_series": series_spec(3, 50), "tcn_small": series_spec(3, 41), "vit_series": series_spec(2, 64)}


def frames(count: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def samples(encoder: EncoderModule, count: int) -> torch.Tensor:
    if encoder.input.kind == "image":
        return frames(count, *encoder.input.shape[:2])
    return torch.randn(count, *encoder.input.shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=sorted(ENCODERS))
def encoder(request: pytest.FixtureRequest) -> EncoderModule:
    torch.manual_seed(0)
    spec = SERIES.get(request.param, image_spec(32, 48))
    return build_encoder(request.param, spec, **SMALL.get(request.param, {})).eval()


def test_samples_become_unit_vectors(encoder: EncoderModule) -> None:
    with torch.no_grad():
        vectors = encoder(samples(encoder, 3))
    assert vectors.shape == (3, encoder.dim)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_a_sample_does_not_depend_on_its_batch(encoder: EncoderModule) -> None:
    batch = samples(encoder, 5)
    with torch.no_grad():
        torch.testing.assert_close(encoder(batch)[2:3], encoder(batch[2:3]), rtol=1e-4, atol=1e-5)


def test_channels_are_those_of_each_stage(encoder: EncoderModule) -> None:
    with torch.no_grad():
        latent = encoder.normalize(encoder.prepare(samples(encoder, 2)))
        for stage, channels in zip(encoder.stages, encoder.channels, strict=True):
            latent = stage(latent)
            assert latent.shape[encoder.channel_axis] == channels


def test_ports_stand_in_the_trunk(encoder: EncoderModule) -> None:
    assert encoder.ports
    assert all(port < encoder.cut for port in encoder.ports)
    assert encoder.cut < len(encoder.stages)


def test_a_checkpoint_gives_the_same_vectors_back(encoder: EncoderModule, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, encoder, {"recipe": "none"})
    again, facts = read_checkpoint(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(samples(encoder, 3)), encoder(samples(encoder, 3)), rtol=0, atol=0)
    assert facts["recipe"] == "none"
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS, FACTS}
    with safe_open(tmp_path / WEIGHTS, "numpy") as weights:
        assert weights.keys()


def test_a_changed_byte_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, build_encoder("conv_small", image_spec(32, 32)), {})
    content = bytearray((tmp_path / WEIGHTS).read_bytes())
    content[-3] ^= 1
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match="changed after it was written"):
        read_checkpoint(tmp_path)


def test_a_newer_and_a_missing_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="pretrain DATA --recipe simclr --encoder conv_small -o NEW_FOLDER"):
        read_facts(tmp_path)
    write_checkpoint(tmp_path, build_encoder("conv_small", image_spec(32, 32)), {})
    facts = tmp_path / FACTS
    facts.write_text(facts.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(CheckpointError, match="format 9"):
        read_facts(tmp_path)


def test_the_pool_of_conv_small_keeps_positions_when_flat() -> None:
    """Moving the content of a frame changes a flat pool's vector more than a mean's."""
    moved = {}
    for pool in ("mean", "flat"):
        torch.manual_seed(0)
        encoder = build_encoder("conv_small", image_spec(64, 64), pool=pool).eval()
        frame = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
        frame[:, 8:24, 8:24] = 255
        with torch.no_grad():
            moved[pool] = 1 - float((encoder(frame) * encoder(frame.roll((32, 32), (1, 2)))).sum())
    assert moved["flat"] > 3 * moved["mean"]
    with pytest.raises(UnknownNameError, match="did you mean 'mean'"):
        build_encoder("conv_small", image_spec(64, 64), pool="men")


def test_the_stem_of_conv_small_is_as_wide_as_it_is_told() -> None:
    encoder = build_encoder("conv_small", image_spec(32, 48), stem=7, depth=2)
    kernels = [module.kernel_size for module in encoder.modules() if isinstance(module, torch.nn.Conv2d)]
    assert kernels == [(7, 7)] + [(3, 3)] * 7
    assert encoder(encoder.blank(2)).shape == (2, 128)
    with pytest.raises(InputError, match="odd number of pixels, not 4"):
        build_encoder("conv_small", image_spec(32, 48), stem=4)


@pytest.mark.parametrize(("padding", "flat"), [("zeros", False), ("edge", True)])
def test_a_plain_frame_has_no_border_where_it_is_padded_with_its_own_edge(padding: str, flat: bool) -> None:
    encoder = build_encoder("conv_small", image_spec(32, 48), padding=padding)
    frame = torch.full((1, 32, 48, 3), 40, dtype=torch.uint8)
    with torch.no_grad():
        seen = encoder.stages[0](encoder.normalize(encoder.prepare(frame)))
    assert bool((seen - seen[..., :1, :1]).abs().max() < 1e-5) is flat
    assert encoder.options["padding"] == padding
    with pytest.raises(UnknownNameError, match="did you mean 'edge'"):
        build_encoder("conv_small", image_spec(32, 48), padding="edges")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "stages"),
    [
        ("resnet10t", 32, 5),
        ("mobilenetv4_conv_small_050", 32, 6),
        ("convnext_atto", 32, 5),
        ("regnetx_002", 32, 5),
        ("densenet121", 64, 1),
        ("vit_tiny_patch16_224", 32, 14),
    ],
)
def test_a_timm_model_taken_apart_is_the_same_function(name: str, size: int, stages: int) -> None:
    timm = vision_module("timm")
    options = {"img_size": size} if name.startswith("vit") else {}
    torch.manual_seed(0)
    whole = timm.create_model(name, num_classes=0, **options).eval()
    torch.manual_seed(0)
    encoder = build_encoder(name, image_spec(size, size)).eval()
    images = encoder.prepare(frames(2, size, size))
    with torch.no_grad():
        torch.testing.assert_close(encoder.features(images), whole(encoder.normalize(images)), rtol=1e-4, atol=1e-5)
    assert len(encoder.stages) == stages


@pytest.mark.parametrize(
    ("name", "input", "message"),
    [
        ("conv_smal", image_spec(32, 32), "did you mean 'conv_small'"),
        ("resnet18x", image_spec(32, 32), "resnet18"),
        ("conv_small", image_spec(8, 8), "at least 16 pixels"),
        ("vit_micro", image_spec(30, 32), "--size"),
        ("conv_small", InputSpec(kind="series", shape=(6, 128), dtype="float32", units="g"), "takes images"),
    ],
)
def test_what_cannot_be_built_says_what_can(name: str, input: InputSpec, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_encoder(name, input)


def test_preparation_is_that_of_torchvision() -> None:
    functional = vision_module("torchvision.transforms.v2.functional")
    encoder = build_encoder("conv_small", image_spec(32, 32))
    batch = frames(2, 32, 32)
    expected = torch.stack(
        [
            functional.normalize(
                functional.to_dtype(functional.to_image(frame.numpy()), scale=True),
                [0.485, 0.456, 0.406],
                [0.229, 0.224, 0.225],
            )
            for frame in batch
        ]
    )
    torch.testing.assert_close(encoder.normalize(encoder.prepare(batch)), expected)
    assert np.isfinite(expected.numpy()).all()


def test_a_vision_transformer_of_ours_pools_as_it_is_told() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("vit_micro", image_spec(32, 32), pool="mean", **SMALL["vit_micro"]).eval()
    tokens = encoder.normalize(encoder.prepare(frames(2, 32, 32)))
    with torch.no_grad():
        for stage in encoder.stages:
            tokens = stage(tokens)
        torch.testing.assert_close(encoder.pool(tokens), tokens[:, 1:].mean(1))  # without the class token
    with pytest.raises(UnknownNameError, match="max"):
        build_encoder("vit_micro", image_spec(32, 32), pool="max", **SMALL["vit_micro"])
