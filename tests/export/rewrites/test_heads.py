"""Queries, keys and values by a product each."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.export.rewrites.heads import separated
from edgessl.export.surgery import weights_of
from tests.export.hand_graphs import inner
from tests.export.rewrites.conftest import FRAMES, kinds


class TestSeparated:
    @pytest.mark.slow
    def test_each_block_has_three_products_for_one_and_no_scale_beside_them(self, plain) -> None:
        got = separated(plain)
        names = [node.name for node in got.graph.node if "attn.qkv" in node.name and node.op_type == "MatMul"]
        assert len(names) == 9
        assert kinds(plain)["Mul"] - kinds(got)["Mul"] == 3
        assert kinds(got)["Slice"] == kinds(plain)["Slice"] - 9

    @pytest.mark.slow
    def test_queries_keys_and_values_keep_their_names(self, plain) -> None:
        """Ranges that calibration saw are found by name."""
        products = [node for node in plain.graph.node if node.op_type == "MatMul"]
        activations = {name for node in products for name in node.input} - set(weights_of(plain))
        got = separated(plain)
        made = {name for node in got.graph.node for name in node.output}
        assert activations <= made
        before = inner(plain, sorted(activations), frames=FRAMES)
        after = inner(got, sorted(activations), frames=FRAMES)
        for name in activations:
            np.testing.assert_allclose(after[name], before[name], atol=1e-5, err_msg=name)
