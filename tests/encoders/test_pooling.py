"""Pools against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgessl.encoders.pooling import POOLS, MapPool, TokenPool, generalized_mean
from edgessl.errors import InputError, UnknownNameError


def tokens() -> torch.Tensor:
    return torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["cls", "mean", "gem", "cls+mean"])
def test_tokens_are_pooled_as_numpy_does_without_class_and_registers(kind: str) -> None:
    given = tokens()
    values, patches = given.numpy(), given.numpy()[:, 3:]
    expected = {
        "cls": values[:, 0],
        "mean": patches.mean(1),
        "gem": (np.maximum(patches, 1e-6) ** 3).mean(1) ** (1 / 3),
        "cls+mean": np.concatenate([values[:, 0], patches.mean(1)], 1),
    }[kind]
    pooled = TokenPool(kind, prefix=3)(given).numpy()
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)


def test_maps_are_pooled_as_numpy_does() -> None:
    maps = torch.randn(3, 5, 2, 4, generator=torch.Generator().manual_seed(1))
    last = maps.permute(0, 2, 3, 1)
    gem = (np.maximum(maps.numpy(), 1e-6) ** 2).mean((2, 3)) ** 0.5
    np.testing.assert_allclose(MapPool("mean")(maps).numpy(), maps.numpy().mean((2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        MapPool("mean", last=True)(last).numpy(), maps.numpy().mean((2, 3)), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(MapPool("gem", power=2)(maps).numpy(), gem, rtol=1e-4, atol=1e-6)
    assert MapPool("gem", keep=True)(maps).shape == (3, 5, 1, 1)


def test_the_generalised_mean_lies_between_mean_and_maximum() -> None:
    values = torch.rand(3, 7, 5, generator=torch.Generator().manual_seed(2))
    pooled = [generalized_mean(values, (1,), power) for power in (1.0, 3.0, 60.0)]
    torch.testing.assert_close(pooled[0], values.mean(1))
    assert bool((pooled[0] <= pooled[1]).all())
    torch.testing.assert_close(pooled[2], values.amax(1), rtol=0.05, atol=0)


def test_the_norm_behind_the_pool_and_the_own_attention_are_used() -> None:
    class First(torch.nn.Module):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return given[:, 1]

    norm = torch.nn.LayerNorm(5)
    given = tokens()
    torch.testing.assert_close(TokenPool("attention", attention=First())(given), given[:, 1])
    torch.testing.assert_close(TokenPool("mean", norm=norm)(given), norm(given.mean(1)))


@pytest.mark.parametrize(
    ("kind", "prefix", "message"),
    [("cls", 0, "needs a class token"), ("attention", 1, "a trained part"), ("mena", 1, "did you mean 'mean'")],
)
def test_a_pool_that_the_model_cannot_have_is_refused(kind: str, prefix: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TokenPool(kind, prefix=prefix)


def test_a_map_has_no_class_token() -> None:
    for kind in set(POOLS) - {"mean", "gem"}:
        with pytest.raises(InputError, match="gives maps"):
            MapPool(kind)
    with pytest.raises(UnknownNameError):
        MapPool("max")
