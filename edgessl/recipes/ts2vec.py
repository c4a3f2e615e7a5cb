"""TS2Vec: two overlapping crops of a window agree, step by step, at every scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgessl.blocks.contrast import contrast_of_views
from edgessl.blocks.draws import chance, whole
from edgessl.blocks.series_latents import hidden, step_features, steps_per_window, to_time
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Masks, Recipe, Terms, Views


@dataclass(frozen=True, kw_only=True)
class TS2VecConfig:
    """Settings of TS2Vec.

    Attributes:
        hidden: Probability that a step of a view is hidden; the paper's, section 3.2.
        instance: Share of the instance-wise contrast, against other windows at the same step; the rest is temporal,
            against other steps of the same window. The paper weighs both alike, eq. 3.
    """

    hidden: float = 0.5
    instance: float = 0.5

    def __post_init__(self) -> None:
        for name in ("hidden", "instance"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is a share, 0 to 1, not {getattr(self, name)}")


class TS2Vec(Recipe):
    """TS2Vec (Yue et al. 2022, arXiv:2106.10466), eq. 1 to 3 and algorithm 1.

    A crop is a window whose other steps are hidden, not a shorter one, so that encoders of one length learn too; and
    steps are hidden in the series, not behind a first projection. The encoders, the mean over time in place of the
    maximum and AdamW's schedule are ours; there is no average of weights.
    """

    config = TS2VecConfig
    defaults = Defaults(lr=1e-3, weight_decay=1e-4, batch=64)

    def __init__(self, encoder: EncoderModule, config: TS2VecConfig) -> None:
        super().__init__(encoder, config)
        self._steps = steps_per_window(encoder, "ts2vec")

    def views(self, series: Tensor, generator: torch.Generator) -> Views:
        """Two crops with steps hidden; `keep` are the latent steps that both show, the same in every window."""
        batch, _, time = series.shape
        count = whole(2, self._steps, generator)
        left = whole(0, self._steps - count, generator)
        right = left + count
        start, end = whole(0, left, generator), whole(right, self._steps, generator)
        at = torch.arange(self._steps, device=series.device)
        views, each = [], series.new_zeros(batch, 1, time)
        for low, high in ((start, right), (left, end)):
            outside = to_time((at < low) | (at >= high), time)
            views.append(hidden(series, outside | chance(each, generator, self.settings.hidden)))
        return Views(tuple(views), Masks(keep=at[left:right].expand(batch, -1), hide=at[:0].expand(batch, -1)))

    def forward(self, batch: Views) -> Terms:
        """`instance` and `temporal` contrast, means over scales that halve the number of steps."""
        shared = batch.required_masks().keep[0]
        z_1, z_2 = step_features(self.encoder, torch.cat(batch.views))[:, shared].chunk(2)  # (batch, shared, dim)
        instance, temporal, scales = z_1.new_zeros(()), z_1.new_zeros(()), 0
        while True:
            scales += 1
            instance = instance + contrast_of_views(z_1.transpose(0, 1), z_2.transpose(0, 1))
            if z_1.shape[1] == 1:
                break
            temporal = temporal + contrast_of_views(z_1, z_2)
            z_1, z_2 = (functional.max_pool1d(z.transpose(1, 2), 2).transpose(1, 2) for z in (z_1, z_2))
        share = self.settings.instance
        return {"instance": share * instance / scales, "temporal": (1 - share) * temporal / scales}
