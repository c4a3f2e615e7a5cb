"""Batch norms are folded where that changes nothing, and nowhere else."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgessl.blocks.folding import fold_batch_norms, folded_weights
from edgessl.encoders import build_encoder
from edgessl.signals import image_spec
from edgessl.vision import vision_module

Module = TypeVar("Module", bound=nn.Module)

#: encoder, side, batch norms that cannot be folded
MODELS = [
    ("conv_small", 32, 0),
    ("res_small", 32, 0),
    ("resnet18", 32, 0),
    ("mobilenetv3_small_100", 32, 0),
    pytest.param("efficientnet_lite0", 32, 0, marks=pytest.mark.slow),
    ("mobilenetv4_conv_small", 32, 0),
    pytest.param("repvit_m0_9", 32, None, marks=pytest.mark.slow),
    ("convnext_atto", 32, 0),
]


def _awake(module: Module) -> Module:
    """Statistics and gains that are not those of a fresh norm, so that a fold that is forgotten shows."""
    generator = torch.Generator().manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -0.3, 0.3),
                (norm.running_var, 0.6, 1.5),
                (norm.weight, 0.7, 1.3),
                (norm.bias, -0.2, 0.2),
            ):
                if tensor is not None:
                    tensor.data.uniform_(low, high, generator=generator)
    return module.eval()


def _norms(module: nn.Module) -> int:
    return sum(isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d) for each in module.modules())


def _both(module: nn.Module, *shape: int) -> tuple[list[tuple[str, str]], nn.Module]:
    """Fold a copy; its output must be the original's."""
    _awake(module)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    folded = copy.deepcopy(module)
    with torch.no_grad():
        wanted = module(x)
        pairs = fold_batch_norms(folded, lambda: folded(x))
        assert torch.allclose(folded(x), wanted, rtol=1e-5, atol=1e-5)
    return pairs, folded


@pytest.mark.parametrize(("name", "side", "left"), MODELS)
def test_every_family_gives_the_vectors_it_gave(name: str, side: int, left: int | None) -> None:
    torch.manual_seed(0)
    encoder = _awake(build_encoder(name, image_spec(side, side)))
    frames = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    before, keys = _norms(encoder), set(encoder.state_dict())
    with torch.no_grad():
        wanted = encoder(frames)
        pairs = fold_batch_norms(encoder, lambda: encoder(frames))
        assert torch.allclose(encoder(frames), wanted, atol=1e-5)
    assert len(pairs) == before - _norms(encoder)
    assert len(pairs) >= 0.7 * before
    if left is not None:
        assert _norms(encoder) == left
    for product, norm in pairs:
        assert f"{product}.weight" in keys  # the name stays
        assert isinstance(encoder.get_submodule(product).bias, nn.Parameter)
        assert not isinstance(encoder.get_submodule(norm), nn.BatchNorm1d | nn.BatchNorm2d)


def test_linear_layers_over_tokens_fold_too() -> None:
    levit = vision_module("timm").create_model("levit_128s", num_classes=0)
    before = _norms(levit)
    pairs, folded = _both(levit, 2, 3, 224, 224)
    assert len(pairs) == before - _norms(folded)
    assert _norms(folded) == 0
    assert sum(isinstance(levit.get_submodule(product), nn.Linear) for product, _ in pairs) > 30


def test_the_order_is_that_of_the_run_and_not_of_the_container() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(5), nn.Conv2d(3, 5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x))

    assert _both(Backwards(), 2, 3, 7, 6)[0] == [("conv", "norm")]


def test_weights_are_those_of_pytorchs_own_fusion() -> None:
    conv, norm = nn.Conv2d(3, 5, 3, bias=False), _awake(nn.BatchNorm2d(5))
    wanted = fuse_conv_bn_eval(conv.eval(), norm)
    weight, bias = folded_weights(conv, norm)
    assert torch.allclose(weight, wanted.weight)
    assert wanted.bias is not None
    assert torch.allclose(bias, wanted.bias, atol=1e-7)


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5)], (2, 3, 9)),
        ([nn.Linear(3, 5), nn.BatchNorm1d(5)], (4, 3)),
        ([nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6, affine=False)], (2, 4, 7, 6)),
    ],
)
def test_products_that_fold(layers: list[nn.Module], shape: tuple[int, ...]) -> None:
    pairs, folded = _both(nn.Sequential(*layers), *shape)
    assert pairs == [("0", "1")]
    assert isinstance(folded.get_submodule("1"), nn.Identity)


class _Case(nn.Module):
    def __init__(self, rule: Callable[[_Case, Tensor], Tensor], channels: int = 3) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, channels, 1), nn.Conv2d(3, channels, 1)
        self.norm, self.again = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(self, x)


def _read_elsewhere(m: _Case, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(y) + y


def _conv_used_twice(m: _Case, x: Tensor) -> Tensor:
    return m.norm(m.conv(x)) + m.again(m.conv(2 * x))


def _norm_used_twice(m: _Case, x: Tensor) -> Tensor:
    return m.norm(m.conv(x)) + m.norm(m.other(x))


def _norm_of_a_sum(m: _Case, x: Tensor) -> Tensor:
    return m.norm(m.conv(x) + m.other(x))


def _something_between(m: _Case, x: Tensor) -> Tensor:
    return m.norm(torch.relu_(m.conv(x)))


def _changed_in_place(m: _Case, x: Tensor) -> Tensor:
    y = m.conv(x)
    y.mul_(2)
    return m.norm(y)


def _weight_read_elsewhere(m: _Case, x: Tensor) -> Tensor:
    return m.norm(m.conv(x)) * m.conv.weight.sum()


def _called_around_its_hooks(m: _Case, x: Tensor) -> Tensor:
    return m.norm(m.conv(x)) + m.conv.forward(x)


def _read_after(m: _Case, x: Tensor) -> Tensor:
    y = m.conv(x)
    z = m.norm(y)
    return torch.cat([z, y.view(*y.shape)])


@pytest.mark.parametrize(
    "rule",
    [
        _read_elsewhere,
        _conv_used_twice,
        _norm_used_twice,
        _norm_of_a_sum,
        _something_between,
        _changed_in_place,
        _weight_read_elsewhere,
        _called_around_its_hooks,
        _read_after,
    ],
)
def test_what_someone_else_reads_is_left_alone(rule: Callable[[_Case, Tensor], Tensor]) -> None:
    assert _both(_Case(rule), 2, 3, 5, 4)[0] == []


def test_an_output_of_the_whole_is_left_alone() -> None:
    conv, norm = nn.Conv2d(3, 5, 3), _awake(nn.BatchNorm2d(5))
    module, x = nn.Sequential(conv, norm), torch.rand(2, 3, 7, 6)

    def run() -> tuple[Tensor, Tensor]:
        latent = conv(x)
        return latent, norm(latent)

    assert fold_batch_norms(module, run) == []


def test_a_norm_over_another_axis_than_the_features_is_left_alone() -> None:
    assert _both(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), 2, 5, 4)[0] == []


def test_a_convolution_with_a_weight_of_its_own_making_is_left_alone() -> None:
    standardised = vision_module("timm.layers").StdConv2d
    assert _both(nn.Sequential(standardised(3, 5, 3), nn.BatchNorm2d(5)), 2, 3, 7, 6)[0] == []


def test_no_hook_stays() -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    _both(module, 2, 3, 7, 6)
    fold_batch_norms(module, lambda: module(torch.rand(2, 3, 7, 6)))
    gc.collect()
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())
