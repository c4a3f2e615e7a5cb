"""From a feature vector back to the sample: what recipes that paint have in common."""

from __future__ import annotations

from math import log2
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgessl.blocks.views import plain_views
from edgessl.encoders import EncoderModule
from edgessl.signals import SERIES, InputSpec

#: What is usual where the whole sample is painted; the numbers are ours.
PLAIN_VIEWS = plain_views((0.5, 1.0), span=(0.7, 1.0))


class Decoder(nn.Module):
    """A linear layer to a coarse map, then upsampling by 2 and a convolution until the sample's size is reached.

    The coarse map has at least 4 places along the shorter side (a series: along time), and the channels halve with
    every doubling, so that the decoder costs about as much as a small encoder. Nearest neighbours are copied and then
    convolved, which leaves no checkerboard as a transposed convolution does (Odena et al. 2016).
    """

    def __init__(self, dim: int, sample: InputSpec, width: int) -> None:
        """Build for one kind and size of samples.

        Args:
            dim: Width of the vectors.
            sample: What is painted: images of any size, or series of any length.
            width: Channels of the coarse map; 16 are the fewest after the halvings.
        """
        super().__init__()
        self.series = sample.kind in SERIES
        height, length = (1, sample.shape[1]) if self.series else sample.shape[:2]
        self.size, channels = (height, length), sample.shape[0] if self.series else 3
        doublings = max(0, int(log2(length if self.series else min(height, length))) - 2)
        tall = 1 if self.series else 2  # a series is a map of height 1, and stays one
        self.coarse = (width, -(-height // tall**doublings), -(-length // 2**doublings))
        self.spread = nn.Linear(dim, width * self.coarse[1] * self.coarse[2])
        layers: list[nn.Module] = [nn.BatchNorm2d(width), nn.ReLU()]
        kernel, reach = ((1, 5), (0, 2)) if self.series else ((3, 3), (1, 1))
        for _ in range(doublings):
            narrow = max(16, width // 2)
            layers += [nn.Upsample(scale_factor=(tall, 2)), nn.Conv2d(width, narrow, kernel, padding=reach, bias=False)]
            layers += [nn.BatchNorm2d(narrow), nn.ReLU()]
            width = narrow
        self.paint = nn.Sequential(*layers, nn.Conv2d(width, channels, kernel, padding=reach))

    def forward(self, features: Tensor) -> Tensor:
        """Vectors `(batch, dim)` -> images `(batch, 3, height, width)` or series `(batch, channels, time)`."""
        painted = cast(Tensor, self.paint(self.spread(features).view(-1, *self.coarse)))
        if painted.shape[2:] != self.size:
            painted = functional.interpolate(painted, self.size, mode="bilinear", align_corners=False)
        return painted.squeeze(2) if self.series else painted


def painting_target(encoder: EncoderModule, samples: Tensor) -> Tensor:
    """What a decoder is to paint: the samples on a scale on which a squared error of 1 means that nothing is known.

    Images are normalised as the encoder sees them. Of series the batch's mean is taken off each channel, and each is
    divided by its spread in the batch, so that units do not matter; a channel that stands still is 0.

    Args:
        encoder: Knows the kind of samples and, of images, the statistics.
        samples: `(batch, 3, height, width)` in 0..1, or `(batch, channels, time)`.

    Returns:
        float32, as `samples`.
    """
    target = encoder.normalize(samples).float()
    if encoder.input.kind not in SERIES:
        return target
    spread, middle = torch.std_mean(target, (0, 2), keepdim=True, correction=0)
    still = spread <= 1e-5 * middle.abs()  # no more than rounding
    return torch.where(still, 0, (target - middle) / torch.where(still, 1, spread))
