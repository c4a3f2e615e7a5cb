"""CPC: from what a window has shown so far, tell its own future from other windows' and from other times."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgessl.blocks.contrast import infonce
from edgessl.blocks.draws import whole
from edgessl.blocks.series_latents import hidden, step_features, steps_per_window, to_time
from edgessl.blocks.views import ViewConfig
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Masks, Recipe, Terms, Views


@dataclass(frozen=True, kw_only=True)
class CPCConfig:
    """Settings of CPC.

    Attributes:
        ahead: Latent steps that are predicted, up to the window's end; the paper's 12, section 3.1.
        context: Width of the recurrent net; the paper's is 256, half of its latents' 512.
        views: How far a view may be from its window; None for what is usual. The paper has none for sound.
    """

    ahead: int = 12
    context: int = 128
    views: ViewConfig | None = None

    def __post_init__(self) -> None:
        for name in ("ahead", "context"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, not {getattr(self, name)}")


class CPC(Recipe):
    """Contrastive Predictive Coding (van den Oord et al. 2018, arXiv:1807.03748), eq. 3 and 4.

    Our encoders look both ways. So that no latent of the past sees the future, a batch is cut at one place and encoded
    twice: once with what follows hidden, once with what came before. There is one place of prediction per step, where
    the paper has one behind each latent. Negatives are the other future steps of the window and those of all others;
    that the steps at the cut look like steps at a cut tells the time, never the window.
    """

    config = CPCConfig
    defaults = Defaults(lr=1e-3, weight_decay=1e-4, batch=64)

    def __init__(self, encoder: EncoderModule, config: CPCConfig) -> None:
        super().__init__(encoder, config)
        self._steps = steps_per_window(encoder, "cpc")
        self.context = nn.GRU(encoder.dim, config.context, batch_first=True)  # g_ar
        self.predict = nn.Linear(config.context, config.ahead * encoder.dim)  # W_1 .. W_K

    def views(self, series: Tensor, generator: torch.Generator) -> Views:
        """The past and the future of one view of each window; `keep` and `hide` are their latent steps."""
        cut = whole(1, self._steps - 1, generator)
        view, at = self.view(series, generator), torch.arange(self._steps, device=series.device)
        later = to_time(at >= cut, series.shape[2])
        future = at[cut : cut + self.settings.ahead]
        places = Masks(keep=at[:cut].expand(len(view), -1), hide=future.expand(len(view), -1))
        return Views((hidden(view, later), hidden(view, ~later)), places)

    def forward(self, batch: Views) -> Terms:
        """`infonce`: each prediction against the future steps of all windows."""
        masks = batch.required_masks()
        past, future = step_features(self.encoder, torch.cat(batch.views)).chunk(2)  # z: (batch, steps, dim)
        c = self.context(past[:, masks.keep[0]])[0][:, -1]  # (batch, context)
        z = future[:, masks.hide[0]]  # (batch, ahead, dim)
        guess = self.predict(c).view(len(c), self.settings.ahead, -1)[:, : z.shape[1]]  # W_k c, as z
        return {"infonce": infonce(guess.flatten(0, 1), z.flatten(0, 1))}
