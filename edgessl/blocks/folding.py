"""Batch norms into the convolutions whose output they alone read: found by watching a run, whatever the code says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

#: Operators that only give a tensor another shape; timm's LeViT flattens its tokens between linear layer and norm.
_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


def fold_batch_norms(module: nn.Module, run: Callable[[], object]) -> list[tuple[str, str]]:
    """Fold each batch norm that can be into the convolution or linear layer before it, in place.

    The product keeps its name and gets a bias; the norm becomes its activation (timm's `BatchNormAct2d`) or an identity.
    `module` is left in eval mode.

    Args:
        module: What to fold.
        run: Calls `module`, or all of it in parts, once, just as it will be used: what stands between two modules only
            in use (a port of a trunk) must stand there in this run.

    Returns:
        Names of what was folded: (product, norm).
    """
    pairs = foldable(module, run)
    for product_name, norm_name in pairs:
        product: Any = module.get_submodule(product_name)
        norm: Any = module.get_submodule(norm_name)
        weight, bias = folded_weights(product, norm)
        trained = product.weight.requires_grad
        product.weight = nn.Parameter(weight.detach(), trained)
        product.bias = nn.Parameter(bias.detach(), trained)
        parent, _, child = norm_name.rpartition(".")
        setattr(module.get_submodule(parent), child, getattr(norm, "act", nn.Identity()))
    return pairs


def foldable(module: nn.Module, run: Callable[[], object]) -> list[tuple[str, str]]:
    """Names of the pairs (product, batch norm) that `fold_batch_norms` would fold.

    A pair folds when the norm's input is the product's output, nobody else reads that tensor, and both are used once.
    """
    module.eval()
    watch = _Watch()
    with torch.no_grad(), watch.hooks(module), watch:
        watch.read(run())
    places = Counter(id(child) for parent in module.modules() for child in parent.children())
    names = {id(each): name for name, each in module.named_modules()}
    pairs = [pair for norm in module.modules() if places[id(norm)] == 1 and (pair := watch.pair_of(norm))]
    return [(names[id(product)], names[id(norm)]) for product, norm in pairs]


def folded_weights(product: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one product that equals `norm(product(x))` in eval mode; gradients reach all four."""
    gain = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        gain = gain * norm.weight
    weight = product.weight * gain.view(-1, *[1] * (product.weight.ndim - 1))
    bias = -norm.running_mean if product.bias is None else product.bias - norm.running_mean
    bias = bias * gain
    return weight, bias if norm.bias is None else bias + norm.bias


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch forgot to annotate it
    """Who makes and who reads which tensor during a run. Each is kept, so that no two have one identity."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept: dict[int, Tensor] = {}
        self._reads: Counter[int] = Counter()  # by operators, except a norm's of its input
        self._maker: dict[int, Any] = {}  # tensor -> the product that made it
        self._base: dict[int, Tensor] = {}  # view -> what it is a view of
        self._kernel: dict[int, int] = {}  # output of the convolution operator -> the weight it read
        self._normed: dict[int, list[Tensor]] = {}  # norm -> what it read
        self._norm_input: Tensor | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.read((args, kwargs))
        result = func(*args, **(kwargs or {}))
        self._keep(result)
        if func in _VIEWS:
            self._base[id(result)] = args[0]
        elif func is torch.ops.aten.convolution.default:
            self._kernel[id(result)] = id(args[1])
        return result

    def read(self, value: object) -> None:
        """Count a read of each tensor in `value`."""
        for tensor in self._keep(value):
            if tensor is not self._norm_input:
                self._reads[id(tensor)] += 1

    @contextmanager
    def hooks(self, module: nn.Module) -> Iterator[None]:
        """Learn from the modules what operators do not tell."""
        handles: list[RemovableHandle] = []
        for each in module.modules():
            if isinstance(each, nn.Conv1d | nn.Conv2d | nn.Linear):
                handles.append(each.register_forward_hook(self._product_ends))
            elif isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d):
                handles.append(each.register_forward_pre_hook(self._norm_begins))
                handles.append(each.register_forward_hook(self._norm_ends))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def pair_of(self, norm: Any) -> tuple[nn.Module, nn.Module] | None:
        """The norm with the product that it folds into, if it does."""
        inputs = self._normed.get(id(norm), [])
        if len(inputs) != 1 or not _is_plain(norm, inputs[0]) or self._reads[id(norm.running_mean)] != 1:
            return None
        (made,) = inputs
        if self._reads[id(made)]:
            return None
        if id(made) not in self._maker and id(made) in self._base:
            view, made = made, self._base[id(made)]
            if view.shape[-1] != made.shape[-1] or self._reads[id(made)] != 1:
                return None
            product = self._maker.get(id(made))
            return (product, norm) if type(product) is nn.Linear and view.ndim == 2 and self._alone(product) else None
        product = self._maker.get(id(made))
        if product is None or not self._alone(product):
            return None
        if type(product) is nn.Linear:
            return (product, norm) if made.ndim == 2 else None
        # A convolution that standardises or pads its weight gives the operator another one than its own.
        batched = made.ndim == product.weight.ndim
        return (product, norm) if batched and self._kernel.get(id(made)) == id(product.weight) else None

    def _alone(self, product: Any) -> bool:
        """Whether its weight and bias are parameters of its own and were read once."""
        held = [product._parameters.get(name) for name in ("weight", "bias")]
        return held[0] is not None and all(self._reads[id(each)] == 1 for each in held if each is not None)

    def _keep(self, value: object) -> list[Tensor]:
        tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
        self._kept.update((id(tensor), tensor) for tensor in tensors)
        return tensors

    def _product_ends(self, product: nn.Module, inputs: object, output: Tensor) -> None:
        self._maker[id(output)] = product

    def _norm_begins(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._norm_input = inputs[0] if inputs else None
        self._normed.setdefault(id(norm), []).extend(inputs[:1])

    def _norm_ends(self, norm: nn.Module, inputs: object, output: object) -> None:
        self._norm_input = None


def _is_plain(norm: Any, given: Tensor) -> bool:
    """Whether it does, with running statistics, what PyTorch's batch norm does, and then its `act` if it has one."""
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        return False
    if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d):
        return True
    act = getattr(norm, "act", None)
    if not isinstance(act, nn.Module):
        return False
    with torch.no_grad():
        plain = functional.batch_norm(given, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return torch.equal(norm(given), act(plain))
