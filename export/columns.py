"""What a convolution's taps see of a small map, as the columns of one matrix (im2col), and the way back.

The batch comes last and is what is contiguous: the tap of a position is a row of it to be copied, and sums over positions, and
numbers repeated over them, go by whole rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Where a kernel looks, of a two-dimensional convolution.

    Attributes:
        size: `h, w` of the map.
        kernel: `kh, kw`.
        stride, padding, dilation: Of the convolution, down and across.
    """

    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def positions(self) -> tuple[int, int]:
        """`h', w'` of the result."""
        height, width = (
            (self.size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1
            for i in (0, 1)
        )
        return height, width

    def places(self) -> list[int]:
        """Numbers of the places that the taps see, `(kh, kw, h', w')` row by row; of the padding, the one behind the last."""
        (height, width), found = self.size, []
        for tap in product(*map(range, self.kernel)):
            for at in product(*map(range, self.positions)):
                row, column = (at[i] * self.stride[i] + tap[i] * self.dilation[i] - self.padding[i] for i in (0, 1))
                inside = 0 <= row < height and 0 <= column < width
                found.append(row * width + column if inside else height * width)
        return found


def batch_last(x: Tensor) -> Tensor:
    """`(batch, channels, h, w)` -> `(channels, h * w * batch)`."""
    return x.permute(1, 2, 3, 0).flatten(1)


def batch_first(rows: Tensor, size: Sequence[int], batch: int) -> Tensor:
    """The way back."""
    return rows.reshape(len(rows), *size, batch).permute(3, 0, 1, 2)


def columns(x: Tensor, windows: Windows) -> Tensor:
    """What each tap of each channel of `x` `(batch, in, h, w)` sees: `(in * kh * kw, h' * w' * batch)`."""
    places = windows.places()
    flat = batch_last(x).reshape(x.shape[1], -1, len(x))  # (in, h * w, batch)
    if max(places) == flat.shape[1]:
        flat = functional.pad(flat, (0, 0, 0, 1))
    height, width = windows.positions
    return flat.index_select(1, torch.tensor(places)).reshape(-1, height * width * len(x))


def summed(gradient: Tensor, windows: Windows, batch: int) -> Tensor:
    """The gradient of `columns` with respect to `x`: each place has the sum of what saw it, by a product with zeros and ones."""
    places = torch.tensor(windows.places())
    height, width = windows.size
    saw = (places == torch.arange(height * width).unsqueeze(1)).to(gradient.dtype)  # (h * w, kh * kw * h' * w')
    found = saw @ gradient.reshape(-1, len(places), batch)  # (in, h * w, batch)
    return batch_first(found.flatten(1), windows.size, batch)
