"""The rewrites one after the other, as an export makes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgessl.export.rewrites.heads import separated
from edgessl.export.rewrites.hoist import hoisted
from edgessl.export.rewrites.narrow import narrowed
from edgessl.export.rewrites.pad import padded
from tests.export.rewrites.conftest import FRAMES, kinds, run


@pytest.mark.slow
class TestAllOfThem:
    @pytest.mark.parametrize("rewrite", [narrowed, padded, hoisted])
    def test_a_rounded_encoder_gives_what_it_gave(self, rounded, rewrite) -> None:
        got = rewrite(rounded)
        wanted, vectors = (run(each, {"frames": FRAMES})["vectors"] for each in (rounded, got))
        np.testing.assert_allclose(vectors, wanted, atol=1e-5)

    @pytest.mark.parametrize("rewrite", [narrowed, padded, separated])
    def test_an_encoder_gives_the_vectors_of_pytorch(self, plain, encoder, rewrite) -> None:
        before = plain.SerializeToString(deterministic=True)
        rewritten = rewrite(plain)
        with torch.no_grad():
            wanted = encoder(torch.from_numpy(FRAMES)).numpy()
        np.testing.assert_allclose(run(rewritten, {"frames": FRAMES})["vectors"], wanted, atol=2e-5)
        assert plain.SerializeToString(deterministic=True) == before, "the graph that was given has changed"

    def test_a_trunk_gives_its_latents_and_statistics_in_their_shapes(self, graphs, split) -> None:
        rng = np.random.default_rng(2)
        ports = {name: rng.uniform(0.5, 1.5, 12).astype(np.float32) for name in split.port_names()}
        wanted = run(graphs.trunk, {"frames": FRAMES} | ports)
        got = run(padded(graphs.trunk), {"frames": FRAMES} | ports)
        assert list(got) == list(wanted)
        for name, value in wanted.items():
            np.testing.assert_allclose(got[name], value, atol=1e-4, rtol=1e-4, err_msg=name)

    @pytest.mark.parametrize("rewrite", [narrowed, padded, separated, hoisted])
    def test_what_is_rewritten_already_stays(self, plain, rounded, rewrite) -> None:
        once = rewrite(plain if rewrite is separated else rounded)
        assert kinds(rewrite(once)) == kinds(once)
