"""`edgessl.open` and `embed`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

import edgessl
from edgessl.bundle import Bundle, signed
from edgessl.errors import EngineError, InputError, MissingExtraError, UnknownNameError
from edgessl.runtimes.encoder import refuse_rows
from edgessl.runtimes.engines import ENGINES, LOW_POWER, EngineSettings, open_engine
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


def test_auto_says_what_it_chose_and_why_and_what_to_type_for_another(tiny):
    with edgessl.open(tiny) as encoder:
        chosen = encoder.info()["chosen"]
    assert list(chosen) == ["onnxruntime", "openvino", "tensorrt"]
    assert chosen["onnxruntime"] == "taken in int8: the first that runs the bundle here"
    assert "--engine openvino" in chosen["openvino"] or "pip install" in chosen["openvino"]
    assert "doctor" in chosen["tensorrt"]
    with edgessl.open(tiny, engine="onnxruntime") as encoder:
        assert "chosen" not in encoder.info(), "it was asked for"


def test_auto_goes_on_to_an_engine_that_runs_and_says_why(tiny, monkeypatch):
    monkeypatch.setitem(ENGINES, "onnxruntime", ("edgessl.absent", "None", "edgessl.absent", "onnxruntime"))
    monkeypatch.setitem(ENGINES, "openvino", ENGINES["fake"])
    with edgessl.open(tiny) as encoder:
        assert encoder.engine == "openvino"
        assert encoder.chosen["onnxruntime"] == (
            "'edgessl.absent' is not installed. Install it with: pip install 'edgessl[onnxruntime]'"
        )


def test_auto_takes_the_engine_that_the_bundle_has_the_precision_for(own, monkeypatch):
    manifest = json.loads((own / "manifest.json").read_text())
    for name in ("encoder.int8.onnx", "trunk.int8.onnx"):
        manifest["artefacts"][name]["engine"] = "openvino"
    (own / "manifest.json").write_text(json.dumps(signed(manifest)))
    monkeypatch.setitem(ENGINES, "openvino", ENGINES["fake"])
    with edgessl.open(own, precision="int8") as encoder:
        assert (encoder.engine, encoder.precision) == ("openvino", "int8")
        assert encoder.chosen["onnxruntime"] == "own.edgessl has no int8 for it"
    with pytest.raises(
        InputError, match="no encoder in int8 for onnxruntime; it has encoder fp32, encoder int8 for openvino"
    ):
        edgessl.open(own, engine="onnxruntime", precision="int8")
    with pytest.raises(InputError, match=r"Type --precision fp32, or export it again$"):
        edgessl.open(own, engine="onnxruntime", precision="int8")
    with pytest.raises(InputError, match="no encoder in fp16"):
        edgessl.open(own, precision="fp16")


def test_where_no_engine_runs_every_reason_is_given(tiny, monkeypatch):
    for name in ("onnxruntime", "openvino", "tensorrt"):
        monkeypatch.setitem(ENGINES, name, (f"absent.{name}", "None", f"absent.{name}", name))
        monkeypatch.setitem(sys.modules, f"absent.{name}", None)
    with pytest.raises(
        EngineError, match=r"no engine runs .*onnxruntime: .*; openvino: .*; tensorrt: .*edgessl doctor"
    ):
        edgessl.open(tiny)


def test_an_engine_that_was_asked_for_is_never_replaced(tiny, monkeypatch):
    monkeypatch.setitem(ENGINES, "openvino", ("edgessl.absent", "None", "edgessl.absent", "openvino"))
    with pytest.raises(MissingExtraError, match=r"pip install 'edgessl\[openvino\]'"):
        edgessl.open(tiny, engine="openvino")


def test_settings_reach_the_engine_and_threads_are_short_for_them(tiny):
    for settings in ({"settings": LOW_POWER}, {"threads": 1}):
        with edgessl.open(tiny, **settings) as encoder:
            assert (encoder.info()["threads"], encoder.threads, encoder.info()["spin"]) == (1, 1, False)


def test_info_of_an_int8_graph_says_what_became_of_it(engine_name, tiny):
    with edgessl.open(tiny, engine=engine_name, precision="int8") as encoder:
        assert "fused" not in encoder.info(), "it costs a second opening of the graph"
        facts = encoder.info(fused=True)
        assert (facts["precision"], facts["floats"]) == ("int8", "fp32")
        assert set(facts["fused"]) == {"int8", "float", "unfused_dequantize"}
    with edgessl.open(tiny, engine=engine_name, precision="fp32") as encoder:
        assert "fused" not in encoder.info(fused=True)
    assert encoder.info()["precision"] == "fp32", "closed"


def test_settings_reach_every_graph_of_an_encoder_that_adapts(tiny, tmp_path, monkeypatch, scenes):
    asked = []

    def opening(*words, settings=None, threads=0, **more):
        asked.append((settings, threads))
        return open_engine(*words, settings=settings, threads=threads, **more)

    for module in ("encoder", "split", "adapt.tail"):
        monkeypatch.setattr(f"edgessl.runtimes.{module}.open_engine", opening)
    settings = EngineSettings(threads=2, spin=True)
    with edgessl.open(tiny, settings=settings, engine="onnxruntime") as encoder:
        with encoder.learner(tmp_path / "state", level="tail") as learner:
            learner.observe(scenes(2, 0))
        with encoder.adapting(tmp_path / "other", level="tail") as beside:
            beside.embed(scenes(2, 0))
    assert len(asked) > 6
    assert {(replace(given, cache=False, arena=True), threads) for given, threads in asked} == {(settings, 0)}
    assert any(not given.arena for given, _ in asked), "a training step gives its memory back"
