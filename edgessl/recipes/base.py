"""What a recipe is: images -> views -> named loss terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgessl.encoders import EncoderModule

#: Named loss terms, each a scalar with its weight inside; the loss is their sum.
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Masks:
    """Which tokens of each sample an encoder sees.

    Attributes:
        keep: `(batch, kept)` places of the visible tokens.
        hide: `(batch, hidden)` places of the others.
    """

    keep: Tensor
    hide: Tensor


@dataclass(frozen=True)
class Views:
    """What a recipe looks at in one step; all chance is spent on making it.

    Attributes:
        views: Images in 0..1, each `(batch, 3, height, width)`.
        masks: Hidden tokens, for recipes that hide some.
    """

    views: tuple[Tensor, ...]
    masks: Masks | None = None


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Numbers of AdamW that suit a recipe on frames of 32 to 128 pixels.

    Attributes:
        lr: Peak learning rate.
        weight_decay: Of weights with two axes or more.
        batch: Samples per step.
    """

    lr: float
    weight_decay: float
    batch: int


class Recipe(nn.Module):
    """An SSL method around an encoder.

    Attributes:
        config: Class of the settings.
        defaults: Optimizer numbers used where the user gives none.
        encoder: What is trained.
    """

    config: ClassVar[type]
    defaults: ClassVar[Defaults]
    encoder: EncoderModule

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        """Images `(batch, 3, height, width)` in 0..1 -> views of them; nothing else in a recipe is random."""
        raise NotImplementedError

    def forward(self, batch: Views) -> Terms:
        """The loss terms of these views."""
        raise NotImplementedError

    def after_step(self, step: int, steps: int) -> None:
        """Called after optimizer step `step` of `steps`, counted from 0; moves a teacher where there is one."""

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Of the encoder's activations, where it learned with them rounded; see `checkpoint.write_checkpoint`."""
        return {}
