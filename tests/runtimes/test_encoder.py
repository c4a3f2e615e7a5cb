"""`edgessl.open` and `embed`."""

from __future__ import annotations

import numpy as np
import pytest

import edgessl
from edgessl.bundle import Bundle
from edgessl.errors import EngineError, InputError, UnknownNameError
from edgessl.runtimes.encoder import refuse_rows
from edgessl.runtimes.split import Tail, Trunk


def test_auto_takes_the_cheapest_precision(encoder):
    assert encoder.precision == "int8"


def test_facts_are_known_before_the_first_call(encoder):
    assert (encoder.dim, encoder.space_id, encoder.input.shape) == (6, "tiny-6", (12, 10, 3))
    assert encoder.info()["engine"] == "onnxruntime"


def test_embeds_unit_vectors(encoder, scenes):
    vectors = encoder.embed(scenes(7, 0))
    assert vectors.shape == (7, 6)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_large_batch_is_the_same_as_small_ones(encoder, scenes):
    frames = scenes(131, 0)
    parts = np.concatenate([encoder.embed(frames[start : start + 13]) for start in range(0, 131, 13)])
    np.testing.assert_allclose(encoder.embed(frames), parts, atol=1e-5)


def test_no_frames_give_no_vectors(encoder, scenes):
    assert encoder.embed(scenes(3, 0)[:0]).shape == (0, 6)


def test_the_two_halves_give_what_the_whole_gives(tiny, scenes):
    with edgessl.open(tiny, precision="fp32") as whole:
        bundle: Bundle = whole.bundle
        with (
            Trunk(bundle, engine="onnxruntime", precision="fp32") as trunk,
            Tail(bundle, engine="onnxruntime") as tail,
        ):
            halves = tail.run(trunk.run(scenes(70, 3), trunk.identity).latents)
        np.testing.assert_allclose(halves, whole.embed(scenes(70, 3)), atol=1e-5)


def test_a_tail_runs_with_other_weights(encoder):
    weights = {"weight.project": np.eye(63, 6, dtype=np.float32), "weight.bias": np.ones(6, np.float32)}
    latents = np.random.default_rng(0).random((3, 7, 3, 3), dtype=np.float32)
    linear = latents.reshape(3, -1)[:, :6] + 1
    with Tail(encoder.bundle, engine="onnxruntime", weights=weights) as tail:
        vectors = tail.run(latents)
    np.testing.assert_allclose(vectors, linear / np.linalg.norm(linear, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda x: x[0], r"frames\[None\]"),
        (lambda x: x.transpose(0, 3, 1, 2), "channels first"),
        (lambda x: x / np.float32(255), "astype"),
        (lambda x: x[:, :5], r"\(batch, 12, 10, 3\)"),
    ],
    ids=["single", "order", "range", "size"],
)
def test_wrong_frames_are_refused_with_what_to_type(encoder, scenes, change, hint):
    with pytest.raises(InputError, match=hint):
        encoder.embed(change(scenes(2, 0)))


def test_rows_that_are_not_finite_are_named():
    with pytest.raises(InputError, match="2 of 4 samples hold NaN or infinity: rows 1, 3"):
        refuse_rows(np.array([True, False, True, False]))


def test_close_twice_is_allowed(tiny, scenes):
    encoder = edgessl.open(tiny)
    encoder.close()
    encoder.close()
    with pytest.raises(EngineError, match="closed"):
        encoder.embed(scenes(1, 0))


@pytest.mark.parametrize("names", [{"engine": "onnxruntim"}, {"precision": "int7"}])
def test_an_unknown_name_gets_the_nearest(tiny, names):
    with pytest.raises(UnknownNameError, match="did you mean"):
        edgessl.open(tiny, **names)


def test_threads_below_zero_are_refused(tiny):
    with pytest.raises(InputError, match="threads"):
        edgessl.open(tiny, threads=-1)
