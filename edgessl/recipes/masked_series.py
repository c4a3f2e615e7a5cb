"""Masked series: hide some patches of a window, paint them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgessl.blocks.decoders import PLAIN_VIEWS, painting_target
from edgessl.blocks.series_latents import (
    StepPainter,
    hidden,
    mean_where,
    places_in_time,
    step_features,
    steps_per_window,
)
from edgessl.blocks.tokens import random_places
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views


@dataclass(frozen=True, kw_only=True)
class MaskedSeriesConfig:
    """Settings of masked series.

    Attributes:
        hidden: Share of the patches that is hidden; the paper's, section 3.2 and appendix A.1.
        views: How far a view may be from its window; None for what is usual where a recipe paints. The paper has none.
    """

    hidden: float = 0.4
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not 0 < self.hidden < 1:
            raise InputError(f"hidden is the share of hidden patches, between 0 and 1, not {self.hidden}")


class MaskedSeries(Recipe):
    """PatchTST's self-supervision (Nie et al. 2023, arXiv:2211.14730), section 3.2.

    A patch holds all channels, where the paper takes each channel alone; hidden patches stand at the batch's mean, not at
    zero. The paper normalises each window; we do not, neither what is seen nor what is painted, so that the encoder learns
    amplitude and posture. Each latent step is a patch, so convolutions can learn too.
    """

    config = MaskedSeriesConfig
    defaults = Defaults(lr=3e-3, weight_decay=1e-3, batch=128)
    usual_views = PLAIN_VIEWS

    def __init__(self, encoder: EncoderModule, config: MaskedSeriesConfig) -> None:
        super().__init__(encoder, config)
        self._steps = steps_per_window(encoder, "masked_series")
        self.painter = StepPainter(encoder)

    def views(self, series: Tensor, generator: torch.Generator) -> Views:
        """A view with patches hidden, and the whole of it; the label says which steps of time are hidden."""
        view = self.view(series, generator)
        hide = random_places(len(view), self._steps, self.settings.hidden, generator)[1].to(view.device)
        where = places_in_time(hide, self._steps, view.shape[2])
        return Views((hidden(view, where), view), labels=where)

    def forward(self, batch: Views) -> Terms:
        """`patches`: squared error of what was hidden."""
        (seen, whole), where = batch.views, batch.required_labels()
        error = self.painter(step_features(self.encoder, seen)) - painting_target(self.encoder, whole)
        return {"patches": mean_where(error.float().square(), where)}
