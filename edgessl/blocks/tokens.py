"""Tokens of a transformer, seen in part: what recipes that hide patches share, for images and series alike.

A patch has a place, counted row by row; a series is one row. Places are `(batch, count)` whole numbers, without the class
and register tokens, which come first and are always seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgessl.blocks.draws import Range, uniform
from edgessl.encoders import EncoderModule
from edgessl.encoders.series import PatchEmbed
from edgessl.encoders.vit import RotaryBlock, TokenEmbed
from edgessl.errors import InputError
from edgessl.vision import vision_module

Embed = TokenEmbed | PatchEmbed  # both have `prefix`, `grid` and `patch`


def tokens_of(encoder: EncoderModule, recipe: str) -> Embed:
    """How an encoder makes tokens: `prefix` (class and register tokens), `grid` and `patch`, per axis of the sample.

    Args:
        encoder: One whose first stage gives a token per patch.
        recipe: Who asks, for the message.

    Raises:
        InputError: It has no such tokens, or its blocks know only all places at once.
    """
    embed = encoder.stages[0]
    told = f"{getattr(encoder, 'name', 'this encoder')!r}"
    instead = "vit_micro" if encoder.input.kind == "image" else "vit_series"
    if not isinstance(embed, Embed):
        raise InputError(
            f"recipe {recipe!r} hides patches of a transformer, and encoder {told} is none. Type --encoder {instead}"
        )
    if any(isinstance(stage, RotaryBlock) for stage in encoder.stages):
        raise InputError(
            f"recipe {recipe!r} hides patches, and encoder {told} has rotary positions, which need all of them. "
            f"Type --encoder {instead}"
        )
    if torch.Size(embed.grid).numel() < 2:
        raise InputError(
            f"recipe {recipe!r} hides patches, and encoder {told} cuts a sample into one patch of {embed.patch}"
        )
    return embed


def patches(samples: Tensor, grid: Sequence[int], patch: Sequence[int]) -> Tensor:
    """Samples `(batch, channels, *axes)`, one axis or two -> the values of each patch `(batch, patches, values)`.

    Values run over (row, column, channel), or (time, channel). What is beyond the last whole patch belongs to none.
    lightly's `patchify` knows only square images.
    """
    if len(grid) == 1:  # a series is one row
        samples, grid, patch = samples.unsqueeze(2), (1, *grid), (1, *patch)
    samples = samples[:, :, : grid[0] * patch[0], : grid[1] * patch[1]]
    samples = samples.reshape(*samples.shape[:2], grid[0], patch[0], grid[1], patch[1])
    return samples.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def encode(encoder: EncoderModule, samples: Tensor, keep: Tensor | None = None) -> Tensor:
    """Tokens `(batch, prefix + kept, dim)` behind the last stage; see `encode_stages`."""
    return encode_stages(encoder, samples, keep)[-1]


def encode_stages(encoder: EncoderModule, samples: Tensor, keep: Tensor | None = None) -> list[Tensor]:
    """Prepared samples through the stages, with some of their patches.

    Args:
        encoder: One that `tokens_of` takes.
        samples: `(batch, channels, *axes)`; they are normalised here.
        keep: Places `(batch, kept)` of the patches that are seen, in this order; None for all.

    Returns:
        `(batch, prefix + kept, dim)` behind each stage: embedding, blocks, last norm.
    """
    embed, *blocks = encoder.stages
    tokens = embed(encoder.normalize(samples))
    if keep is not None:
        tokens = torch.cat([tokens[:, : embed.prefix], at_places(tokens[:, embed.prefix :], keep)], 1)
    found = [tokens]
    for block in blocks:
        found.append(block(found[-1]))
    return found


def at_places(tokens: Tensor, places: Tensor) -> Tensor:
    """Tokens `(batch, patches, values)` at places `(batch, count)` -> `(batch, count, values)`."""
    chosen: Tensor = vision_module("lightly.models.utils").get_at_index(tokens, places)
    return chosen


class TokenDecoder(nn.Module):
    """Seen tokens -> what is at other places: MAE's decoder, I-JEPA's predictor.

    A linear layer in, a mask token for every place that is asked for, fixed sines as positions, self-attention blocks, a
    linear layer out. The blocks are lightly's `MaskedVisionTransformerDecoderTIMM`, which knows only square grids of
    two axes where it fills in the positions itself.
    """

    def __init__(self, grid: Sequence[int], inputs: int, outputs: int, *, width: int, depth: int, heads: int) -> None:
        """Build the decoder.

        Args:
            grid: Patches per axis of the sample, one axis or two.
            inputs, outputs: Values per token that comes in, and per place that is asked for.
            width: Values per token inside, a multiple of `heads`, and of 2 per axis.
            depth, heads: Blocks, and attention heads of each.

        Raises:
            InputError: The width cannot be shared among heads or axes.
        """
        super().__init__()
        if width < 1 or width % heads or width % (2 * len(grid)):
            raise InputError(f"width must be a multiple of heads ({heads}) and of {2 * len(grid)}, not {width}")
        modules = vision_module("lightly.models.modules")
        self.narrow = nn.Linear(inputs, width)
        self.blocks = modules.MaskedVisionTransformerDecoderTIMM(
            int(np.prod(grid)), width, depth, heads, num_prefix_tokens=0, initialize_weights=False
        )
        self.blocks.apply(vision_module("lightly.models.modules.masked_vision_transformer_timm").init_weights)
        nn.init.normal_(self.blocks.mask_token, std=0.02)
        self.blocks.pos_embed.data[0] = _sines(grid, width)
        self.out = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor, keep: Tensor, ask: Tensor) -> Tensor:
        """Fill in what was not seen.

        Args:
            tokens: `(batch, prefix + kept, inputs)`; those in front of the kept have no place.
            keep: Places `(batch, kept)` of the last of them.
            ask: Places `(batch, asked)`.

        Returns:
            `(batch, asked, outputs)`.
        """
        seen = self.narrow(tokens)
        places = self.blocks.pos_embed.expand(len(tokens), -1, -1)
        prefix = seen.shape[1] - keep.shape[1]
        asked = self.blocks.mask_token + at_places(places, ask)
        known = seen[:, prefix:] + at_places(places, keep)
        decoded = self.blocks.decode(torch.cat([seen[:, :prefix], known, asked.to(seen)], 1))
        filled: Tensor = self.out(decoded[:, -ask.shape[1] :])
        return filled


def random_places(batch: int, count: int, hidden: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw which of `count` places are seen in each sample, at least one of them and not all.

    lightly's `random_token_mask` does the same, but takes no generator.

    Args:
        batch: Samples.
        count: Places, 2 or more.
        hidden: Share of them that is hidden.
        generator: Where all chance comes from.

    Returns:
        The places `(batch, kept)` that are seen, and the others `(batch, count - kept)`, on the generator's device.
    """
    kept = min(max(1, round(count * (1 - hidden))), count - 1)
    order = torch.rand(batch, count, generator=generator, device=generator.device).argsort(1)
    return order[:, :kept], order[:, kept:]


def block_places(
    batch: int,
    grid: Sequence[int],
    generator: torch.Generator,
    *,
    blocks: int = 4,
    share: Range = (0.15, 0.2),
    aspect: Range = (0.75, 1.5),
    context: Range = (0.85, 1.0),
) -> tuple[Tensor, Tensor]:
    """Draw target blocks and the context around them (I-JEPA, Assran et al. 2023, section 3): the paper's numbers.

    The size of a block is the same in all samples of a batch, its place is drawn for each; blocks may overlap. The
    context is one large block without the targets. The sample in which least is left of it decides how many of its
    places all samples keep, chosen at random; the released code keeps the first, which are at the top. In a grid of one
    axis a block is a span. lightly's `IJEPAMaskCollator` takes no generator and knows only images.

    Args:
        batch: Samples.
        grid: Patches per axis, one axis or two.
        generator: Where all chance comes from.
        blocks: Target blocks per sample.
        share: Of all patches, in a target block.
        aspect: Height over width of a target block.
        context: Share of all patches in the context block, which has the grid's own shape.

    Returns:
        Places `(batch, kept)` of the context and `(batch, blocks, places)` of the targets, on the generator's device.

    Raises:
        InputError: The grid is so small that the blocks may leave nothing to see.
    """
    rows, columns = (1, *grid) if len(grid) == 1 else grid
    like = torch.zeros(1, device=generator.device)
    size = uniform(like, generator, *share).item() * rows * columns
    slant = uniform(like, generator, *aspect).item()
    tall = round((size * slant) ** 0.5) if rows > 1 else 1
    target = _block(tall, size / max(tall, 1), rows, columns)
    while blocks * target[0] * target[1] >= rows * columns and target != (1, 1):  # rounding made it too large
        target = (target[0], target[1] - 1) if target[1] >= target[0] else (target[0] - 1, target[1])
    side = uniform(like, generator, *context).item() ** (0.5 if rows > 1 else 1)
    around = _block(side * rows if rows > 1 else 1, side * columns, rows, columns)
    if blocks * target[0] * target[1] >= rows * columns:
        raise InputError(
            f"{blocks} blocks of {target[0]}x{target[1]} patches leave nothing of {rows}x{columns} to see. "
            "Type --set encoder.patch=N for smaller patches, or --set blocks=N for fewer blocks"
        )
    hidden = _inside((batch, blocks), target, rows, columns, generator)  # bool (batch, blocks, patches)
    free = ~hidden.any(1)
    inside = free & _inside((batch, 1), around, rows, columns, generator)[:, 0]
    kept = max(1, int(inside.sum(1).min()))
    chance = torch.rand(free.shape, generator=generator, device=generator.device)
    keep = (inside.float() + free.float() + chance * 0.5).argsort(1, descending=True)[:, :kept]
    return keep, hidden.nonzero()[:, 2].view(batch, blocks, -1)


def _block(height: float, width: float, rows: int, columns: int) -> tuple[int, int]:
    """Whole patches, at least one of each."""
    return min(max(round(height), 1), rows), min(max(round(width), 1), columns)


def _inside(
    shape: tuple[int, int], block: tuple[int, int], rows: int, columns: int, generator: torch.Generator
) -> Tensor:
    """A block somewhere in the grid: bool `(*shape, patches)`."""
    height, width = block
    top = torch.randint(rows - height + 1, (*shape, 1, 1), generator=generator, device=generator.device)
    left = torch.randint(columns - width + 1, (*shape, 1, 1), generator=generator, device=generator.device)
    row = torch.arange(rows, device=generator.device)[:, None]
    column = torch.arange(columns, device=generator.device)
    return ((row >= top) & (row < top + height) & (column >= left) & (column < left + width)).flatten(2)


def _sines(grid: Sequence[int], width: int) -> Tensor:
    """Positions `(patches, width)`: the axes share the width."""
    parts: Any = vision_module("lightly.models.utils")
    if len(grid) == 1:
        places = np.arange(grid[0], dtype=np.float32)
        return torch.from_numpy(parts.get_1d_sine_cosine_positional_embedding_from_positions(width, places))
    across = np.stack(np.meshgrid(np.arange(grid[1], dtype=np.float32), np.arange(grid[0], dtype=np.float32)))
    return torch.from_numpy(parts.get_2d_sine_cosine_positional_embedding_from_grid(width, across))
