"""Tokens or maps -> one vector per sample: class token, mean, generalised mean, or a model's own attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgessl.errors import InputError, UnknownNameError

#: What `--pool` takes; `cls+mean` is both, one behind the other.
POOLS = ("cls", "mean", "gem", "attention", "cls+mean")
GEM_POWER = 3.0  #: Radenovic et al. 2018, arXiv:1711.02512, where it starts before it is trained


class TokenPool(nn.Module):
    """Tokens `(batch, tokens, channels)` -> `(batch, dim)`.

    Attributes:
        kind: One of `POOLS`.
        prefix: Class and register tokens, which come first and are no part of a mean.
    """

    def __init__(
        self,
        kind: str,
        *,
        prefix: int = 0,
        has_class: bool = True,
        attention: nn.Module | None = None,
        norm: nn.Module | None = None,
        power: float = GEM_POWER,
    ) -> None:
        """Build the pool.

        Args:
            kind: One of `POOLS`.
            prefix: Class and register tokens at the beginning.
            has_class: The first of them is a class token.
            attention: The model's own attention pool, where it has one.
            norm: What the model applies to the pooled vector.
            power: Exponent of `gem`.

        Raises:
            UnknownNameError: No such pool.
            InputError: The model has no class token, or no attention pool, to take it from.
        """
        super().__init__()
        self.kind, self.prefix, self.power = _known(kind), prefix, power
        if kind.startswith("cls") and not (has_class and prefix):
            raise InputError(f"pool {kind!r} needs a class token, which this model has not; type --pool mean")
        if kind == "attention" and attention is None:
            raise InputError("pool 'attention' is a trained part, which this model has not; type --pool mean")
        self.attention = attention if kind == "attention" else None
        self.norm = norm if norm is not None else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """`(batch, tokens, channels)` -> `(batch, dim)`."""
        patches = tokens[:, self.prefix :]
        if self.attention is not None:
            pooled = self.attention(tokens)
        elif self.kind == "cls":
            pooled = tokens[:, 0]
        elif self.kind == "gem":
            pooled = generalized_mean(patches, (1,), self.power)
        elif self.kind == "cls+mean":
            pooled = torch.cat([tokens[:, 0], patches.mean(1)], 1)
        else:
            pooled = patches.mean(1)
        return torch.as_tensor(self.norm(pooled))  # (batch, dim)


class MapPool(nn.Module):
    """Maps `(batch, channels, height, width)` -> `(batch, channels)`.

    Attributes:
        keep: Give `(batch, channels, 1, 1)`, for a model whose next layer is a convolution.
        last: Channels come last: `(batch, height, width, channels)`.
    """

    def __init__(self, kind: str, *, keep: bool = False, last: bool = False, power: float = GEM_POWER) -> None:
        super().__init__()
        if _known(kind) not in ("mean", "gem"):
            raise InputError(f"pool {kind!r} needs tokens, and this model gives maps; choose --pool mean or gem")
        self.kind, self.keep, self.power = kind, keep, power
        self.axes = (1, 2) if last else (2, 3)

    def forward(self, maps: Tensor) -> Tensor:
        """`(batch, channels, height, width)` -> `(batch, channels)`."""
        if self.kind == "gem":
            return generalized_mean(maps, self.axes, self.power, keep=self.keep)
        return maps.mean(self.axes, keepdim=self.keep)


def generalized_mean(values: Tensor, axes: tuple[int, ...], power: float, *, keep: bool = False) -> Tensor:
    """GeM, eq. 3 of Radenovic et al. 2018: the p-th root of the mean of p-th powers, of what is positive."""
    return values.clamp_min(1e-6).pow(power).mean(axes, keepdim=keep).pow(1 / power)


def _known(kind: str) -> str:
    if kind not in POOLS:
        raise UnknownNameError("pool", kind, POOLS)
    return kind
