"""A port in a convolution's constants is the port behind the convolution."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.errors import BundleError
from edgessl.runtimes.fold import PortConstants

RNG = np.random.default_rng(3)
SCALE = RNG.uniform(0.25, 4, 5).astype(np.float32)
SHIFT = RNG.normal(size=5).astype(np.float32)
WEIGHT = RNG.normal(size=(5, 3, 2, 2)).astype(np.float32)
PATCHES = RNG.normal(size=(11, 3, 2, 2)).astype(np.float32)  # what a kernel of 2 by 2 sees, 11 times


def test_in_float_it_is_the_formula() -> None:
    bias = RNG.normal(size=5).astype(np.float32)
    port = PortConstants(scaled=("w",), bias="b")
    values = port.moved({"w": WEIGHT, "b": bias}, SCALE, SHIFT)
    wanted = SCALE * (np.einsum("ncij,ocij->no", PATCHES, WEIGHT) + bias) + SHIFT
    np.testing.assert_allclose(np.einsum("ncij,ocij->no", PATCHES, values["w"]) + values["b"], wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (5, 1, 1, 1)])
def test_rounded_weights_keep_their_integers(shape: tuple[int, ...]) -> None:
    step = RNG.uniform(0.01, 0.02, 5).astype(np.float32)
    rounded = np.rint(WEIGHT / step.reshape(-1, 1, 1, 1))
    steps = (step * np.float32(0.003)).reshape(shape)  # of the bias: those of the weight times the input's
    bias = RNG.integers(-9000, 9000, 5).astype(np.int32)
    port = PortConstants(scaled=("s",), bias="b", steps="t")
    values = port.moved({"s": step.reshape(shape), "b": bias, "t": steps}, SCALE, SHIFT)
    assert set(values) == {"s", "b", "t"}
    assert values["b"].dtype == np.int32

    def product(step: np.ndarray, steps: np.ndarray, bias: np.ndarray) -> np.ndarray:
        weight = rounded * step.reshape(-1, 1, 1, 1)
        return np.asarray(np.einsum("ncij,ocij->no", PATCHES, weight) + bias * steps.ravel())

    wanted = SCALE * product(step, steps, bias) + SHIFT
    given = product(values["s"], values["t"], values["b"])
    np.testing.assert_allclose(
        given, wanted, atol=float((SCALE * steps.ravel()).max())
    )  # half a step of rounding, and float's


def test_a_bias_of_another_layout_keeps_it() -> None:
    port = PortConstants(scaled=("w",), bias="b")
    values = port.moved({"w": WEIGHT, "b": np.ones((1, 5, 1, 1), np.float32)}, SCALE, SHIFT)
    assert values["b"].shape == (1, 5, 1, 1)
    np.testing.assert_allclose(values["b"].ravel(), SCALE + SHIFT, rtol=1e-6)


@pytest.mark.parametrize(
    "constants",
    [
        {"w": WEIGHT[:4], "b": np.ones(5, np.float32)},
        {"w": WEIGHT, "b": np.ones(4, np.float32)},
        {"w": WEIGHT, "b": np.ones(5, np.int32)},
        {"w": WEIGHT.astype(np.int8), "b": np.ones(5, np.float32)},
    ],
)
def test_constants_of_something_else_are_refused(constants: dict[str, np.ndarray]) -> None:
    with pytest.raises(BundleError, match="not the constants of a port of 5"):
        PortConstants(scaled=("w",), bias="b").moved(constants, SCALE, SHIFT)
