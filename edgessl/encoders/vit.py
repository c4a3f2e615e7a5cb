"""Vision transformers: timm's, seen as stages and pool, and one small enough for 32 to 128 pixels on a board."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgessl.encoders.base import IMAGENET_MEAN, IMAGENET_STD, EncoderModule, require_image
from edgessl.encoders.pooling import TokenPool
from edgessl.errors import InputError
from edgessl.signals import InputSpec
from edgessl.vision import vision_module

#: timm's names of pools -> ours
TIMM_POOLS = {"token": "cls", "avg": "mean", "map": "attention"}


def vit_micro(
    input: InputSpec,
    *,
    dim: int = 128,
    depth: int = 6,
    heads: int = 4,
    patch: int = 0,
    tail: int = 1,
    pool: str = "cls",
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
        pool: One of `pooling.POOLS`; what paints or predicts tokens teaches their mean more than the class token.
    """
    height, width = require_image(input, "vit_micro")
    patch = patch or max(4, round(min(height, width) / 32) * 4)
    require_image(input, "vit_micro", multiple=patch)
    transformer = vision_module("timm.models.vision_transformer")
    vit = transformer.VisionTransformer(
        img_size=(height, width), patch_size=patch, embed_dim=dim, depth=depth, num_heads=heads, num_classes=0
    )
    return vit_encoder(vit, input, tail=tail, pool=pool)


def vit_encoder(
    vit: Any,
    input: InputSpec,
    *,
    tail: int = 1,
    pool: str = "",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> EncoderModule:
    """A timm vision transformer, taken apart: embedding, blocks and last norm become stages, its pooling the pool.

    Args:
        vit: A `VisionTransformer`, `Eva` or `Beit` of timm; it is emptied.
        input: Images of the size that the model was built for.
        tail: Blocks in the tail.
        pool: One of `pooling.POOLS`, or the model's own.
        mean, std: Statistics of the images that the model's weights expect.
    """
    depth = len(vit.blocks)
    if not 0 < tail < depth:
        raise InputError(f"a tail of {tail} blocks leaves no trunk in {depth}; choose 1 to {depth - 1}")
    stages, head = vit_parts(vit, pool)
    before = 1 + depth - tail
    width = vit.embed_dim
    return EncoderModule(
        input,
        stages,
        head,
        dim=width * (2 if isinstance(head, TokenPool) and head.kind == "cls+mean" else 1),
        channels=[width] * len(stages),
        channel_axis=2,
        cut=before,
        ports=sorted({0, round((depth - tail) / 3), round(2 * (depth - tail) / 3), depth - tail}),
        mean=mean,
        std=std,
    )


def vit_parts(vit: Any, pool: str = "") -> tuple[list[nn.Module], nn.Module]:
    """Stages and pool of a timm vision transformer; it is emptied."""
    blocks, norm = list(vit.blocks), vit.norm
    rotary = _rotary(vit)
    if rotary is not None:
        mixed = bool(getattr(vit, "rope_mixed", False))
        blocks = [RotaryBlock(block, rotary[index] if mixed else rotary) for index, block in enumerate(blocks)]
    head = _pool(vit, pool)
    vit.blocks, vit.norm = nn.Sequential(), nn.Identity()
    if isinstance(head, TokenPool):
        vit.head, vit.fc_norm, vit.attn_pool = None, nn.Identity(), None
    return [TokenEmbed(vit), *blocks, norm], head


class TokenEmbed(nn.Module):
    """Patches, class and register tokens, positions: what a ViT does before its first block.

    Attributes:
        prefix: Class and register tokens, which come first.
        grid: Rows and columns of patches.
        patch: Height and width of a patch.
    """

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.vit = vit
        self.prefix = int(vit.num_prefix_tokens)
        self.grid: tuple[int, ...] = tuple(vit.patch_embed.grid_size)
        self.patch: tuple[int, ...] = tuple(vit.patch_embed.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images `(batch, 3, height, width)` -> tokens `(batch, tokens, channels)`."""
        tokens: Tensor = self.vit.forward_features(images)  # its blocks and last norm were taken out
        return tokens  # (batch, tokens, channels)


class RotaryBlock(nn.Module):
    """A block with the rotary positions of the one size that the encoder takes, as a constant."""

    rope: Tensor

    def __init__(self, block: nn.Module, rope: Tensor) -> None:
        super().__init__()
        self.block = block
        self.register_buffer("rope", rope.clone(), persistent=False)  # follows from the architecture and the size

    def forward(self, tokens: Tensor) -> Tensor:
        """`(batch, tokens, channels)` -> the same."""
        return torch.as_tensor(self.block(tokens, rope=self.rope))


class Head(nn.Module):
    """The end of a timm model by its own code; shares nothing that was taken out of it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> Tensor:
        """Last latent -> `(batch, dim)`."""
        return torch.as_tensor(self.model.forward_head(latent))


@torch.no_grad()
def _rotary(vit: Any) -> Tensor | None:
    if getattr(vit, "rope", None) is None:
        return None
    training = vit.training
    vit.eval()  # positions are jittered in training
    height, width = vit.patch_embed.img_size
    weight = next(vit.patch_embed.parameters())
    _, rotary = vit._pos_embed(vit.patch_embed(torch.zeros(1, 3, height, width, dtype=weight.dtype)))
    vit.train(training)
    return None if rotary is None else torch.as_tensor(rotary)


def _pool(vit: Any, pool: str) -> nn.Module:
    """Class token, mean or attention pooling, as the model's own configuration says; its own code for what is neither."""
    own = TIMM_POOLS.get(vit.global_pool or "token", "")
    plain = not getattr(vit, "pool_include_prefix", False) and not hasattr(vit, "head_dist")
    attention = getattr(vit, "attn_pool", None)
    if not pool and not (own and plain):
        return Head(vit)
    return TokenPool(
        pool or ("attention" if attention is not None else own),
        prefix=int(vit.num_prefix_tokens),
        has_class=getattr(vit, "cls_token", None) is not None,
        attention=attention,
        norm=vit.fc_norm if isinstance(getattr(vit, "fc_norm", None), nn.Module) else None,
    )
