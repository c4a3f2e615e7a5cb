"""Masked series: hide some patches of a window, paint them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgessl.blocks.decoders import PLAIN_VIEWS
from edgessl.blocks.series_latents import StepPainter, hidden, mean_where, step_features, to_time
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
    zero. The target is normalised per window and channel as the paper's whole input is; ours is not, so that the encoder
    keeps amplitude and posture. Each latent step is a patch, so convolutions can learn too.
    """

    config = MaskedSeriesConfig
    defaults = Defaults(lr=3e-3, weight_decay=1e-3, batch=128)
    usual_views = PLAIN_VIEWS

    def __init__(self, encoder: EncoderModule, config: MaskedSeriesConfig) -> None:
        super().__init__(encoder, config)
        self.painter = StepPainter(encoder)
        if self.painter.steps < 2:
            raise InputError(
                f"recipe 'masked_series' hides some of the latent steps; {encoder.name!r} gives 1 per window"
            )

    def views(self, series: Tensor, generator: torch.Generator) -> Views:
        """A view with patches hidden, and the whole of it; the label says which steps of time are hidden."""
        view, steps = self.view(series, generator), self.painter.steps
        kept = min(max(1, round(steps * (1 - self.settings.hidden))), steps - 1)
        hide = random_places(len(view), steps, kept, generator)[1].to(view.device)
        where = torch.zeros(len(view), 1, steps, dtype=torch.bool, device=view.device).scatter_(2, hide[:, None], True)
        where = to_time(where, view.shape[2])
        return Views((hidden(view, where), view), labels=where)

    def forward(self, batch: Views) -> Terms:
        """`patches`: squared error of what was hidden."""
        seen, whole = batch.views
        if batch.labels is None:
            raise InputError("masked_series takes views with what is hidden; make them with its own `views`")
        error = self.painter(step_features(self.encoder, seen)) - per_window(whole)
        return {"patches": mean_where(error.float().square(), batch.labels)}


def per_window(series: Tensor) -> Tensor:
    """Each channel of each window with mean 0 and deviation 1; one that hardly moves stays small."""
    spread = series.std((0, 2), keepdim=True, correction=0)
    deviation, mean = torch.std_mean(series, 2, keepdim=True, correction=0)
    return (series - mean) / (deviation + 0.01 * spread + 1e-6)
