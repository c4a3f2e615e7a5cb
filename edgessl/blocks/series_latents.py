"""What a series encoder says step by step, before its pool makes one vector of a window."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgessl.encoders import EncoderModule
from edgessl.errors import InputError


def step_features(encoder: EncoderModule, series: Tensor) -> Tensor:
    """Features of each latent step.

    Each step goes through the encoder's own pool alone, so the pool learns too; where the pool takes a mean over the
    steps, as those of ours do, the mean of these features is what `encoder.features` gives.

    Args:
        encoder: Of series.
        series: `(batch, channels, time)`.

    Returns:
        `(batch, steps, dim)`, where `steps` is `time` divided by the encoder's strides or patch.
    """
    latent = encoder.normalize(series)
    for stage in encoder.stages:
        latent = stage(latent)
    if encoder.channel_axis == 1:
        latent = latent.flatten(2).transpose(1, 2)  # (batch, steps, channels)
    batch, steps, channels = latent.shape
    alone = (batch * steps, channels, 1, 1) if encoder.channel_axis == 1 else (batch * steps, 1, channels)
    return torch.as_tensor(encoder.pool(latent.reshape(alone))).view(batch, steps, -1)


def step_count(encoder: EncoderModule) -> int:
    """Latent steps of one window; asks the encoder, whose state stays as it is."""
    training = encoder.training
    encoder.eval()
    with torch.no_grad():
        steps = step_features(encoder, torch.zeros(1, *encoder.input.shape, device=encoder.mean.device)).shape[1]
    encoder.train(training)
    return steps


def steps_per_window(encoder: EncoderModule, recipe: str) -> int:
    """`step_count`, for a recipe that tells steps of a window apart.

    Raises:
        InputError: There is only one.
    """
    steps = step_count(encoder)
    if steps < 2:
        told = f"{getattr(encoder, 'name', 'this encoder')!r}"
        raise InputError(
            f"recipe {recipe!r} tells latent steps apart, and encoder {told} gives {steps} per window of "
            f"{encoder.input.shape[1]}. Type --encoder tcn_small, which halves the length once, or cut longer windows"
        )
    return steps


def hidden(series: Tensor, where: Tensor) -> Tensor:
    """Series with some values taken away: each stands at its channel's mean over the batch.

    Not at zero, so that a channel with a large constant (gravity) makes no jump; and not at the window's own mean, which
    would tell what is hidden.

    Args:
        series: `(batch, channels, time)`.
        where: bool, of a shape that broadcasts to it: True hides.
    """
    return torch.where(where, series.mean((0, 2), keepdim=True), series)


def to_time(of_steps: Tensor, time: int) -> Tensor:
    """What holds per latent step `(..., steps)`, stretched over `time` steps of the series that they stand for."""
    steps = of_steps.shape[-1]
    at = torch.arange(time, device=of_steps.device) * steps // time
    return of_steps[..., at]


def places_in_time(places: Tensor, steps: int, time: int) -> Tensor:
    """Latent steps `(batch, count)`, of `steps` -> the time they stand for, bool `(batch, 1, time)`."""
    chosen = torch.zeros(len(places), 1, steps, dtype=torch.bool, device=places.device)
    return to_time(chosen.scatter_(2, places[:, None], True), time)


class StepPainter(nn.Module):
    """Step features -> the series they stand for (`to_time`), each step by one linear layer: the encoder does the rest."""

    def __init__(self, encoder: EncoderModule) -> None:
        super().__init__()
        self.channels, self.time = encoder.input.shape
        self.steps = step_count(encoder)
        self.patch = -(-self.time // self.steps)  # time steps at most that a latent step stands for
        self.paint = nn.Linear(encoder.dim, self.channels * self.patch)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, steps, dim)` -> `(batch, channels, time)`."""
        painted = self.paint(features).view(len(features), self.steps, self.channels, self.patch)
        step = to_time(torch.arange(self.steps, device=features.device), self.time)
        begins = -(-step * self.time // self.steps)
        inside = torch.arange(self.time, device=features.device) - begins
        return torch.as_tensor(painted.transpose(1, 2).flatten(2).index_select(2, step * self.patch + inside))


def mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Mean of what `where` (bool, broadcast to `values`) chooses; 0 where it chooses nothing."""
    chosen = where.expand_as(values)
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp_min(1)
