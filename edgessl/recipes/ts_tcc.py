"""TS-TCC: from the past of a weak view, predict the future of a strong one, and the other way round."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgessl.blocks.contrast import infonce
from edgessl.blocks.draws import whole
from edgessl.blocks.series_latents import step_features, steps_per_window
from edgessl.blocks.series_views import SeriesViewConfig, random_series_view
from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.base import Defaults, Masks, Recipe, Terms, Views
from edgessl.vision import vision_module

WEAK = SeriesViewConfig(span=(1, 1), scale=(0.8, 1.25), drop=0, noise=0.1)
STRONG = SeriesViewConfig(span=(1, 1), segments=1, scale=(0.5, 2.0), drop=0.1, noise=0.3)


@dataclass(frozen=True, kw_only=True)
class TSTCCConfig:
    """Settings of TS-TCC.

    Attributes:
        weak: The weak view: scale and jitter (section 3.1). The strengths are ours.
        strong: The strong view. The paper's is permutation and jitter: `segments=8` and `noise=0.8` are the released code's
            for activities. In a window of a second the order is the message (sitting down is standing up backwards), so
            that ours keeps it, and scales more instead.
        future: Share of the latent steps that is predicted; the released code predicts 6 of 18.
        temperature: Of the contextual contrast; the paper's, section 4.2.
        temporal, contextual: Weights of the two terms. The paper's are 1 and 0.7 (lambda of section 4.2); where a window's
            level tells it from all others, as the pull of the earth does, its future is told too easily.
        width, depth, heads: Of the transformer that sums up the past; 4 deep and 4 heads in the paper, 100 wide in the
            released code for activities.
        out: Width that the contextual contrast sees.
    """

    weak: SeriesViewConfig = WEAK
    strong: SeriesViewConfig = STRONG
    future: float = 1 / 3
    temperature: float = 0.2
    temporal: float = 0.2
    contextual: float = 1.0
    width: int = 64
    depth: int = 2
    heads: int = 4
    out: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.future < 1:
            raise InputError(f"future is the share of steps that is predicted, between 0 and 1, not {self.future}")
        if min(self.temporal, self.contextual) < 0:
            raise InputError(f"temporal and contextual are weights, 0 or more, not {self.temporal}, {self.contextual}")
        if not self.temperature > 0:
            raise InputError(f"temperature must be positive, not {self.temperature}")
        if self.width < 1 or self.heads < 1 or self.width % self.heads:
            raise InputError(f"width must be a multiple of heads ({self.heads}), not {self.width}")


class TSTCC(Recipe):
    """Time-Series representation learning via Temporal and Contextual Contrasting (Eldele et al. 2021, arXiv:2106.14112).

    Eq. 1 and 2 (temporal, across views) and eq. 3 (contextual). As in the paper the encoder sees a whole view at once, so
    latents near the cut know some of what follows; what they tell is the other view's. As in the released code latents have
    unit length and the transformer no positions; ours is half as deep.
    """

    config = TSTCCConfig
    defaults = Defaults(lr=2e-3, weight_decay=3e-4, batch=128)

    def __init__(self, encoder: EncoderModule, config: TSTCCConfig) -> None:
        super().__init__(encoder, config)
        self._steps = steps_per_window(encoder, "ts_tcc")
        self._ahead = max(1, int(self._steps * config.future))
        block = vision_module("timm.models.vision_transformer").Block
        self.narrow = nn.Linear(encoder.dim, config.width)
        self.token = nn.Parameter(torch.randn(1, 1, config.width))  # stands for the context c_t
        self.blocks = nn.Sequential(*(block(config.width, config.heads) for _ in range(config.depth)))
        self.predict = nn.Linear(config.width, self._ahead * encoder.dim)  # W_1 .. W_K
        self.head = vision_module("lightly.models.modules").SimCLRProjectionHead(config.width, config.width, config.out)
        self.contrast = vision_module("lightly.loss").NTXentLoss(config.temperature, gather_distributed=True)

    def views(self, series: Tensor, generator: torch.Generator) -> Views:
        """A weak and a strong view; `keep` is the past that is summed up, `hide` the steps that are predicted."""
        pair = [random_series_view(series, generator, each) for each in (self.settings.weak, self.settings.strong)]
        now = whole(1, self._steps - self._ahead, generator)
        at = torch.arange(now + self._ahead, device=series.device).expand(len(series), -1)
        return Views((pair[0], pair[1]), Masks(keep=at[:, :now], hide=at[:, now:]))

    def forward(self, batch: Views) -> Terms:
        """`temporal`: each context tells its window's future in the other view. `contextual`: NT-Xent of the contexts."""
        masks = batch.required_masks()
        z = functional.normalize(step_features(self.encoder, torch.cat(batch.views)), dim=2)  # (2 batch, steps, dim)
        tokens = self.narrow(z[:, masks.keep[0]])
        c = self.blocks(torch.cat([self.token.expand(len(z), -1, -1), tokens], 1))[:, 0]  # (2 batch, width)
        guess_1, guess_2 = self.predict(c).view(len(c), self._ahead, -1).transpose(0, 1).chunk(2, 1)
        z_1, z_2 = z[:, masks.hide[0]].transpose(0, 1).chunk(2, 1)  # (ahead, batch, dim)
        temporal = infonce(guess_1, z_2) + infonce(guess_2, z_1)  # at each step, among all windows
        contextual = self.contrast(*self.head(c).chunk(2))
        return {"temporal": self.settings.temporal * temporal, "contextual": self.settings.contextual * contextual}
