from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import InputError
from edgessl.export.split import Split, split_encoder
from edgessl.signals import image_spec


def run(split: Split, frames: np.ndarray, ports: tuple[torch.Tensor, ...] | None = None) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return split.trunk(torch.from_numpy(frames), *(ports or split.identity_ports()))


def test_trunk_and_tail_are_the_encoder(encoder: EncoderModule, split: Split, frames: np.ndarray) -> None:
    with torch.no_grad():
        whole = encoder(torch.from_numpy(frames))
        parts = split.tail(run(split, frames)[0])
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(len(frames)))


def test_statistics_are_those_of_each_frame_before_its_port(split: Split, frames: np.ndarray) -> None:
    encoder = split.encoder
    outputs = run(split, frames)
    with torch.no_grad():
        latent = encoder.normalize(encoder.prepare(torch.from_numpy(frames)))
        for index, stage in enumerate(encoder.stages[: encoder.cut]):
            latent = stage(latent)
            if index in encoder.ports:
                values = np.moveaxis(latent.numpy(), encoder.channel_axis, 1).reshape(
                    len(frames), latent.shape[encoder.channel_axis], -1
                )
                place = 1 + 2 * encoder.ports.index(index)
                np.testing.assert_allclose(outputs[place], values.mean(2), rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(outputs[place + 1], (values**2).mean(2), rtol=1e-4, atol=1e-5)


def test_a_port_scales_and_shifts_one_channel(split: Split, frames: np.ndarray) -> None:
    last = len(split.encoder.ports) - 1
    assert split.encoder.ports[last] == split.encoder.cut - 1, "the last port does not stand at the cut"
    ports = list(split.identity_ports())
    ports[2 * last], ports[2 * last + 1] = ports[2 * last].clone(), ports[2 * last + 1].clone()
    ports[2 * last][2], ports[2 * last + 1][2] = 0.5, 3.0
    before, after = run(split, frames)[0], run(split, frames, tuple(ports))[0]
    axis = split.encoder.channel_axis
    expected = before.clone()
    expected.select(axis, 2).mul_(0.5).add_(3.0)
    torch.testing.assert_close(after, expected)


def test_batch_norms_that_follow_a_convolution_are_folded() -> None:
    encoder = build_encoder("conv_small", image_spec(32, 32)).eval()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in split_encoder(encoder).encoder.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules()), "the given encoder was changed"


def test_weights_of_the_tail_are_those_its_output_depends_on(split: Split) -> None:
    weights = split.tail_weights()
    assert weights
    # Not constant: what comes out of a layer norm would be its bias, whatever its weight.
    latents = torch.rand(2, *split.latent, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        before = split.tail(latents)
        for name in weights:
            changed = {key: value + 0.3 * torch.rand_like(value) * (key == name) for key, value in weights.items()}
            after = torch.func.functional_call(split.tail, changed, (latents,))
            assert not torch.allclose(before, after, atol=1e-9) or name.endswith("qkv.bias"), name


def test_a_model_that_cannot_be_taken_apart_shares_nothing_between_trunk_and_tail() -> None:
    encoder = build_encoder("xcit_nano_12_p16_224", image_spec(32, 32)).eval()
    assert len(encoder.stages) == 1
    split = split_encoder(encoder)
    assert set(split.tail_weights()) == {"pool.1.linear.weight", "pool.1.linear.bias"}


def test_a_cut_outside_the_stages_is_refused() -> None:
    with pytest.raises(InputError, match="leaves no trunk"):
        build_encoder("vit_micro", image_spec(32, 32), depth=2, tail=2)
