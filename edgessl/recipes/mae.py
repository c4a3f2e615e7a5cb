"""MAE: see a quarter of the patches, paint the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgessl.blocks.image_views import ImageViewConfig
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.encoders.vit import TokenEmbed
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Masks, Recipe, Terms, Views
from edgessl.vision import vision_module


@dataclass(frozen=True, kw_only=True)
class MAEConfig:
    """Settings of MAE.

    Attributes:
        hidden: Share of the patches that is hidden; the paper's, section 4.1.
        width, depth, heads: Of the decoder; the paper's is 512 wide and 8 deep, for encoders eight times as wide.
        views: How far a view may be from its sample; None for the paper's crop and flip, appendix A.1: what is hidden is
            augmentation enough.
    """

    hidden: float = 0.75
    width: int = 64
    depth: int = 2
    heads: int = 4
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not 0 < self.hidden < 1:
            raise InputError(f"hidden is the share of hidden patches, between 0 and 1, not {self.hidden}")
        if self.width % 4 or self.width % self.heads:
            raise InputError(f"width must be a multiple of 4 and of heads ({self.heads}), not {self.width}")


class MAE(Recipe):
    """Masked Autoencoders (He et al. 2022, arXiv:2111.06377), section 3, with normalised pixels as targets.

    The encoder's positions are its own, learned or not; the paper's are fixed sines, as our decoder's are.
    """

    config = MAEConfig
    defaults = Defaults(lr=1e-3, weight_decay=0.05, batch=128)
    usual_views = {"image": ImageViewConfig(area=(0.2, 1.0), turn_deg=0, light=0, grey=0, blur=0, noise=0)}  # noqa: RUF012

    def __init__(self, encoder: EncoderModule, config: MAEConfig) -> None:
        super().__init__(encoder, config)
        embed = encoder.stages[0]
        if not isinstance(embed, TokenEmbed):
            given = getattr(encoder, "name", "this encoder")
            raise InputError(
                f"recipe 'mae' hides patches of a vision transformer, and {given} is none. "
                "Type --encoder vit_micro, or a vit_ model of timm such as vit_tiny_patch16_224"
            )
        self._prefix, self._patch = embed.prefix, embed.patch
        self._grid = (encoder.input.shape[0] // embed.patch[0], encoder.input.shape[1] // embed.patch[1])
        self.narrow = nn.Linear(encoder.dim, config.width)
        self.decoder = _decoder(self._grid, embed.prefix, config)
        self.paint = nn.Linear(config.width, 3 * embed.patch[0] * embed.patch[1])

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        """One view of each image, to be seen and to be painted, and which of its patches are hidden."""
        view = self.view(images, generator)
        count = self._grid[0] * self._grid[1]
        kept = max(1, int(count * (1 - self.settings.hidden)))
        # lightly's random_token_mask does the same, but takes no generator.
        chance = torch.rand(len(images), count, generator=generator, device=generator.device).to(images.device)
        order = chance.argsort(1)
        return Views((view, view), Masks(keep=order[:, :kept], hide=order[:, kept:]))

    def forward(self, batch: Views) -> Terms:
        """`pixels`: squared error on the hidden patches, each normalised by its own mean and deviation."""
        if batch.masks is None:
            raise InputError("mae takes views with masks; make them with its own `views`")
        parts, keep, hide = vision_module("lightly.models.utils"), batch.masks.keep, batch.masks.hide
        images, painting = map(self.encoder.normalize, batch.views)  # the same images, but in the negative control

        embed, *blocks = self.encoder.stages
        tokens = embed(images)  # (batch, prefix + patches, dim)
        tokens = torch.cat([tokens[:, : self._prefix], parts.get_at_index(tokens[:, self._prefix :], keep)], 1)
        for block in blocks:
            tokens = block(tokens)  # (batch, prefix + kept, dim)

        seen = self.narrow(tokens)  # (batch, prefix + kept, width)
        canvas = parts.repeat_token(self.decoder.mask_token.to(seen), (len(seen), self._grid[0] * self._grid[1]))
        canvas = parts.set_at_index(canvas, keep, seen[:, self._prefix :])  # (batch, patches, width)
        decoded = self.decoder(torch.cat([seen[:, : self._prefix], canvas], 1))
        painted = self.paint(parts.get_at_index(decoded[:, self._prefix :], hide))  # (batch, hidden, pixels)

        target = parts.normalize_mean_var(parts.get_at_index(_patches(painting, self._grid, self._patch), hide))
        return {"pixels": functional.mse_loss(painted.float(), target)}


def _decoder(grid: tuple[int, int], prefix: int, config: MAEConfig) -> Any:
    modules, parts = vision_module("lightly.models.modules"), vision_module("lightly.models.utils")
    decoder = modules.MaskedVisionTransformerDecoderTIMM(
        grid[0] * grid[1],
        config.width,
        config.depth,
        config.heads,
        num_prefix_tokens=prefix,
        initialize_weights=False,  # it knows only square grids; the rest of this function does the same for any
    )
    decoder.apply(vision_module("lightly.models.modules.masked_vision_transformer_timm").init_weights)
    nn.init.normal_(decoder.mask_token, std=0.02)
    places = np.stack(np.meshgrid(np.arange(grid[1], dtype=np.float32), np.arange(grid[0], dtype=np.float32)))
    sines = parts.get_2d_sine_cosine_positional_embedding_from_grid(config.width, places)  # (patches, width)
    decoder.pos_embed.data[0, prefix:] = torch.from_numpy(sines)
    return decoder


def _patches(images: Tensor, grid: tuple[int, int], patch: tuple[int, int]) -> Tensor:
    """Images `(batch, 3, height, width)` -> `(batch, patches, pixels)`; lightly's patchify knows only squares."""
    images = images[:, :, : grid[0] * patch[0], : grid[1] * patch[1]]
    images = images.reshape(len(images), 3, grid[0], patch[0], grid[1], patch[1])
    return images.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # pixels run over (row, column, channel)
