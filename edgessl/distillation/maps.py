"""What an encoder says place by place, before its pool makes one vector."""

from __future__ import annotations

from torch import Tensor

from edgessl.encoders import EncoderModule
from edgessl.errors import InputError


def last_latent(encoder: EncoderModule, samples: Tensor) -> Tensor:
    """Prepared samples -> what the encoder's pool takes."""
    latent = encoder.normalize(samples)
    for stage in encoder.stages:
        latent = stage(latent)
    return latent


def map_of(encoder: EncoderModule, latent: Tensor) -> Tensor:
    """The last latent as a map `(batch, channels, rows, columns)`: tokens laid out, class and register tokens left out.

    Raises:
        InputError: The encoder has no grid of places.
    """
    if encoder.channel_axis == 1 and latent.ndim == 4:
        return latent
    embed = encoder.stages[0]
    grid = getattr(embed, "grid", None)
    if encoder.channel_axis != 2 or grid is None:
        raise InputError(f"encoder {encoder.name!r} has no grid of places to compare; type --set tokens=0")
    rows, columns = grid if len(grid) == 2 else (1, *grid)  # a series is a map of height 1
    prefix: int = embed.prefix  # type: ignore[assignment]
    return latent[:, prefix:].transpose(1, 2).reshape(len(latent), -1, rows, columns)
