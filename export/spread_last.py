"""A traced graph whose values are spread over more elements only where something needs them so: everything before is cheaper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

_ATEN = torch.ops.aten
_EXPAND: Any = _ATEN.expand.default
_broadcast: Callable[..., torch.Size] = torch.broadcast_shapes
_SPREADS = {_EXPAND, _ATEN.unsqueeze.default}
_POINTWISE = {
    *(_ATEN.add.Tensor, _ATEN.sub.Tensor, _ATEN.mul.Tensor, _ATEN.div.Tensor, _ATEN.where.self),
    *(_ATEN.mul.Scalar, _ATEN.div.Scalar, _ATEN.neg.default),
}


def spread_last(graph: fx.Graph) -> None:
    """Move each `expand` and `unsqueeze` behind the pointwise operators that read it, and leave out what these do themselves.

    A gradient of a mean is a number for each channel, repeated for each position and divided by their count: the count divides
    the number, and the product with a map repeats it. In place.
    """
    for node in graph.nodes:  # what is inserted stands behind it, and has its turn
        if node.target in _SPREADS:
            for user in [user for user in node.users if user.target in _POINTWISE]:
                _move(graph, node, user)
    graph.eliminate_dead_code()


def _move(graph: fx.Graph, spread: fx.Node, user: fx.Node) -> None:
    """Let `user` read what went into `spread`, and spread its result instead if nothing else gives it its shape."""
    before: Any = spread.args[0]
    others = [other.meta["val"].shape for other in user.all_input_nodes if other is not spread]
    if spread.target is _EXPAND and _broadcast(before.meta["val"].shape, *others) == _shape(user):
        user.replace_input_with(spread, before)
    elif not any(others):  # numbers only
        with graph.inserting_before(user):
            small = graph.node_copy(user, lambda node: before if node is spread else node)
            small.meta["val"] = user.meta["val"].new_empty(_shape(before))
            moved = graph.call_function(spread.target, (small, *spread.args[1:]))  # type: ignore[arg-type]
            moved.meta = dict(user.meta)
        user.replace_all_uses_with(moved)
        graph.erase_node(user)
        if before.target in _SPREADS:
            _move(graph, before, small)


def _shape(node: fx.Node) -> torch.Size:
    shape: torch.Size = node.meta["val"].shape
    return shape
