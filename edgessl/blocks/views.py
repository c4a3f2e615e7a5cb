"""Random views of samples of any kind; recipes know views, and views know the modality."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from edgessl.blocks.draws import Range
from edgessl.blocks.image_views import ImageViewConfig, random_image_view
from edgessl.blocks.series_views import SeriesViewConfig, random_series_view
from edgessl.signals import SERIES

ViewConfig = ImageViewConfig | SeriesViewConfig

#: kind of signal -> how far a view may be from its sample, where a recipe says nothing else
USUAL_VIEWS: dict[str, ViewConfig] = {"image": ImageViewConfig()} | {kind: SeriesViewConfig() for kind in SERIES}


def plain_views(area: Range, *, flip: float = 0.5, span: Range = (0.8, 1.0)) -> dict[str, ViewConfig]:
    """Views that only move, for recipes that paint or hide: light and noise that are added would have to be painted too.

    Args:
        area: Share of an image in its crop.
        flip: Probability that an image is mirrored.
        span: Share of a series that is cut out; its direction and scale stay.
    """
    image = ImageViewConfig(area=area, flip=flip, turn_deg=0, light=0, grey=0, blur=0, noise=0)
    series = SeriesViewConfig(span=span, scale=(1.0, 1.0), drop=0, noise=0)
    return {"image": image, **dict.fromkeys(SERIES, series)}


def random_view(samples: Tensor, generator: torch.Generator, config: ViewConfig) -> Tensor:
    """One view of each prepared sample.

    Args:
        samples: Images `(batch, 3, height, width)` in 0..1, or series `(batch, channels, time)`.
        generator: Where all chance comes from.
        config: How far a view may be from its sample; its type says which kind they are.

    Returns:
        As `samples`.
    """
    if isinstance(config, SeriesViewConfig):
        return random_series_view(samples, generator, config)
    return random_image_view(samples, generator, config)


def multi_crop(samples: Tensor, generator: torch.Generator, config: ViewConfig, narrow: int) -> tuple[Tensor, ...]:
    """Two views of each sample and `narrow` of a small part of it (SwAV, arXiv:2006.09882, section 3.2).

    All have the shape of the samples; the paper's narrow views are smaller, too, which saves time with large images, and
    have batch norms to themselves. Recipes here encode all views at once.
    """
    configs = [config] * 2 + [narrowed(config)] * narrow
    return tuple(random_view(samples, generator, each) for each in configs)


def narrowed(config: ViewConfig) -> ViewConfig:
    """Views of a smaller part: at most what the smallest view of `config` shows, at least half of that."""
    if isinstance(config, SeriesViewConfig):
        return replace(config, span=(config.span[0] / 2, config.span[0]))
    return replace(config, area=(config.area[0] / 2, config.area[0]))
