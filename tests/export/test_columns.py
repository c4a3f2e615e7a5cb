from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from edgessl.export.columns import Windows, batch_first, batch_last, columns, summed

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(kernel=PAIRS, stride=PAIRS, dilation=PAIRS, padding=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_columns_are_those_of_unfold_and_the_way_back_is_fold(
    kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], padding: tuple[int, int]
) -> None:
    windows = Windows(size=(8, 7), kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    x = torch.randn(3, 5, 8, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unfolded = functional.unfold(x, kernel, dilation, padding, stride)  # (batch, in * kh * kw, positions)
    seen = columns(x, windows)
    assert torch.equal(seen, unfolded.permute(1, 2, 0).flatten(1))
    assert unfolded.shape[2] == windows.positions[0] * windows.positions[1]
    folded = functional.fold(unfolded, (8, 7), kernel, dilation, padding, stride)
    torch.testing.assert_close(summed(seen, windows, 3), folded)


def test_the_batch_comes_last_and_first_again() -> None:
    x = torch.randn(3, 5, 2, 4)
    rows = batch_last(x)
    assert torch.equal(rows, x.flatten(1).reshape(3, 5, 8).permute(1, 2, 0).flatten(1))
    assert torch.equal(batch_first(rows, (2, 4), 3), x)
