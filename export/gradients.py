"""Gradients in operators that every ONNX engine has, where ATen has no decomposition of its own.

Engines compute a convolution whose weights are an input sample by sample, and with few positions each of those products reads all
weights for a handful of numbers: such a convolution becomes one product over the whole batch (`columns.py`), and so do its
gradients. With more positions the three results of `aten.convolution_backward` are a transposed convolution (input), a
convolution in which batch and channels change places (weight), and a sum (bias). A bilinear resize is a product with a matrix per
axis, and its gradient one with their transposes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch.nn import functional

from edgessl.errors import InputError
from edgessl.export.columns import Windows, batch_first, batch_last, columns, summed

_convolution: Callable[..., Tensor] = torch.ops.aten.convolution.default
FEW = 64  #: positions up to which a convolution becomes one product; with more its columns take much memory. Ours
FEWER = 16  #: the same of its gradient with respect to the input; with more a transposed convolution is as quick. Ours


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Core ATen decompositions, and ours."""
    table: dict[Any, Callable[..., Any]] = dict(core_aten_decompositions())
    table[torch.ops.aten.convolution.default] = convolution
    table[torch.ops.aten.convolution_backward.default] = convolution_backward
    table[torch.ops.aten.pow.Tensor_Scalar] = power
    table[torch.ops.aten.upsample_bilinear2d_backward.default] = bilinear_backward
    return table


def bilinear_backward(
    gradient: Tensor,
    output_size: Sequence[int],
    input_size: Sequence[int],
    align_corners: bool,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Tensor:
    """Gradient of a bilinear resize with respect to its input; the signature is ATen's.

    Args:
        gradient: `(batch, channels, h', w')`.
        output_size: `h', w'`.
        input_size: `batch, channels, h, w`.
        align_corners, scales_h, scales_w: Of the resize.
    """
    rows, columns = (
        torch.tensor(_bilinear(inner, outer, align_corners, scale), dtype=gradient.dtype)
        for inner, outer, scale in zip(input_size[2:], output_size, (scales_h, scales_w), strict=True)
    )
    return rows.T @ gradient @ columns


def _bilinear(inner: int, outer: int, align_corners: bool, scale: float | None) -> list[list[float]]:
    """The matrix `(outer, inner)` of a resize along one axis, as PyTorch samples it."""
    matrix = [[0.0] * inner for _ in range(outer)]
    for place, row in enumerate(matrix):
        if align_corners:
            at = place * (inner - 1) / max(outer - 1, 1)
        else:
            at = max((place + 0.5) * (1 / scale if scale else inner / outer) - 0.5, 0.0)
        low = min(int(at), inner - 1)
        row[low] += 1 - (at - low)
        row[min(low + 1, inner - 1)] += at - low
    return matrix


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """A two-dimensional convolution with few positions as one product; others stay what they are. The signature is ATen's."""
    if transposed or x.ndim != 4 or groups != 1:
        return NotImplemented  # type: ignore[no-any-return]
    windows = _windows(x, weight, stride, padding, dilation)
    if prod(windows.positions) > FEW:
        return NotImplemented  # type: ignore[no-any-return]
    product = weight.flatten(1) @ columns(x, windows)  # (out, positions * batch)
    if bias is not None:
        product = product + bias.unsqueeze(1)
    return batch_first(product, windows.positions, len(x))


def _windows(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Windows:
    return Windows(
        size=_pair(x.shape[2:]),
        kernel=_pair(weight.shape[2:]),
        stride=_pair(stride),
        padding=_pair(padding),
        dilation=_pair(dilation),
    )


def power(x: Tensor, exponent: float) -> Tensor:
    """Small whole powers as products: engines compute others number by number. The signature is ATen's."""
    if exponent == 1:
        return x
    return x * x if exponent == 2 else NotImplemented


def _taps(
    x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], height: int, width: int
) -> list[Tensor]:
    """What each tap of the kernel sees of `x` `(a, b, h, w)`: `(a, b, height, width)` each, row by row."""
    padded = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    taps = []
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            top, left = i * dilation[0], j * dilation[1]
            bottom, right = top + (height - 1) * stride[0] + 1, left + (width - 1) * stride[1] + 1
            taps.append(padded[:, :, top : bottom : stride[0], left : right : stride[1]])
    return taps


def convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of a two-dimensional convolution with respect to input, weight and bias; the signature is ATen's.

    Args:
        gradient: `(batch, out, h', w')`.
        x: `(batch, in, h, w)`.
        weight: `(out, in / groups, kh, kw)`.
        bias_sizes, output_padding: Taken for the signature.
        stride, padding, dilation, groups: Of the forward convolution.
        transposed: Must be false.
        output_mask: Which of the three are wanted.

    Raises:
        InputError: A transposed convolution, or one that is not two-dimensional.
    """
    if transposed or x.ndim != 4:
        raise InputError(
            "the tail holds a transposed or non-2d convolution, which has no exported gradient; cut the encoder behind it"
        )
    stride, padding, dilation = (list(_pair(values)) for values in (stride, padding, dilation))
    return (
        _input_gradient(gradient, x, weight, stride, padding, dilation, groups) if output_mask[0] else None,
        _weight_gradient(gradient, x, weight, stride, padding, dilation, groups) if output_mask[1] else None,
        gradient.sum((0, 2, 3)) if output_mask[2] else None,
    )


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return (values[0], values[-1])


def _input_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    windows = _windows(x, weight, stride, padding, dilation)
    if groups == 1 and prod(windows.positions) <= FEWER:
        return summed(weight.flatten(1).T @ batch_last(gradient), windows, len(x))
    # A stride may leave rows and columns at the end that no output saw; they get their zeros back.
    unseen = [
        x.shape[2 + i]
        - ((gradient.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (weight.shape[2 + i] - 1) + 1)
        for i in (0, 1)
    ]
    return _convolution(gradient, weight, None, stride, padding, dilation, True, unseen, groups)


def _weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    kernel = weight.shape[2:]
    positions = gradient.shape[2:]
    if groups == 1 and positions.numel() <= FEW:
        seen = columns(x, _windows(x, weight, stride, padding, dilation))
        return (batch_last(gradient) @ seen.T).reshape(weight.shape)
    if groups == 1:
        # Batch and channels change places; the forward stride becomes a dilation and the reverse.
        swapped = _convolution(
            x.transpose(0, 1), gradient.transpose(0, 1), None, dilation, padding, stride, False, [0, 0], 1
        )
        return swapped[:, :, : kernel[0], : kernel[1]].transpose(0, 1)
    # Grouped and depthwise: for each tap of the kernel, the product of the output's gradient with what the tap saw.
    batch, out, height, width = gradient.shape
    grouped = gradient.reshape(batch, groups, out // groups, height * width)
    taps = []
    for tap in _taps(x, weight, stride, padding, dilation, height, width):
        seen = tap.reshape(batch, groups, -1, height * width)  # (batch, groups, in / groups, positions)
        taps.append(torch.matmul(grouped, seen.transpose(2, 3)).sum(0))  # (groups, out / groups, in / groups)
    stacked = torch.stack(taps, -1)
    return stacked.reshape(out, weight.shape[1], kernel[0], kernel[1])
