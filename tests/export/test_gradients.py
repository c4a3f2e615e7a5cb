from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgessl.errors import InputError
from edgessl.export.gradients import FEW, bilinear_backward, convolution, convolution_backward


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2, 6]),
    size=st.tuples(st.integers(7, 12), st.integers(7, 12)),
)
def test_it_is_what_autograd_gives(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    size: tuple[int, int],
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 6, *size, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(12, 6 // groups, *kernel, generator=generator, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(12, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.nn.functional.conv2d(x, weight, bias, stride, padding, dilation, groups)
    gradient = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad(y, [x, weight, bias], gradient)
    got = convolution_backward(
        gradient, x, weight, [12], stride, padding, dilation, False, [0, 0], groups, [True, True, True]
    )
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    one = convolution(x, weight, bias, stride, padding, dilation, False, [0, 0], groups)
    if one is NotImplemented:
        assert groups > 1 or y[0, 0].numel() > FEW
    else:
        torch.testing.assert_close(one, y)


def test_many_positions_stay_a_convolution_and_have_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 9, 8, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 3, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert convolution(x, weight, None, [1], [1], [1], False, [0, 0], 1) is NotImplemented  # 72 positions
    y = torch.nn.functional.conv2d(x, weight, padding=1)
    gradient = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    got = convolution_backward(gradient, x, weight, None, [1], [1], [1], False, [0, 0], 1, [False, True, False])
    assert got[0] is got[2] is None
    torch.testing.assert_close(got[1], torch.autograd.grad(y, weight, gradient)[0])


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(3, 3), (9, 5), (4, 11), (1, 1)])
def test_a_bilinear_resize_has_the_gradient_that_autograd_gives(size: tuple[int, int], align_corners: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=align_corners)
    gradient = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(y, x, gradient)
    torch.testing.assert_close(bilinear_backward(gradient, size, x.shape, align_corners), expected)


def test_a_transposed_convolution_is_refused() -> None:
    x = torch.zeros(1, 2, 4, 4)
    with pytest.raises(InputError, match="transposed"):
        convolution_backward(x, x, x, None, [1], [0], [1], True, [0], 1, [True, True, True])
