"""A port in a convolution's constants is the port behind the convolution, whether it scales channels or mixes them."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.errors import BundleError
from edgessl.runtimes.constants import ConvConstants

RNG = np.random.default_rng(3)
SCALE = RNG.uniform(0.25, 4, 5).astype(np.float32)
SHIFT = RNG.normal(size=5).astype(np.float32)
WEIGHT = RNG.normal(size=(5, 3, 2, 2)).astype(np.float32)
MATRIX = (np.diag(SCALE) + RNG.normal(0, 0.3, (5, 5))).astype(np.float32)
FLOAT = ConvConstants(weight="w", scale="", bias="b", steps="")
ROUNDED = ConvConstants(weight="w", scale="s", bias="b", steps="t")
PATCHES = RNG.normal(size=(11, 3, 2, 2)).astype(np.float32)  # what a kernel of 2 by 2 sees, 11 times


def product(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("ncij,ocij->no", PATCHES, weight.astype(np.float64)) + bias.ravel())


def rounded(shape: tuple[int, ...] = (5,), bias: int = 9000) -> dict[str, np.ndarray]:
    """Constants in integers, of 127 levels, whose bias counts in steps of the weight's times the input's."""
    step = (np.abs(WEIGHT).max((1, 2, 3)) / 127).astype(np.float32)
    return {
        "w": np.rint(WEIGHT / step.reshape(-1, 1, 1, 1)).astype(np.int8),
        "s": step.reshape(shape),
        "b": RNG.integers(-bias, bias, 5).astype(np.int32),
        "t": (step * np.float32(0.003)).reshape(shape),
    }


def computed(constants: dict[str, np.ndarray]) -> np.ndarray:
    """What a convolution of integers gives."""
    weight = constants["w"] * constants["s"].reshape(-1, 1, 1, 1).astype(np.float64)
    return product(weight, constants["b"] * constants["t"].ravel().astype(np.float64))


def test_in_float_a_scale_is_the_formula() -> None:
    bias = RNG.normal(size=5).astype(np.float32)
    values = FLOAT.scaled({"w": WEIGHT, "b": bias}, SCALE, SHIFT)
    np.testing.assert_allclose(product(values["w"], values["b"]), SCALE * product(WEIGHT, bias) + SHIFT, atol=1e-5)


def test_in_float_mixing_is_the_formula() -> None:
    bias = RNG.normal(size=5).astype(np.float32)
    values = FLOAT.mixed({"w": WEIGHT, "b": bias}, MATRIX, SHIFT)
    assert (values["w"].dtype, values["b"].dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(product(values["w"], values["b"]), product(WEIGHT, bias) @ MATRIX.T + SHIFT, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (5, 1, 1, 1)])
def test_rounded_weights_that_are_scaled_keep_their_integers(shape: tuple[int, ...]) -> None:
    factory = rounded(shape)
    values = ROUNDED.scaled(factory, SCALE, SHIFT)
    assert set(values) == {"s", "b", "t"}
    assert values["b"].dtype == np.int32
    np.testing.assert_allclose(
        computed(factory | values), SCALE * computed(factory) + SHIFT, atol=float((SCALE * factory["t"].ravel()).max())
    )  # half a step of rounding, and float's


@pytest.mark.parametrize("shape", [(5,), (5, 1, 1, 1)])
def test_rounded_weights_that_are_mixed_are_rounded_again_to_as_many_levels(shape: tuple[int, ...]) -> None:
    factory = rounded(shape)
    values = ROUNDED.mixed(factory, MATRIX, SHIFT)
    assert {name: (value.dtype, value.shape) for name, value in values.items()} == {
        name: (value.dtype, value.shape) for name, value in factory.items()
    }
    assert (np.abs(values["w"]).max((1, 2, 3)) == np.abs(factory["w"]).max()).all()
    wanted = computed(factory) @ MATRIX.T + SHIFT
    half = np.abs(PATCHES).sum((1, 2, 3)).max() * values["s"].ravel() / 2 + values["t"].ravel()
    assert (np.abs(computed(factory | values) - wanted) <= half).all()
    # the steps of bias and weights keep their ratio, which is the input's own step
    np.testing.assert_allclose(values["t"] / values["s"], factory["t"] / factory["s"], rtol=1e-6)


def test_a_float_bias_beside_rounded_weights_stays_one() -> None:
    factory = rounded() | {"b": RNG.normal(size=5).astype(np.float32)}
    del factory["t"]
    own = ConvConstants(weight="w", scale="s", bias="b", steps="")
    weight = factory["w"] * factory["s"].reshape(-1, 1, 1, 1).astype(np.float64)
    for values, wanted in (
        (own.scaled(factory, SCALE, SHIFT), SCALE * product(weight, factory["b"]) + SHIFT),
        (own.mixed(factory, MATRIX, SHIFT), product(weight, factory["b"]) @ MATRIX.T + SHIFT),
    ):
        now = factory | values
        assert now["b"].dtype == np.float32
        given = product(now["w"] * now["s"].reshape(-1, 1, 1, 1).astype(np.float64), now["b"])
        assert (np.abs(given - wanted) <= np.abs(PATCHES).sum((1, 2, 3)).max() * now["s"] / 2 + 1e-5).all()


@pytest.mark.parametrize("way", ["scaled", "mixed"])
def test_a_bias_too_large_for_its_integers_gets_larger_steps(way: str) -> None:
    factory, shift = rounded(), np.full(5, 1e9, np.float32)
    values = factory | getattr(ROUNDED, way)(factory, SCALE if way == "scaled" else MATRIX, shift)
    assert np.abs(values["b"].astype(np.int64)).max() <= 2**30 + 100
    np.testing.assert_allclose(values["b"] * values["t"].astype(np.float64), 1e9, rtol=1e-6)
    np.testing.assert_allclose(values["t"] / values["s"], factory["t"] / factory["s"], rtol=1e-6)


def test_a_bias_of_another_layout_keeps_it() -> None:
    values = FLOAT.scaled({"w": WEIGHT, "b": np.ones((1, 5, 1, 1), np.float32)}, SCALE, SHIFT)
    assert values["b"].shape == (1, 5, 1, 1)
    np.testing.assert_allclose(values["b"].ravel(), SCALE + SHIFT, rtol=1e-6)


@pytest.mark.parametrize(
    "constants",
    [
        {"w": WEIGHT[:4], "b": np.ones(5, np.float32)},
        {"w": WEIGHT, "b": np.ones(4, np.float32)},
        {"w": WEIGHT, "b": np.ones(5, np.int32)},
        {"w": WEIGHT.astype(np.int8), "b": np.ones(5, np.float32)},
        {"w": WEIGHT[:4], "b": np.ones(4, np.float32)},
    ],
)
@pytest.mark.parametrize(("way", "gain"), [("scaled", SCALE), ("mixed", MATRIX)])
def test_constants_of_something_else_are_refused(constants: dict[str, np.ndarray], way: str, gain: np.ndarray) -> None:
    with pytest.raises(BundleError, match="not the constants of a convolution of 5 channels"):
        getattr(FLOAT, way)(constants, gain, SHIFT)
