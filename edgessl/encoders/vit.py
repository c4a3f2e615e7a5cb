"""Vision transformers: timm's, seen as an `EncoderModule`, and one small enough for 32 to 128 pixels on a board."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgessl.encoders.base import IMAGENET_MEAN, IMAGENET_STD, EncoderModule, require_image
from edgessl.errors import InputError
from edgessl.signals import InputSpec
from edgessl.vision import vision_module


def vit_micro(
    input: InputSpec, *, dim: int = 128, depth: int = 6, heads: int = 4, patch: int = 0, tail: int = 1
) -> EncoderModule:
    """A small vision transformer.

    Args:
        input: Images whose sides are multiples of the patch.
        dim: Width of tokens and embedding.
        depth: Blocks.
        heads: Attention heads per block.
        patch: Pixels per patch side; 0 takes the multiple of 4 nearest to an eighth of the short side (64 tokens or
            so).
        tail: Blocks in the tail.
    """
    height, width = require_image(input, "vit_micro")
    patch = patch or max(4, round(min(height, width) / 32) * 4)
    require_image(input, "vit_micro", multiple=patch)
    transformer = vision_module("timm.models.vision_transformer")
    vit = transformer.VisionTransformer(
        img_size=(height, width), patch_size=patch, embed_dim=dim, depth=depth, num_heads=heads, num_classes=0
    )
    return vit_encoder(vit, input, tail=tail)


def vit_encoder(
    vit: Any,
    input: InputSpec,
    *,
    tail: int = 1,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> EncoderModule:
    """A timm `VisionTransformer`, taken apart: embedding, blocks and last norm become stages, its pooling the pool.

    Args:
        vit: The timm model; it is emptied.
        input: Images of the size that the model was built for.
        tail: Blocks in the tail.
        mean, std: Statistics of the images that the model's weights expect.
    """
    blocks, norm, pool = list(vit.blocks), vit.norm, _Pool(vit)
    depth = len(blocks) - tail
    if depth < 1:
        raise InputError(f"a tail of {tail} blocks leaves no trunk in {len(blocks)}; choose at most {len(blocks) - 1}")
    vit.blocks, vit.norm, vit.head, vit.fc_norm, vit.attn_pool = (
        nn.Sequential(),
        *(nn.Identity() for _ in range(3)),
        None,
    )
    return EncoderModule(
        input,
        [TokenEmbed(vit), *blocks, norm],
        pool,
        dim=vit.embed_dim,
        channels=[vit.embed_dim] * (len(blocks) + 2),
        channel_axis=2,
        cut=1 + depth,
        ports=sorted({0, round(depth / 3), round(2 * depth / 3), depth}),
        mean=mean,
        std=std,
    )


class TokenEmbed(nn.Module):
    """Patches, class and register tokens, positions: what a ViT does before its first block.

    Attributes:
        prefix: Class and register tokens, which come first.
        patch: Height and width of a patch.
    """

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.vit = vit
        self.prefix = int(vit.num_prefix_tokens)
        self.patch = tuple(vit.patch_embed.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images `(batch, 3, height, width)` -> tokens `(batch, tokens, channels)`."""
        tokens: Tensor = self.vit.forward_features(images)  # its blocks and last norm were taken out
        return tokens  # (batch, tokens, channels)


class _Pool(nn.Module):
    """Class token, mean or attention pooling, as the model's own configuration says."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.kind, self.prefix = vit.global_pool, int(vit.num_prefix_tokens)
        self.attention, self.norm = vit.attn_pool, vit.fc_norm

    def forward(self, tokens: Tensor) -> Tensor:
        if self.attention is not None:
            pooled = self.attention(tokens)
        elif self.kind == "token":
            pooled = tokens[:, 0]
        else:
            pooled = tokens[:, self.prefix :].mean(1)
        return torch.as_tensor(self.norm(pooled))  # (batch, dim)
