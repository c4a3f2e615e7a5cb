"""Rotation: by how many quarter turns was the image turned?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgessl.blocks.views import ViewConfig, plain_views
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views


@dataclass(frozen=True, kw_only=True)
class RotationConfig:
    """Settings of rotation.

    Attributes:
        hidden: Width of the head's hidden layer; ours. 0 for the paper's linear classifier. With a hidden layer the
            features lie further from the answer, where the paper finds the better ones too (section 4.1, table 1).
        views: How far a view may be from its sample; None for a crop and a flip. A roll (`turn_deg`) would blur
            the answer.
    """

    hidden: int = 256
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if self.hidden < 0:
            raise InputError(f"hidden is a width, or 0 for a linear head, not {self.hidden}")


class Rotation(Recipe):
    """RotNet (Gidaris et al. 2018, arXiv:1803.07728), eq. 2 and 3 with K = 4 turns of 90 degrees.

    Each image of a batch is turned once, by chance; the paper puts all four turns of it into one batch, which costs four
    times as much. Images that are square are turned as they are. Of others the largest window of the same aspect is taken
    that fits whichever way it is turned, from the middle, and enlarged to the image's size: the same for all four, so
    that it gives nothing away. Nothing is learned where no side is up: seen from above, or by a camera that rolls.
    """

    config = RotationConfig
    defaults = Defaults(lr=2e-3, weight_decay=5e-4, batch=128)
    usual_views = plain_views((0.5, 1.0))

    def __init__(self, encoder: EncoderModule, config: RotationConfig) -> None:
        super().__init__(encoder, config)
        hidden, dim = config.hidden, encoder.dim
        layers = [nn.Linear(dim, hidden), nn.BatchNorm1d(hidden), nn.ReLU()] if hidden else []
        self.head = nn.Sequential(*layers, nn.Linear(hidden or dim, 4))

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        """One view of each image, turned counter-clockwise by 0 to 3 quarters, and the quarters `(batch,)`."""
        quarters = torch.randint(4, (len(images),), generator=generator, device=generator.device).to(images.device)
        return Views((turned(self.view(images, generator), quarters),), labels=quarters)

    def forward(self, batch: Views) -> Terms:
        """`turn`: cross-entropy over the four turns; log 4 = 1.386 is guessing."""
        logits = self.head(self.encoder.features(batch.views[0]))  # (batch, 4)
        return {"turn": functional.cross_entropy(logits.float(), batch.required_labels())}


def turned(images: Tensor, quarters: Tensor) -> Tensor:
    """Images `(batch, 3, height, width)` turned counter-clockwise by `(batch,)` quarters, in their own size."""
    height, width = images.shape[2:]
    short, long = min(height, width), max(height, width)
    less = max(1, round(short * short / long))
    window = (less, short) if height < width else (short, less)
    ways = [_middle(images, window[::-1] if turn % 2 else window).rot90(turn, (2, 3)) for turn in range(4)]
    chosen = torch.stack(ways)[quarters, torch.arange(len(images), device=images.device)]
    if height == width:
        return chosen
    return functional.interpolate(chosen, (height, width), mode="bilinear", align_corners=False)


def _middle(images: Tensor, size: tuple[int, ...]) -> Tensor:
    top, left = (images.shape[2] - size[0]) // 2, (images.shape[3] - size[1]) // 2
    return images[:, :, top : top + size[0], left : left + size[1]]
