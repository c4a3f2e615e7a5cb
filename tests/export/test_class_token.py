"""What is left out of a transformer's last block changes neither a vector nor a gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.func import functional_call

from edgessl.encoders import build_encoder
from edgessl.encoders.vit import vit_encoder
from edgessl.export.class_token import ClassTokenTail, for_class_token
from edgessl.export.split import Split, split_encoder
from edgessl.signals import image_spec
from edgessl.vision import vision_module


def split(*, tail: int = 1, pool: str = "cls", **options: Any) -> Split:
    """Of a vision transformer whose weights all matter: what timm starts with at zero or one is drawn too."""
    torch.manual_seed(0)
    transformer = vision_module("timm.models.vision_transformer")
    vit = transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=0, **options
    )
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return split_encoder(vit_encoder(vit, image_spec(32, 32), tail=tail, pool=pool))


@pytest.mark.parametrize("tail", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"qkv_bias": False},
        {"qk_norm": True},
        {"scale_attn_norm": True, "scale_mlp_norm": True},
        {"init_values": 0.5},
        {"reg_tokens": 2},
    ],
    ids=str,
)
def test_vectors_and_gradients_are_the_whole_tails(tail: int, options: dict[str, Any]) -> None:
    whole = split(tail=tail, **options)
    short = for_class_token(whole.tail)
    assert isinstance(short, ClassTokenTail)
    assert [*short.state_dict()] == [*whole.tail.state_dict()]
    latents = torch.randn(5, *whole.latent)
    direction = torch.randn(5, whole.encoder.dim)
    found = []
    for each in (whole.tail, short):
        weights = {name: weight.clone().requires_grad_() for name, weight in whole.tail_weights().items()}
        vectors = functional_call(each, weights, (latents,))
        found.append([vectors, *torch.autograd.grad((vectors * direction).sum(), list(weights.values()))])
    largest = max(float(each.detach().abs().max()) for each in found[0])  # attention does not see its keys' bias
    for mine, theirs in zip(found[1], found[0], strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(mine, theirs, atol=1e-6 * largest, rtol=1e-4)


@pytest.mark.parametrize("pool", ["mean", "gem", "cls+mean"])
def test_a_pool_that_takes_other_tokens_too_gets_them(pool: str) -> None:
    whole = split(pool=pool).tail
    assert for_class_token(whole) is whole


def test_another_block_than_timms_own_is_left_alone() -> None:
    transformer = vision_module("timm.models.vision_transformer")

    class Louder(transformer.Block):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    other = split(block_fn=Louder)
    assert for_class_token(other.tail) is other.tail
    parallel = split(block_fn=transformer.ParallelScalingBlock)
    assert for_class_token(parallel.tail) is parallel.tail


def test_a_convolutional_tail_is_left_alone() -> None:
    tail = split_encoder(build_encoder("conv_small", image_spec(32, 32))).tail
    assert for_class_token(tail) is tail
