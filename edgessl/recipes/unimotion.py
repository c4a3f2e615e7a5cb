"""UniMotion: hide the part of a movement that says most, paint it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgessl.blocks.decoders import PLAIN_VIEWS, painting_target
from edgessl.blocks.draws import uniform
from edgessl.blocks.series_elements import jerk_energy
from edgessl.blocks.series_latents import (
    StepPainter,
    hidden,
    mean_where,
    places_in_time,
    step_features,
    steps_per_window,
)
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views


@dataclass(frozen=True, kw_only=True)
class UniMotionConfig:
    """Settings of UniMotion.

    Attributes:
        hidden: Share of the patches that is hidden; ours, the paper's is not known to us.
        views: How far a view may be from its window; None for what is usual where a recipe paints.
    """

    hidden: float = 0.5
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not 0 < self.hidden < 1:
            raise InputError(f"hidden is the share of hidden patches, between 0 and 1, not {self.hidden}")


class UniMotion(Recipe):
    """The first stage of UniMotion (2026, arXiv:2603.12218): hide the nucleus of a movement.

    Of the paper we know the idea, not the numbers: that the energy is that of the jerk, that patches are drawn with a
    probability in proportion to it, that half are hidden and the squared error are ours. A patch is a latent step of the
    encoder, and a linear layer paints it. Its second stage needs labels and is no recipe.
    """

    config = UniMotionConfig
    defaults = Defaults(lr=3e-3, weight_decay=1e-3, batch=128)
    usual_views = PLAIN_VIEWS

    def __init__(self, encoder: EncoderModule, config: UniMotionConfig) -> None:
        super().__init__(encoder, config)
        self._steps = steps_per_window(encoder, "unimotion")
        self.painter = StepPainter(encoder)

    def views(self, series: Tensor, generator: torch.Generator) -> Views:
        """A view without its nucleus, and the whole of it; the label says which steps of time are hidden."""
        view, steps = self.view(series, generator), self._steps
        energy = jerk_energy(view, steps)  # (batch, steps)
        count = min(max(1, round(steps * self.settings.hidden)), steps - 1)
        # The smallest of exponential waiting times: drawn one after another, in proportion to energy, none twice.
        waiting = -uniform(energy, generator, 1e-6, 1).log() / energy.clamp_min(1e-12)
        hide = waiting.topk(count, dim=1, largest=False).indices
        where = places_in_time(hide, steps, view.shape[2])
        return Views((hidden(view, where), view), labels=where)

    def forward(self, batch: Views) -> Terms:
        """`nucleus`: squared error of what was hidden."""
        (seen, whole), where = batch.views, batch.required_labels()
        error = self.painter(step_features(self.encoder, seen)) - painting_target(self.encoder, whole)
        return {"nucleus": mean_where(error.float().square(), where)}
