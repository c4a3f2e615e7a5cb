from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from edgessl.errors import UnknownNameError
from edgessl.export.graph import write_graph
from edgessl.export.objectives import OBJECTIVES, Source, align, ntxent, objective, vicreg
from edgessl.runtimes.engines import open_engine
from edgessl.vision import vision_module


@pytest.fixture
def views() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    a, b = (torch.randn(9, 5, generator=generator) for _ in range(2))
    return torch.nn.functional.normalize(a, dim=1), torch.nn.functional.normalize(a + 0.3 * b, dim=1)


@pytest.fixture
def source() -> Source:
    return Source(mean=torch.tensor([0.1, -0.2, 0.0, 0.3, 0.05]), std=torch.tensor([0.4, 0.3, 0.5, 0.2, 0.6]))


def test_align_is_its_formula(views: tuple[torch.Tensor, torch.Tensor], source: Source) -> None:
    a, b = (view.numpy().astype(np.float64) for view in views)
    both, mean, std = np.concatenate([a, b]), source.mean.numpy(), source.std.numpy()
    terms = align(*views, source)
    assert float(terms["invariance"]) == pytest.approx(1 - (a * b).sum(1).mean(), rel=1e-5)
    assert float(terms["mean"]) == pytest.approx((((both.mean(0) - mean) / std) ** 2).mean(), rel=1e-5)
    assert float(terms["spread"]) == pytest.approx((((both.std(0) - std) / std) ** 2).mean(), rel=1e-5)


def test_align_is_zero_at_the_source(views: tuple[torch.Tensor, torch.Tensor]) -> None:
    a = views[0]
    there = Source(mean=a.mean(0), std=a.var(0, unbiased=False).add(1e-8).sqrt())
    assert sum(float(term) for term in align(a, a, there).values()) == pytest.approx(0, abs=1e-6)


def test_vicreg_is_lightlys_on_whitened_vectors(views: tuple[torch.Tensor, torch.Tensor], source: Source) -> None:
    a, b = ((view - source.mean) / source.std for view in views)
    theirs = vision_module("lightly.loss").VICRegLoss()(a, b)
    assert float(sum(vicreg(*views, source).values())) * 25 == pytest.approx(float(theirs), rel=1e-5)


def test_ntxent_is_lightlys(views: tuple[torch.Tensor, torch.Tensor], source: Source) -> None:
    theirs = vision_module("lightly.loss").NTXentLoss(temperature=0.2)(*views)
    assert float(ntxent(*views, source)["contrast"]) == pytest.approx(float(theirs), rel=1e-5)


def test_an_unknown_objective_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'vicreg'"):
        objective("vicregg")


def test_a_dimension_that_never_moves_has_a_finite_gradient_in_the_graph(tmp_path: Path) -> None:
    """The exporter's optimizer drops `+ 1e-8`; what stands between a still dimension and 0 / 0 must survive it."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(4, 3, generator=generator).requires_grad_() for _ in range(2))
    still = torch.tensor([1.0, 0.0, 1.0])
    source = Source(mean=torch.zeros(3), std=torch.ones(3))

    class Gradient(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.autograd.grad(OBJECTIVES["align"](a * still, b * still, source)["spread"], [a])[0]

    traced = make_fx(Gradient())(a, b)
    write_graph(traced, (a.detach(), b.detach()), tmp_path / "g.onnx", inputs=["a", "b"], outputs=["gradient"])
    engine = open_engine("onnxruntime", tmp_path / "g.onnx")
    got = engine.run({"a": a.detach().numpy(), "b": b.detach().numpy()})["gradient"]
    np.testing.assert_allclose(got, Gradient()(a, b).numpy(), atol=1e-6)
