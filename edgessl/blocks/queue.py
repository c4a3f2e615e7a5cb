"""A memory of what was embedded in the last steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Queue(nn.Module):
    """The newest rows first, a fixed number of them (MoCo, arXiv:1911.05722, section 3.2).

    lightly's memory bank is no part of the state of a module, so a run that goes on would begin with an empty one.

    Attributes:
        rows: `(size, dim)`; at first random directions, as in MoCo's released code.
    """

    rows: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", functional.normalize(torch.randn(size, dim), dim=1))

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Take in rows `(batch, dim)`, and forget as many of the oldest."""
        # A new tensor: the old one may be waiting for the backward pass.
        self.rows = torch.cat([rows.to(self.rows), self.rows])[: len(self.rows)]
