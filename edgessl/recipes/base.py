"""What a recipe is: samples -> views -> named loss terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from edgessl.blocks.views import USUAL_VIEWS, ViewConfig, multi_crop, random_view
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError

#: Named loss terms, each a scalar with its weight inside; the loss is their sum.
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Masks:
    """Which tokens of each sample an encoder sees.

    Attributes:
        keep: `(batch, kept)` places of the visible tokens.
        hide: `(batch, hidden)` places of the others, or of those that are asked for.
    """

    keep: Tensor
    hide: Tensor

    def to(self, device: torch.device) -> Masks:
        """The same places where the samples are."""
        return Masks(self.keep.to(device), self.hide.to(device))


@dataclass(frozen=True)
class Views:
    """What a recipe looks at in one step; all chance is spent on making it.

    Attributes:
        views: The first is what the method starts from; the others are what it holds against it: another view, or the
            sample that is to be painted. Images in 0..1 `(batch, 3, height, width)`, or series `(batch, channels, time)`.
        masks: Hidden tokens, for recipes that hide some.
        labels: What was done to the first view, `(batch, ...)`, for recipes that ask.
    """

    views: tuple[Tensor, ...]
    masks: Masks | None = None
    labels: Tensor | None = None

    def unpaired(self) -> Views:
        """Every sample held against what belongs to another one: from this nothing can be learned.

        The negative control of a recipe. Each of the other views, and the labels, is moved on by another number of rows.
        """
        first, *others = self.views
        moved = (view.roll(1 + place % max(len(view) - 1, 1), 0) for place, view in enumerate(others))
        labels = None if self.labels is None else self.labels.roll((len(first) // 2 + 1) % len(first) or 1, 0)
        return Views((first, *moved), self.masks, labels)

    def required_masks(self) -> Masks:
        """The masks, for a recipe that cannot do without.

        Raises:
            InputError: There are none.
        """
        if self.masks is None:
            raise InputError("these views have no masks; make them with the recipe's own `views`")
        return self.masks

    def required_labels(self) -> Tensor:
        """The labels, for a recipe that cannot do without.

        Raises:
            InputError: There are none.
        """
        if self.labels is None:
            raise InputError("these views have no labels; make them with the recipe's own `views`")
        return self.labels


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Numbers of AdamW that suit a recipe on frames of 32 to 128 pixels, or windows of 50 to 500 steps.

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
        config: Class of the settings. A setting called `views` is how far a view may be from its sample; None takes
            what `usual_views` has for the encoder's kind of samples. One called `local_views` counts views of a small
            part, beside two of the whole (multi-crop).
        defaults: Optimizer numbers used where the user gives none.
        usual_views: Kind of signal -> views where the user says nothing.
        encoder: What is trained.
        settings: An instance of `config`.
    """

    config: ClassVar[type]
    defaults: ClassVar[Defaults]
    usual_views: ClassVar[Mapping[str, ViewConfig]] = USUAL_VIEWS
    encoder: EncoderModule
    settings: Any

    def __init__(self, encoder: EncoderModule, settings: Any) -> None:
        super().__init__()
        self.encoder, self.settings = encoder, settings

    @property
    def view_config(self) -> ViewConfig:
        """How far a view may be from its sample."""
        return getattr(self.settings, "views", None) or self.usual_views[self.encoder.input.kind]

    def view(self, samples: Tensor, generator: torch.Generator) -> Tensor:
        """One view of each sample, as the settings say."""
        return random_view(samples, generator, self.view_config)

    def views(self, samples: Tensor, generator: torch.Generator) -> Views:
        """Prepared samples -> two views, then `local_views` of a small part; nothing else in a recipe is random."""
        return Views(multi_crop(samples, generator, self.view_config, getattr(self.settings, "local_views", 0)))

    def views_at(self, places: Tensor, samples: Tensor, generator: torch.Generator) -> Views:
        """`views`, for a recipe that knows something of each sample by its place `(batch,)` in the source."""
        return self.views(samples, generator)

    def forward(self, batch: Views) -> Terms:
        """The loss terms of these views."""
        raise NotImplementedError

    def after_step(self, step: int, steps: int) -> None:
        """Called after optimizer step `step` of `steps`, counted from 0; moves a teacher where there is one."""

    def lr_factors(self) -> Mapping[str, float]:
        """Parts of the recipe that learn at another rate than the rest: name of the module -> factor."""
        return {}

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Of the encoder's activations, where it learned with them rounded; see `checkpoint.write_checkpoint`."""
        return {}
