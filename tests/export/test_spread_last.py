from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from edgessl.export.gradients import decompositions
from edgessl.export.spread_last import spread_last


def traced(function: Callable[..., Any], *arguments: Tensor) -> tuple[GraphModule, GraphModule]:
    """The graph as it is traced, and with the pass over it."""
    before, after = (make_fx(function, decomposition_table=decompositions())(*arguments) for _ in range(2))
    spread_last(after.graph)
    after.recompile()
    return before, after


def pooled_gradient(x: Tensor) -> Tensor:
    """Of a mean over the positions of what is above zero."""
    leaf = x.detach().requires_grad_()
    pooled = torch.relu(leaf).mean((2, 3))
    return torch.autograd.grad((pooled * pooled).sum(), leaf)[0]


def names(module: GraphModule) -> Counter[str]:
    return Counter(str(node.target) for node in module.graph.nodes)


def test_a_pooled_gradient_is_repeated_by_the_product_that_needs_it() -> None:
    x = torch.randn(3, 5, 2, 4, generator=torch.Generator().manual_seed(0))
    before, after = traced(pooled_gradient, x)
    assert names(before)["aten.expand.default"] > names(after)["aten.expand.default"] == 0
    divided = [node for node in after.graph.nodes if "aten.div" in str(node.target)]
    assert [tuple(node.meta["val"].shape) for node in divided] == [(3, 5)]
    torch.testing.assert_close(after(x), pooled_gradient(x), rtol=0, atol=0)


def spread_and_given(x: Tensor, y: Tensor) -> Tensor:
    return x.expand(4, 3, 5) / 7


def spread_on_both_sides(x: Tensor, y: Tensor) -> Tensor:
    wide = x.expand(4, 3, 5)
    return (wide * wide).sum() + wide.sum()


def spread_by_another(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x.expand(4, 3, 5) > 0, y - x.expand(4, 3, 5), 2 * x.expand(4, 3, 5))


def spread_both_ways(x: Tensor, y: Tensor) -> Tensor:
    return x[:, :, :1].expand(1, 3, 5) - y[:, :1].expand(4, 3, 5)


@pytest.mark.parametrize("function", [spread_and_given, spread_on_both_sides, spread_by_another, spread_both_ways])
def test_results_are_the_same(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(1, 3, 5, generator=generator), torch.randn(4, 3, 5, generator=generator)
    _, after = traced(function, x, y)
    expected = function(x, y)
    torch.testing.assert_close(after(x, y), expected, rtol=0, atol=0)
    assert after(x, y).shape == expected.shape
