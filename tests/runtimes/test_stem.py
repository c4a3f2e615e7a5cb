"""A map in front of the first convolution is that convolution with other constants."""

from __future__ import annotations

import numpy as np
import pytest

import edgessl
from edgessl.errors import BundleError
from edgessl.runtimes.stem import PatchMap, Stem, StemConstants, kernel_of

RNG = np.random.default_rng(0)
OUT, KERNEL = 4, (3, 2)
POSITIONS = KERNEL[0] * KERNEL[1]


def a_map(channels: int = 3, positions: int = POSITIONS, seed: int = 1) -> PatchMap:
    rng = np.random.default_rng(seed)
    return PatchMap(
        axes=np.linalg.qr(rng.normal(size=(channels, channels)))[0].astype(np.float32),
        blocks=rng.normal(0, 0.3, (channels, positions, positions)).astype(np.float32),
        shift=rng.normal(size=(channels, positions)).astype(np.float32),
    )


def through(patch: PatchMap, pixels: np.ndarray) -> np.ndarray:
    """The map, pixel by pixel and position by position."""
    turned = np.einsum("kc,cp->kp", patch.axes, pixels)
    moved = np.stack([patch.blocks[k] @ turned[k] + patch.shift[k] for k in range(len(turned))])
    return np.einsum("kc,kp->cp", patch.axes, moved)


def float_constants(units: tuple[float, ...] = (1.0, 1.0, 1.0)) -> tuple[StemConstants, dict[str, np.ndarray]]:
    weight = RNG.normal(size=(OUT, 3, *KERNEL)).astype(np.float32)
    factory = {"w": weight, "b": RNG.normal(size=OUT).astype(np.float32)}
    return StemConstants(weight="w", scale="", bias="b", steps="", units=units), factory


def applied(constants: StemConstants, values: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    weight = values[constants.weight].astype(np.float64)
    if constants.scale:
        weight = weight * values[constants.scale].reshape(-1, 1, 1, 1)
    bias = values[constants.bias].ravel().astype(np.float64)
    if constants.steps:
        bias = bias * values[constants.steps].ravel()
    return weight.reshape(OUT, -1) @ pixels.ravel() + bias


@pytest.mark.parametrize("units", [(1.0, 1.0, 1.0), (0.2, 0.5, 2.0)])
def test_float_constants_do_to_a_patch_what_they_did_to_the_mapped_one(units):
    constants, factory = float_constants(units)
    patch, pixels = a_map(), RNG.normal(size=(3, POSITIONS))
    own = np.asarray(units)[:, None]  # the convolution reads pixels times their unit
    wanted = applied(constants, factory, through(patch, pixels) * own)
    got = applied(constants, factory | constants.mapped(factory, patch), pixels * own)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_int8_constants_are_rounded_anew_with_as_many_steps_as_before():
    weight = RNG.integers(-127, 128, (OUT, 3, *KERNEL)).astype(np.int8)
    weight[:, 0, 0, 0] = 127
    factory = {
        "w": weight,
        "s": RNG.uniform(0.001, 0.01, OUT).astype(np.float32),
        "b": RNG.integers(-1000, 1000, OUT).astype(np.int32),
        "t": RNG.uniform(1e-5, 1e-4, OUT).astype(np.float32),
    }
    constants = StemConstants(weight="w", scale="s", bias="b", steps="t", units=(1.0, 1.0, 1.0))
    patch, pixels = a_map(), RNG.normal(size=(3, POSITIONS))
    moved = constants.mapped(factory, patch)
    assert {name: (value.dtype, value.shape) for name, value in moved.items()} == {
        name: (value.dtype, value.shape) for name, value in factory.items()
    }
    assert np.abs(moved["w"].astype(int)).max((1, 2, 3)).tolist() == [127] * OUT
    # The bias counts in steps of the input's scale times the weights': both grow alike.
    np.testing.assert_allclose(moved["t"] / factory["t"], moved["s"] / factory["s"], rtol=1e-5)
    wanted = applied(constants, factory, through(patch, pixels))
    step = moved["s"] * np.abs(pixels).sum() / 2 + moved["t"]
    assert (np.abs(applied(constants, moved, pixels) - wanted) <= step + 1e-6).all()


def test_an_int8_channel_without_weights_keeps_its_bias():
    factory = {
        "w": np.zeros((OUT, 3, *KERNEL), np.int8),
        "s": np.full(OUT, 0.01, np.float32),
        "b": np.full(OUT, 5000, np.int32),
        "t": np.full(OUT, 1e-4, np.float32),
    }
    factory["w"][0] = 100
    constants = StemConstants(weight="w", scale="s", bias="b", steps="t", units=(1.0, 1.0, 1.0))
    quiet = a_map()
    quiet = PatchMap(axes=quiet.axes, blocks=quiet.blocks * np.float32(1e-9), shift=np.zeros_like(quiet.shift))
    moved = constants.mapped(factory, quiet)
    np.testing.assert_allclose(moved["b"] * moved["t"].astype(np.float64), 0.5, rtol=1e-5)


def test_a_map_of_other_patches_is_refused():
    constants, factory = float_constants()
    with pytest.raises(BundleError, match="not the constants of a convolution"):
        constants.mapped(factory, a_map(positions=9))


def test_the_identity_changes_no_vector(tiny, engine_name):
    patch = PatchMap(
        axes=np.eye(3, dtype=np.float32),
        blocks=np.stack([np.eye(9, dtype=np.float32)] * 3),
        shift=np.zeros((3, 9), np.float32),
    )
    with edgessl.open(tiny, engine=engine_name) as encoder:
        frames = encoder.bundle.tensors("golden")["samples"]
        stem = Stem(encoder.bundle, "encoder", engine=engine_name, precision=encoder.precision)
        with edgessl.runtimes.encoder.Encoder(
            encoder.bundle, engine=engine_name, precision=encoder.precision, constants=stem.constants(patch)
        ) as mapped:
            np.testing.assert_allclose(mapped.embed(frames), encoder.embed(frames), atol=1e-6)


def test_a_bundle_that_says_nothing_of_its_stem_has_no_kernel_and_takes_no_map(encoder):
    bundle = encoder.bundle
    assert kernel_of(bundle, engine="onnxruntime", precision="fp32", trunk="fp32") == (3, 3)
    bundle.manifest["split"].pop("stem")
    assert kernel_of(bundle, engine="onnxruntime", precision="fp32", trunk="fp32") is None
    stem = Stem(bundle, "trunk", engine="onnxruntime", precision="fp32")
    assert not stem.possible
    with pytest.raises(BundleError, match="export it again"):
        stem.constants(a_map())
