"""DINO's head: a few layers, then the cosine to each class."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from edgessl.vision import vision_module


class ClassHead(nn.Module):
    """Features -> cosines to learned classes; lightly's head uses a deprecated weight norm that cannot be copied.

    Attributes:
        layers: Two with batch norm and GELU, and a narrow one.
        classes: Their directions; the length of a weight says nothing.
    """

    def __init__(self, dim: int, hidden: int, narrow: int, out: int) -> None:
        super().__init__()
        layers = [(dim, hidden, nn.BatchNorm1d(hidden), nn.GELU()), (hidden, hidden, nn.BatchNorm1d(hidden), nn.GELU())]
        self.layers = vision_module("lightly.models.modules.heads").ProjectionHead(
            [*layers, (hidden, narrow, None, None)]
        )
        self.classes = nn.Linear(narrow, out, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """`(batch, dim)` -> `(batch, out)`, in -1..1."""
        z = functional.normalize(self.layers(h), dim=1)
        return functional.linear(z, functional.normalize(self.classes.weight, dim=1))
