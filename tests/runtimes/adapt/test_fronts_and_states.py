"""What stands in front of the trunk, through changes of level and engine, and in bundles that say something wrong of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import edgessl
from edgessl.bundle import Kind, write_manifest
from edgessl.errors import BundleError
from edgessl.runtimes.adapt.learner import Learner
from edgessl.runtimes.framefilter import FrameFilter
from edgessl.runtimes.stem import PatchMap

NIGHT = 0.3


def changed(bundle, change, arrays=None):
    """The bundle with another manifest, signed anew, and other tensors of the source."""
    if arrays:
        source = load_file(bundle / "source.safetensors")
        save_file(
            source | {name: np.asarray(value, np.float32) for name, value in arrays.items()},
            bundle / "source.safetensors",
        )
    facts = json.loads((bundle / "manifest.json").read_text())
    change(facts["split"])
    fields = ("role", "precision", "engine", "batch")
    kinds = {path: Kind(**{name: entry[name] for name in fields}) for path, entry in facts.pop("artefacts").items()}
    for signed in ("sha256", "content_sha256", "format", "edgessl"):
        facts.pop(signed, None)
    write_manifest(bundle, kinds, facts)
    return bundle


def without(*files):
    return lambda split: [split["stem"]["constants"].pop(file) for file in files]


def adapt(bundle, state, frames, level, precision="fp32"):
    """What serves at the end, and the kinds of events."""
    with (
        edgessl.open(bundle, engine="onnxruntime", precision=precision) as encoder,
        encoder.learner(state, level=level) as learner,
    ):
        vectors = learner.observe(frames)
        assert np.isfinite(vectors).all()
        return learner.served, [event["kind"] for event in learner.events]


def test_a_front_moves_at_every_level_each_in_its_form(tiny, tmp_path, scenes):
    night = scenes(320, 6, NIGHT)
    for level, form in {"recenter": PatchMap, "ports": PatchMap, "tail": FrameFilter}.items():
        served, events = adapt(tiny, tmp_path / level, night, level)
        assert isinstance(served.front, form)
        assert "front" in events


def test_a_map_is_served_on_at_level_tail_until_there_is_a_filter(tiny, tmp_path, scenes):
    adapt(tiny, tmp_path / "state", scenes(320, 6, NIGHT), "ports")
    served, events = adapt(tiny, tmp_path / "state", scenes(32, 7, NIGHT), "tail")
    assert isinstance(served.front, PatchMap)
    assert "started_again" not in events


def test_a_filter_is_served_on_at_level_ports(tiny, tmp_path, scenes):
    adapt(tiny, tmp_path / "state", scenes(320, 6, NIGHT), "tail")
    served, events = adapt(tiny, tmp_path / "state", scenes(32, 7, NIGHT), "ports")
    assert isinstance(served.front, FrameFilter)
    assert "started_again" not in events


@pytest.mark.parametrize("level", ["ports", "tail"])
def test_a_map_that_no_graph_takes_in_here_starts_its_shift_again(own, tmp_path, scenes, level):
    bundle = changed(own, without("encoder.int8.onnx", "trunk.int8.onnx"))
    served, _ = adapt(bundle, tmp_path / "state", scenes(320, 6, NIGHT), "ports")
    assert isinstance(served.front, PatchMap)
    served, events = adapt(bundle, tmp_path / "state", scenes(16, 7, NIGHT), level, precision="int8")
    assert events[0] == "started_again"
    assert (served.front, served.ports, served.affine) == (None, None, None)


def test_a_state_without_a_front_goes_on_where_one_can_move(own, tmp_path, scenes):
    bundle = changed(own, without("encoder.int8.onnx", "trunk.int8.onnx"))
    served, _ = adapt(bundle, tmp_path / "state", scenes(320, 6, NIGHT), "ports", precision="int8")
    assert served.front is None
    assert served.ports is not None
    served, events = adapt(bundle, tmp_path / "state", scenes(320, 7, NIGHT), "ports")
    assert isinstance(served.front, PatchMap)
    assert "started_again" not in events


def test_recentring_alone_leaves_ports_of_a_state_out_of_its_comparisons(tiny, tmp_path, scenes, monkeypatch):
    """By how much vectors move with the front is measured where ports do not serve: at their identity."""
    adapt(tiny, tmp_path / "state", scenes(320, 6, NIGHT), "ports")
    with (
        edgessl.open(tiny, engine="onnxruntime") as encoder,
        encoder.learner(tmp_path / "state", level="recenter") as learner,
    ):
        learned, moves = learner._learned, []
        run = learned._trunks.run
        monkeypatch.setattr(
            learned._trunks, "run", lambda front, frames, ports: (moves.append(ports), run(front, frames, ports))[1]
        )
        learner.observe(scenes(1200, 7, 0.5 * NIGHT))
        assert learner.served.ports is None
        assert not any(event["kind"] == "port" for event in learner.events)
    for ports in moves:
        assert all((scale == 1).all() and (shift == 0).all() for scale, shift in ports)


def test_a_candidate_that_gives_nothing_finite_is_withdrawn(tiny, tmp_path, scenes, monkeypatch):
    with (
        edgessl.open(tiny, engine="onnxruntime") as encoder,
        encoder.learner(tmp_path / "state", level="ports") as learner,
    ):
        trunks = learner._learned._trunks
        run = trunks.run

        def broken(front, frames, ports):
            seen = run(front, frames, ports)
            if front is not None:
                seen.latents[:] = np.nan
            return seen

        monkeypatch.setattr(trunks, "run", broken)
        learner.observe(scenes(640, 6, NIGHT))
        kinds = [event["kind"] for event in learner.events]
        assert "withdrawn" in kinds
        assert "port" in kinds
        assert learner.served.front is None


@pytest.mark.parametrize(
    ("change", "arrays"),
    [
        (lambda split: split["stem"].update(kernel=[1, 9]), None),
        (lambda split: split["stem"]["constants"]["encoder.onnx"].update(weight="kernel1"), None),
        (lambda split: split["stem"]["constants"]["trunk.fp32.onnx"].update(bias="full"), None),
        (lambda split: split["stem"]["constants"]["encoder.onnx"].update(scale="offset0"), None),
        (lambda split: None, {"spectrum.size": [10, 12]}),
        (lambda split: None, {"spectrum.size": [np.nan, 10]}),
        (lambda split: None, {"spectrum.size": [2**20, 10]}),
        (lambda split: None, {"spectrum.power": np.ones((3, 5, 5))}),
        (lambda split: None, {"spectrum.var": [np.inf, 1, 1]}),
        (lambda split: None, {"prepare.std": [0, 1, 1]}),
        (lambda split: split["stem"].update(prepare=["mean", "std", "rows", "columns"]), None),
        (
            lambda split: split["stem"].update(prepare=["mean", "std", "rows", "columns"]),
            {"prepare.rows": np.ones((7, 12)), "prepare.columns": np.ones((10, 10))},
        ),
    ],
)
def test_a_stem_that_does_not_fit_is_refused_when_the_learner_opens(own, tmp_path, change, arrays):
    bundle = changed(own, change, arrays)
    with edgessl.open(bundle, engine="onnxruntime", precision="fp32") as encoder, pytest.raises(BundleError):
        Learner(encoder, tmp_path / "state", level="ports")
