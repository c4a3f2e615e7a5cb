"""What stands between an encoder and the functions it calls while it is run as its int8 graph will run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from edgessl.blocks.folding import folded_weights


@dataclass(kw_only=True)
class Plan:
    """What is rounded, by the order in which it is met: the encoder takes the same way each time.

    Attributes:
        asymmetric: uint8 with zero points, outputs rounded as well as inputs; else int8 without.
        residual: Sums are rounded.
        transformer: Attention or a layer norm was met.
        fused: Outputs that are rounded behind the ReLU that alone reads them.
        seen: Range -> smallest and largest value.
        aliases: Every name of a range -> the one by which it is met first.
    """

    asymmetric: bool
    residual: bool
    transformer: bool = False
    fused: set[str] = field(default_factory=set)
    seen: dict[str, tuple[float, float]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


class Intercept(TorchFunctionMode):
    """One run of an encoder. `place` is what the three kinds of run do differently."""

    def __init__(self, encoder: nn.Module, pairs: Sequence[tuple[str, str]], plan: Plan) -> None:
        super().__init__()
        modules: dict[str, Any] = dict(encoder.named_modules())
        weights = ((path, module._parameters.get("weight")) for path, module in modules.items())
        self._paths = {id(weight): path for path, weight in weights if weight is not None}
        self._norms = {product: modules[norm] for product, norm in pairs}
        self._modules, self._plan = modules, plan
        self._on_grid: dict[int, tuple[Tensor, int, str]] = {}  # rounded values, with version and range
        self._rounded: dict[int, tuple[Tensor, Tensor]] = {}  # raw value -> what its readers see
        self._unnormed: dict[int, tuple[Tensor, Any, str]] = {}  # output of a folded product, on its way to the norm
        self._waiting: dict[int, tuple[Tensor, str]] = {}  # output that is rounded behind its ReLU
        self._open: set[int] = set()  # norms that were folded and not met yet
        self._count = 0

    def place(self, name: str, x: Tensor) -> Tensor:
        """The tensor that readers of `x` see."""
        raise NotImplementedError

    def weight(self, weight: Tensor) -> Tensor:
        """The weight that a product reads."""
        return weight

    def bias(self, bias: Tensor, weight: Tensor, name: str) -> Tensor:
        """The bias that a product reads beside this weight and an input of this range."""
        return bias

    def check(self) -> None:
        """Refuse to go on where a norm was folded and then applied, too."""
        if self._open:
            raise RuntimeError(f"{len(self._open)} folded batch norms were not met in this run")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(self._seen, (args, kwargs or {}))
        handle = HANDLERS.get(func)
        result = handle(self, func, args, kwargs) if handle else self._other(func, args, kwargs)
        if func in _TRANSFORMER:
            self._plan.transformer = True
        return result

    def product(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A convolution or linear layer, with the norm behind it where there is one that folds."""
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        path = self._paths.get(id(given["weight"]))
        if path is None:
            return func(*args, **kwargs)
        norm = self._norms.get(path)
        weight, bias = given["weight"], given.get("bias")
        if norm is not None:
            weight, bias = folded_weights(self._modules[path], norm)
        rest = {name: value for name, value in kwargs.items() if name not in ("input", "weight", "bias")}
        x = self.grid(f"input.{path}", given["input"])
        bias = bias if bias is None else self.bias(bias, weight, self._name_of(x))
        out = func(x, self.weight(weight), bias, *args[3:], **rest)
        name = f"output.{path}" if func is not functional.linear else ""
        if norm is None:
            return self.output(name, out)
        self._unnormed[id(out)] = (out, norm, name)
        self._open.add(id(norm))
        return out

    def batch_norm(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Nothing, where it is folded."""
        _, norm, name = self._unnormed.get(id(args[0]), (None, None, ""))
        if norm is None or args[1] is not norm.running_mean:
            return func(*args, **kwargs)
        self._open.discard(id(norm))
        return self.output(name, args[0])

    def add(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A sum of two activations; that with a parameter or a number stays in float."""
        terms = args[:2]
        plain = all(isinstance(term, Tensor) and not isinstance(term, nn.Parameter) for term in terms) and not kwargs
        if not (plain and len(args) == 2 and self._plan.residual):
            return self._other(func, args, kwargs)
        self._count += 1
        name = f"sum.{self._count}"
        first, second = (self.grid(f"{name}.{place}", term) for place, term in enumerate(terms))
        return self.output(name, first + second)

    def relu(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Part of the operator before it, or rounded on its own."""
        x = args[0]
        _, name = self._waiting.pop(id(x), (None, ""))
        grid = self._name_of(x)
        out = func(*args, **kwargs)
        if not (name or (grid and self._plan.asymmetric and self._plan.residual)):
            return out
        self._count += 1
        return self._put(name or f"relu.{self._count}", out)

    def max_pool(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Rounded values stay on their grid."""
        name = self._name_of(args[0])
        out = func(*args, **kwargs)
        if name and isinstance(out, Tensor):
            self._on_grid[id(out)] = (out, out._version, name)
        return out

    def grid(self, name: str, x: Tensor) -> Tensor:
        """What a rounded operator reads: `x` if it is rounded already."""
        known = self._name_of(x)
        if known:
            self._plan.aliases.setdefault(name, known)
            return x
        out = self._put(name, x)
        self._rounded[id(x)] = (x, out)
        return out

    def output(self, name: str, x: Tensor) -> Tensor:
        """What a rounded operator gives."""
        if not name or not self._plan.asymmetric:
            return x
        if name in self._plan.fused:
            self._waiting[id(x)] = (x, name)
            return x
        return self._put(name, x)

    def _put(self, name: str, x: Tensor) -> Tensor:
        self._plan.aliases.setdefault(name, name)
        out = self.place(name, x)
        self._on_grid[id(out)] = (out, out._version, name)
        return out

    def _name_of(self, x: Tensor) -> str:
        out, version, name = self._on_grid.get(id(x), (None, 0, ""))
        return name if out is not None and out._version == version else ""

    def _seen(self, value: Any) -> Any:
        return self._rounded[id(value)][1] if id(value) in self._rounded else value

    def _other(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        if func in _VIEWS and id(args[0]) in self._unnormed:
            self._unnormed[id(result)] = (result, *self._unnormed[id(args[0])][1:])
        return result


HANDLERS: dict[Any, Callable[[Intercept, Any, Any, Any], Any]] = {
    **dict.fromkeys((functional.conv1d, functional.conv2d, functional.linear), Intercept.product),
    functional.batch_norm: Intercept.batch_norm,
    **dict.fromkeys((torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__), Intercept.add),
    **dict.fromkeys(
        (torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu_), Intercept.relu
    ),
    **dict.fromkeys((torch.max_pool2d, functional.max_pool2d), Intercept.max_pool),
}
_VIEWS = (Tensor.view, Tensor.reshape, Tensor.flatten, torch.flatten, torch.reshape)
_TRANSFORMER = (
    functional.layer_norm,
    torch.layer_norm,
    functional.softmax,
    torch.softmax,
    Tensor.softmax,
    functional.scaled_dot_product_attention,
)
