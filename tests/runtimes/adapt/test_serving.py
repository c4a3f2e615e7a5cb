"""Every version is served by the cheapest graph that computes it, and by exactly one while a batch lasts."""

from __future__ import annotations

from threading import Event, Thread

import numpy as np
import pytest

import edgessl
from edgessl.bundle import open_bundle
from edgessl.errors import EngineError, InputError
from edgessl.metrics import cosines
from edgessl.runtimes.adapt.served import Affine, Served
from edgessl.runtimes.adapt.serving import Serving
from edgessl.runtimes.split import Tail, Trunk

PRECISIONS = ("fp32", "int8")


def samples(path):
    return open_bundle(path).tensors("golden")["samples"]


def ports_of(path, seed=0, shift=0.2):
    """Scales of 0.7 to 1.4, shifts of a part of the channel's spread."""
    bundle, rng = open_bundle(path), np.random.default_rng(seed)
    source = bundle.tensors("source")
    return tuple(
        (
            rng.uniform(0.7, 1.4, port["channels"]).astype(np.float32),
            (shift * rng.normal(size=port["channels"]) * np.sqrt(source[f"port{index}.var"])).astype(np.float32),
        )
        for index, port in enumerate(bundle.manifest["split"]["ports"])
    )


def in_halves(path, frames, ports, precision, weights=None):
    bundle = open_bundle(path)
    with (
        Trunk(bundle, engine="onnxruntime", precision=precision) as trunk,
        Tail(bundle, engine="onnxruntime", weights=weights) as tail,
    ):
        return tail.run(trunk.run(frames, trunk.identity if ports is None else ports).latents)


def affine_of(dim, seed=0):
    rng = np.random.default_rng(seed)
    return Affine(
        matrix=(np.eye(dim) + rng.normal(0, 0.1, (dim, dim))).astype(np.float32),
        shift=rng.normal(0, 0.1, dim).astype(np.float32),
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_factory_is_served_by_the_encoders_graph_to_the_bit(bundle, precision):
    frames = samples(bundle)
    with edgessl.open(bundle, precision=precision) as encoder, Serving(encoder) as serving:
        np.testing.assert_array_equal(serving.embed(frames), encoder.embed(frames))
        still = tuple((np.ones_like(scale), np.zeros_like(shift)) for scale, shift in ports_of(bundle))
        for version in (Served(number=3), Served(number=3, ports=still)):
            serving.use(version)
            assert serving.info() == {"number": 3, "path": "factory", "why": "stem, ports and tail are the factory's"}
            np.testing.assert_array_equal(serving.embed(frames), encoder.embed(frames))


@pytest.fixture(params=["small graph", "large graph"])
def any_size(request, monkeypatch):
    """Of a large graph numpy corrects the vectors, a small one does it itself."""
    if request.param == "large graph":
        monkeypatch.setattr("edgessl.runtimes.adapt.serving._SMALL", 0)


@pytest.mark.parametrize("count", [0, 1, 3, 21])
@pytest.mark.usefixtures("any_size")
def test_the_affine_correction_is_its_formula(tiny, engine_name, count):
    frames = samples(tiny)[:count]
    with edgessl.open(tiny, engine=engine_name) as encoder, Serving(encoder) as serving:
        affine = affine_of(encoder.dim)
        serving.use(Served(number=1, affine=affine))
        vectors = encoder.embed(frames).astype(np.float64) @ affine.matrix + affine.shift
        given = serving.embed(frames)
        assert serving.info()["path"] == "factory"
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.usefixtures("any_size")
def test_a_vector_that_becomes_zero_stays_zero(tiny, engine_name):
    with edgessl.open(tiny, engine=engine_name) as encoder, Serving(encoder) as serving:
        nothing = np.zeros((encoder.dim, encoder.dim), np.float32)
        serving.use(Served(affine=Affine(matrix=nothing, shift=nothing[0])))
        np.testing.assert_array_equal(serving.embed(samples(tiny)[:2]), nothing[:2])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_ports_behind_convolutions_are_folded_and_do_what_trunk_and_tail_do(bundle, precision):
    frames, ports = samples(bundle), ports_of(bundle)
    with edgessl.open(bundle, precision=precision) as encoder, Serving(encoder) as serving:
        serving.use(Served(number=1, ports=ports))
        assert serving.info()["path"] == "folded"
        given, plain = serving.embed(frames), encoder.embed(frames)
        # Nothing of it stays behind.
        serving.use(Served(number=2))
        np.testing.assert_array_equal(serving.embed(frames), plain)
    wanted = in_halves(bundle, frames, ports, precision)
    off, moved = (1 - cosines(wanted, each).mean() for each in (given, plain))
    assert off < (1e-6 if precision == "fp32" else 5e-3)
    assert off < moved / 2


@pytest.mark.usefixtures("any_size")
def test_ports_and_affine_come_in_that_order(bundle):
    frames, ports = samples(bundle), ports_of(bundle)
    with edgessl.open(bundle, precision="fp32") as encoder, Serving(encoder) as serving:
        affine = affine_of(encoder.dim)
        serving.use(Served(ports=ports, affine=affine))
        given = serving.embed(frames)
    np.testing.assert_allclose(given, affine.apply(in_halves(bundle, frames, ports, "fp32")), atol=1e-4)


@pytest.mark.parametrize("path", ["factory", "affine", "folded", "split"])
@pytest.mark.usefixtures("any_size")
def test_vectors_are_the_callers_and_no_later_call_changes_them(bundle, tiny, engine_name, path):
    where = tiny if path == "split" else bundle
    frames, ports = samples(where), ports_of(where) if path in ("folded", "split") else None
    with edgessl.open(where, engine=engine_name, precision="fp32") as encoder, Serving(encoder) as serving:
        serving.use(Served(ports=ports, affine=None if path == "factory" else affine_of(encoder.dim)))
        assert serving.info()["path"] == ("factory" if path == "affine" else path)
        for count in (1, 3, 9):
            kept = serving.embed(frames[:count])
            before = kept.copy()
            serving.embed(frames[-count:])
            np.testing.assert_array_equal(kept, before)
            kept[:] = 7.0  # a caller may; neither this nor the encoder gives it out again
            np.testing.assert_array_equal(serving.embed(frames[:count]), before)
            assert not (encoder.embed(frames[:count]) == 7.0).any()


@pytest.mark.parametrize("count", [0, 1, 3, 21])
def test_the_affine_correction_behind_trunk_and_tail_is_its_formula(tiny, engine_name, count):
    frames, ports = samples(tiny)[:count], ports_of(tiny)
    with edgessl.open(tiny, engine=engine_name, precision="fp32") as encoder, Serving(encoder) as serving:
        serving.use(Served(ports=ports))
        vectors = serving.embed(frames).astype(np.float64)
        affine = affine_of(encoder.dim)
        serving.use(Served(ports=ports, affine=affine))
        assert serving.info()["path"] == "split"
        given = serving.embed(frames)
    moved = vectors @ affine.matrix + affine.shift
    np.testing.assert_allclose(given, moved / np.linalg.norm(moved, axis=1, keepdims=True), atol=1e-6)


def test_a_small_graph_corrects_its_vectors_itself(bundle, monkeypatch):
    frames, ports = samples(bundle)[:3], ports_of(bundle)
    with edgessl.open(bundle) as encoder, Serving(encoder) as serving:
        versions = [Served(affine=affine_of(encoder.dim)), Served(ports=ports, affine=affine_of(encoder.dim))]
        wanted = []
        for version in versions:
            serving.use(version)
            wanted.append(serving.embed(frames))
        monkeypatch.setattr("edgessl.runtimes.adapt.serving._Corrected", None)
        for version, vectors in zip(versions, wanted, strict=True):
            serving.use(version)
            np.testing.assert_array_equal(serving.embed(frames), vectors)


def test_a_bundle_that_records_no_fold_is_served_in_halves(tiny, engine_name):
    frames, ports = samples(tiny), ports_of(tiny)
    with edgessl.open(tiny, engine=engine_name, precision="fp32") as encoder, Serving(encoder) as serving:
        serving.use(Served(number=1, ports=ports))
        assert serving.info()["path"] == "split"
        assert "records no constants" in serving.info()["why"]
        np.testing.assert_allclose(serving.embed(frames), in_halves(tiny, frames, ports, "fp32"), atol=1e-5)
        assert serving.embed(frames[:0]).shape == (0, encoder.dim)


@pytest.mark.parametrize("with_ports", [False, True])
def test_a_trained_tail_is_served_in_halves(tiny, with_ports):
    frames, ports = samples(tiny), ports_of(tiny) if with_ports else None
    weights = {name: value * 1.5 + 0.1 for name, value in open_bundle(tiny).tensors("weights").items()}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    with edgessl.open(tiny, precision="fp32") as encoder, Serving(encoder) as serving:
        serving.use(Served(ports=ports, tail=weights))
        assert serving.info()["path"] == "split"
        given = serving.embed(frames)
        assert np.abs(given - encoder.embed(frames)).max() > 0.01
    np.testing.assert_allclose(given, in_halves(tiny, frames, ports, "fp32", weights), atol=1e-6)


@pytest.mark.parametrize("path", ["factory", "folded", "split"])
def test_bad_samples_are_refused_on_every_path(bundle, tiny, path):
    version = {"factory": Served(), "folded": Served(ports=ports_of(bundle)), "split": Served(ports=ports_of(tiny))}
    with edgessl.open(tiny if path == "split" else bundle) as encoder, Serving(encoder) as serving:
        serving.use(version[path])
        assert serving.info()["path"] == path
        with pytest.raises(InputError):
            serving.embed(np.zeros((2, 3), np.uint8))


def test_a_batch_ends_with_the_version_that_it_began_with(bundle):
    frames = samples(bundle)[:3]
    with edgessl.open(bundle) as encoder, Serving(encoder) as serving:
        serving.use(Served(number=1, ports=ports_of(bundle)))
        prepared = serving.prepare(Served(number=2, ports=ports_of(bundle, seed=1)))
        assert serving.info()["number"] == 1, "preparing changed what serves"
        old = serving._prepared
        before = serving.embed(frames)
        serving.swap(prepared)
        np.testing.assert_array_equal(old.embed(frames), before)  # as a thread that had begun would
        assert serving.info()["number"] == 2
        assert np.abs(serving.embed(frames) - before).max() > 0


def test_versions_may_be_swapped_while_another_thread_embeds(bundle):
    frames, stop, seen = samples(bundle)[:1], Event(), []
    with edgessl.open(bundle, threads=1) as encoder, Serving(encoder) as serving:
        versions = [Served(number=number, ports=ports_of(bundle, seed=number)) for number in range(1, 6)]
        wanted = [encoder.embed(frames)]
        for version in versions:
            serving.use(version)
            wanted.append(serving.embed(frames))

        def embed():
            while not stop.is_set():
                seen.append(serving.embed(frames))

        thread = Thread(target=embed)
        thread.start()
        for version in [*versions, Served()]:
            serving.use(version)
        stop.set()
        thread.join()
    assert seen
    assert all(any(np.array_equal(vectors, each) for each in wanted) for vectors in seen)


def test_closed_it_says_so_and_closing_twice_is_allowed(bundle):
    with edgessl.open(bundle) as encoder:
        serving = Serving(encoder)
        serving.use(Served(ports=ports_of(bundle)))
        serving.close()
        serving.close()
        with pytest.raises(EngineError, match="closed"):
            serving.embed(samples(bundle)[:1])
        with pytest.raises(EngineError, match="closed"):
            serving.use(Served())
        assert len(encoder.embed(samples(bundle)[:1])) == 1, "the encoder is the caller's"
