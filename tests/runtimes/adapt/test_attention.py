"""Which frames of a stream are looked at."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.runtimes.adapt.attention import Attention


@pytest.mark.parametrize("cuts", [(100,), (7, 50, 43), (1,) * 100])
def test_one_frame_in_so_many_is_looked_at_however_the_stream_is_cut(cuts):
    attention, found, start = Attention(16), [], 5
    for count in cuts:
        found.append(attention.chosen(start, count))
        start += count
    np.testing.assert_array_equal(np.flatnonzero(np.concatenate(found)) + 5, [16, 32, 48, 64, 80, 96])


def test_called_it_looks_at_so_many_and_then_at_few_again():
    attention = Attention(16)
    attention.call(10)
    attention.call(4)  # no fewer than were asked for
    np.testing.assert_array_equal(np.flatnonzero(attention.chosen(0, 40)), [*range(10), 16, 32])
    attention.looked(7)
    assert attention.left == 3
    attention.looked(7)
    assert attention.left == 0
    np.testing.assert_array_equal(np.flatnonzero(attention.chosen(0, 40)), [0, 16, 32])
