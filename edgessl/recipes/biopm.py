"""BioPM: take some movements out of a window, paint them from the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgessl.blocks.decoders import PLAIN_VIEWS, painting_target
from edgessl.blocks.draws import Range, uniform
from edgessl.blocks.series_elements import elements, in_bins, slow_and_body
from edgessl.blocks.series_latents import StepPainter, mean_where, step_features
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Recipe, Terms, Views


@dataclass(frozen=True, kw_only=True)
class BioPMConfig:
    """Settings of BioPM.

    Attributes:
        band_hz: Frequencies of a body's movement; what is slower is posture. The paper's.
        bins: Parts of the window that are hidden or seen; ten seconds in one-second bins in the paper.
        hidden: Share of the bins that is hidden, drawn per window; from a quarter to three quarters as the paper's.
        masked, seen: Weights of the error where elements are hidden and elsewhere; the paper's.
        views: How far a view may be from its window; None for what is usual where a recipe paints.
    """

    band_hz: Range = (0.5, 12.0)
    bins: int = 10
    hidden: Range = (0.25, 0.75)
    masked: float = 100.0
    seen: float = 1.0
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.band_hz[0] < self.band_hz[1]:
            raise InputError(f"band_hz must be two rising frequencies, not {self.band_hz}")
        if self.bins < 2:
            raise InputError(f"bins must be 2 or more, not {self.bins}")
        if min(self.masked, self.seen) < 0:
            raise InputError(f"masked and seen are weights, 0 or more, not {self.masked} and {self.seen}")
        if not 0 < self.hidden[0] <= self.hidden[1] < 1:
            raise InputError(f"hidden is a range of shares of the bins, between 0 and 1, not {self.hidden}")


class BioPM(Recipe):
    """BioPM (2026, arXiv:2603.10961): movement elements between zero crossings, hidden by bins of time; weighted L1.

    The paper resamples each element to 32 values and makes a token of it; its tokens know their axis, time and length.
    Ours stay where they are, so that any encoder of fixed windows learns from them: where an element is hidden its channel
    keeps only its posture, and the encoder paints the movement, in shares of each channel's spread. Crossings are those
    of the sampled values, not of a spline, the band is cut out of the spectrum, no visible elements are swapped, and a
    linear layer per step stands for the deconvolutions.
    """

    config = BioPMConfig
    defaults = Defaults(lr=3e-3, weight_decay=1e-3, batch=128)
    usual_views = PLAIN_VIEWS

    def __init__(self, encoder: EncoderModule, config: BioPMConfig) -> None:
        super().__init__(encoder, config)
        self.painter = StepPainter(encoder)

    def views(self, series: Tensor, generator: torch.Generator) -> Views:
        """A view without some of its movements, and the whole of it; the label says where they are missing."""
        view, bins = self.view(series, generator), self.settings.bins
        slow, body = slow_and_body(view, self.encoder.input.rate_hz, self.settings.band_hz)
        share = uniform(view.new_zeros(len(view), 1), generator, *self.settings.hidden)
        order = uniform(view.new_zeros(len(view), bins), generator, 0, 1).argsort(1).argsort(1)
        where = in_bins(elements(body), order < (share * bins).round().clamp(1, bins - 1))
        return Views((torch.where(where, slow, view), view), labels=where)

    def forward(self, batch: Views) -> Terms:
        """`masked` and `seen`: absolute error of the movement in hidden elements, and in the others."""
        (seen, whole), where = batch.views, batch.required_labels()
        target = painting_target(self.encoder, whole)
        body = slow_and_body(target, self.encoder.input.rate_hz, self.settings.band_hz)[1]
        error = (self.painter(step_features(self.encoder, seen)) - body).float().abs()
        weights = self.settings
        return {
            "masked": weights.masked * mean_where(error, where),
            "seen": weights.seen * mean_where(error, ~where),
        }
