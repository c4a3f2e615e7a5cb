"""A camera's frame -> the encoder's size, inside the graph, as Pillow does it.

A robot's frame is 480x640 or larger; the encoder was trained on frames that Pillow had shrunk with an antialiasing
filter. A resize outside the graph is one more thing that can differ between training and device, so it is part of the
encoder. ONNX has `Resize(antialias=1)`, but TensorRT refuses it and OpenVINO 2026.4 leaves the antialiasing out without
a word (levels off by up to 143). So both passes are matrix products with constant weights. Each output row depends on a
handful of input rows, and a whole matrix would be zero almost everywhere: rows are therefore made in blocks, each from
the band of input rows that it needs. Figures: benchmarks/resize_parity.py.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgessl.encoders.base import EncoderModule
from edgessl.errors import InputError, UnknownNameError
from edgessl.signals import image_spec

Weights = NDArray[np.float64]  # (out, in)

FITS = ("stretch", "crop")
_BLOCK = 16  # output rows per band: fastest of 8, 14, 16, 28, 32 in onnxruntime and OpenVINO, by a little


def with_camera(
    encoder: EncoderModule,
    height: int,
    width: int,
    *,
    fit: str = "stretch",
    interpolation: str = "bilinear",
    crop_pct: float = 1.0,
) -> EncoderModule:
    """A copy of `encoder` that takes frames of the camera's size and makes its own size of them.

    What trains on prepared images (`features`) is unchanged.

    Args:
        encoder: For images.
        height, width: Of the camera's frames.
        fit: `stretch` brings the whole frame to the encoder's size, as edgessl's own sources do; `crop` keeps the aspect
            and cuts the centre out, as timm and torchvision do when they evaluate.
        interpolation: A key of `FILTERS`.
        crop_pct: Share of the shrunk frame's short side that a crop keeps; timm's word for it.

    Raises:
        InputError: The encoder takes no images, or has a camera already, or a size cannot be.
        UnknownNameError: No such fit or filter.
    """
    if encoder.input.kind != "image":
        raise InputError(f"only images can be resized; this encoder takes {encoder.input.kind}")
    if encoder.resize is not None:
        raise InputError("this encoder has a camera already; give the encoder itself")
    if min(height, width) < 1:
        raise InputError(
            f"a camera's frame has at least one pixel a side, not {height}x{width}; type --input-size 480x640"
        )
    size = encoder.input.shape[0], encoder.input.shape[1]
    resize = Resize((height, width), size, fit=fit, interpolation=interpolation, crop_pct=crop_pct)
    resized = copy.deepcopy(encoder)
    resized.input = replace(encoder.input, shape=image_spec(height, width).shape)
    resized.resize = None if resize.same else resize
    return resized


class Resize(nn.Module):
    """uint8 frames `(batch, *camera, 3)` -> levels 0..255 `(batch, 3, *size)`, float, not rounded.

    Args:
        camera: Height and width of what comes.
        size: Height and width of what goes.
        fit, interpolation, crop_pct: As in `with_camera`.

    Attributes:
        facts: The same as plain values, for a manifest.
        same: Whether what goes is what comes.
    """

    def __init__(
        self,
        camera: tuple[int, int],
        size: tuple[int, int],
        *,
        fit: str = "stretch",
        interpolation: str = "bilinear",
        crop_pct: float = 1.0,
    ) -> None:
        super().__init__()
        if fit not in FITS:
            raise UnknownNameError("fit", fit, FITS)
        if interpolation not in FILTERS:
            raise UnknownNameError("interpolation", interpolation, FILTERS)
        if not 0 < crop_pct <= 1:
            raise InputError(f"crop_pct is a share, above 0 and at most 1, not {crop_pct}")
        self.facts = {"camera": list(camera), "size": list(size), "fit": fit, "method": interpolation} | (
            {"crop_pct": crop_pct} if fit == "crop" else {}
        )
        shrunk = size if fit == "stretch" else _covering(camera, size, crop_pct)
        height, width = (
            _cut(resampling(before, between, interpolation), after)
            for before, between, after in zip(camera, shrunk, size, strict=True)
        )
        self._matrices = {"rows": height.astype(np.float32), "columns": width.astype(np.float32)}
        self.rows, self.columns = _Pass(height), _Pass(width)
        self.same = self.rows.same and self.columns.same
        self.clip = interpolation == "bicubic"  # its filter has negative lobes, which reach beyond black and white

    def matrices(self) -> dict[str, NDArray[np.float32]]:
        """What the two passes multiply by, whole: `rows` `(out, height)` and `columns` `(out, width)`."""
        return dict(self._matrices)

    def forward(self, frames: Tensor) -> Tensor:
        """`(batch, height, width, 3)` -> `(batch, 3, *size)`."""
        levels: Tensor = self.rows(frames.float())  # (batch, out_height, width, 3)
        levels = self.columns(levels.permute(0, 2, 3, 1))  # (batch, out_width, 3, out_height)
        levels = levels.permute(0, 2, 3, 1)
        return levels.clamp(0, 255) if self.clip else levels


def resampling(before: int, after: int, interpolation: str) -> Weights:
    """Weight `(after, before)` of each pixel of a line in each pixel of the resampled line.

    Pillow's rule: the filter is as wide as the output's pixels when they are the larger ones, is sampled at the middle
    of each input pixel, and is normalised where the border cuts it off.
    """
    support, filter_of = FILTERS[interpolation]
    ratio = before / after
    stretch = max(ratio, 1.0)
    centre = (np.arange(after)[:, None] + 0.5) * ratio
    first = np.clip(np.floor(centre - support * stretch + 0.5), 0, None)
    last = np.clip(np.floor(centre + support * stretch + 0.5), None, before)
    at = np.arange(before)
    weights = np.where((at >= first) & (at < last), filter_of((at + 0.5 - centre) / stretch), 0.0)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float64)


def _box(x: Weights) -> Weights:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _triangle(x: Weights) -> Weights:
    return np.asarray(np.clip(1 - np.abs(x), 0, None))


def _cubic(x: Weights) -> Weights:
    """Keys' kernel with a = -0.5, which Pillow takes, and torch where it antialiases."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


#: name -> (half of its width in pixels, the filter)
FILTERS: dict[str, tuple[float, Callable[[Weights], Weights]]] = {
    "box": (0.5, _box),
    "bilinear": (1.0, _triangle),
    "bicubic": (2.0, _cubic),
}


class _Pass(nn.Module):
    """One axis, the first after the batch: `(batch, in, a, b)` -> `(batch, out, a, b)`. Nothing where nothing changes."""

    weights: Tensor
    places: Tensor

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.after, before = weights.shape
        self.same = weights.shape[0] == before and bool((weights == np.eye(before)).all())
        places, blocks = _bands(weights)
        # Persistent, though nothing learns them: a checkpoint, which knows no camera, must not load without them.
        self.register_buffer("weights", torch.from_numpy(blocks).float())
        self.register_buffer("places", torch.from_numpy(places).flatten())

    def forward(self, x: Tensor) -> Tensor:
        if self.same:
            return x
        a, b = x.shape[2:]
        bands = (
            x.flatten(2).index_select(1, self.places).reshape(-1, *self.weights.shape[::2], a * b)
        )  # (batch, bands, seen, a b)
        made = (self.weights @ bands).flatten(1, 2)[:, : self.after]
        return made.reshape(-1, self.after, a, b)


def _bands(weights: Weights) -> tuple[NDArray[np.int64], Weights]:
    """Which input rows each block of output rows sees, `(bands, seen)`, and their weights, `(bands, block, seen)`."""
    after, before = weights.shape
    blocks = [weights[start : start + _BLOCK] for start in range(0, after, _BLOCK)]
    seen = [np.flatnonzero(block.any(0)) for block in blocks]
    width = max(int(rows[-1] - rows[0]) + 1 for rows in seen)
    places = np.stack([min(int(rows[0]), before - width) + np.arange(width) for rows in seen])
    banded = np.zeros((len(blocks), min(_BLOCK, after), width))
    for band, (block, columns) in enumerate(zip(blocks, places, strict=True)):
        banded[band, : len(block)] = block[:, columns]
    return places, banded


def _covering(camera: tuple[int, int], size: tuple[int, int], crop_pct: float) -> tuple[int, int]:
    """Size of the shrunk frame of which the centre is taken."""
    height, width = (math.floor(side / crop_pct) for side in size)
    if height * camera[1] >= width * camera[0]:
        return height, height * camera[1] // camera[0]
    return width * camera[0] // camera[1], width


def _cut(weights: Weights, after: int) -> Weights:
    """The middle `after` rows."""
    start = round((len(weights) - after) / 2)
    return weights[start : start + after]
