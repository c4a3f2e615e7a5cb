from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgessl.bundle import open_bundle
from edgessl.encoders import EncoderModule
from edgessl.errors import GateError, InputError, OutputExistsError, UnknownNameError
from edgessl.export import adaptation
from edgessl.export import bundle as writing
from edgessl.export.bundle import ExportReport, export
from edgessl.export.config import ExportConfig
from edgessl.export.graphs import Graphs
from edgessl.export.lint import Finding
from edgessl.export.objectives import Source as Statistics
from edgessl.export.split import Split
from edgessl.export.train_step import Step, StepConfig, step_parity, write_step
from edgessl.metrics import cosines
from edgessl.runtimes.encoder import open_encoder
from edgessl.runtimes.split import Tail, Trunk
from edgessl.sources import Source, open_source
from tests.export.conftest import smooth_frames

SMALL = ExportConfig(
    precision="int8", calibration=40, statistics=40, golden=24, anchors=9, step=StepConfig(batch=4, anchors=3)
)


@pytest.fixture(scope="session")
def calibrate(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("data") / "frames.npz"
    np.savez(path, x=smooth_frames(48))
    return open_source(str(path))


@pytest.fixture(scope="session")
def written(encoder: EncoderModule, calibrate: Source, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export(
        encoder, {"recipe": "none"}, calibrate, tmp_path_factory.mktemp("out") / "robot.edgessl", config=SMALL
    )


@pytest.mark.slow
def test_every_graph_passed_its_gate(written: ExportReport) -> None:
    assert {row.file for row in written.parity} == {
        "encoder.onnx",
        "encoder.b1.onnx",
        "encoder.int8.onnx",
        "trunk.fp32.onnx",
        "trunk.int8.onnx",
    }
    assert all(row.ok for row in written.parity)
    assert written.rejected == {}


@pytest.mark.slow
def test_it_gives_the_vectors_of_pytorch(written: ExportReport, encoder: EncoderModule, frames: np.ndarray) -> None:
    with torch.no_grad():
        expected = encoder(torch.from_numpy(frames)).numpy()
    with open_encoder(written.path, precision="fp32") as opened:
        np.testing.assert_allclose(opened.embed(frames), expected, atol=1e-5)
        np.testing.assert_allclose(opened.embed(frames[:1]), expected[:1], atol=1e-5)
    with open_encoder(written.path, precision="int8") as opened:
        assert cosines(opened.embed(frames), expected).mean() > 0.99


@pytest.mark.slow
def test_int8_is_smaller_and_really_quantized(written: ExportReport) -> None:
    bundle = open_bundle(written.path)
    for role in ("encoder", "trunk"):
        graph = onnx.load(bundle.graph(role, "int8", "onnxruntime")).graph
        kinds = [node.op_type for node in graph.node]
        assert kinds.count("DequantizeLinear") > kinds.count("Conv") > 0


@pytest.mark.slow
def test_ports_stay_in_float(written: ExportReport) -> None:
    """A scale or a shift that went through a Q/DQ pair would be rounded to the grid of its calibration: all ones."""
    model = onnx.load(open_bundle(written.path).graph("trunk", "int8", "onnxruntime"))
    quantized = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert not {name for name in quantized if name.startswith("port")}
    bundle = open_bundle(written.path)
    frames = smooth_frames(5, seed=7)
    with Trunk(bundle, engine="onnxruntime", precision="int8") as trunk:
        ports = [(1.37 * scale, shift + 0.11) for scale, shift in trunk.identity]
        changed = trunk.run(frames, [(ports[0][0], ports[0][1]), *trunk.identity[1:]])
        plain = trunk.run(frames, trunk.identity)
    np.testing.assert_array_equal(changed.means[0], plain.means[0])
    assert np.abs(changed.means[1] - plain.means[1]).max() > 1e-3


@pytest.mark.slow
def test_a_tail_takes_other_weights(written: ExportReport) -> None:
    bundle = open_bundle(written.path)
    weights = bundle.tensors("weights")
    rng = np.random.default_rng(0)
    with Trunk(bundle, engine="onnxruntime", precision="fp32") as trunk:
        latents = trunk.run(smooth_frames(4), trunk.identity).latents
    with Tail(bundle, engine="onnxruntime") as factory, Tail(bundle, engine="onnxruntime", weights=weights) as same:
        before = factory.run(latents)
        np.testing.assert_array_equal(same.run(latents), before)
    for name, value in weights.items():
        other = weights | {name: value + rng.normal(0, 0.5, value.shape).astype(np.float32)}
        with Tail(bundle, engine="onnxruntime", weights=other) as tail:
            changed = np.abs(tail.run(latents) - before).max() > 1e-6
        assert changed or name.endswith("qkv.bias"), name


@pytest.mark.slow
def test_source_statistics_are_those_of_the_frames(written: ExportReport) -> None:
    bundle = open_bundle(written.path)
    source = bundle.tensors("source")
    frames = np.delete(smooth_frames(48), np.linspace(0, 47, 24).round().astype(int), axis=0)
    with Trunk(bundle, engine="onnxruntime", precision="int8") as trunk, Tail(bundle, engine="onnxruntime") as tail:
        observed = trunk.run(frames, trunk.identity)
        vectors = tail.run(observed.latents)
    np.testing.assert_allclose(source["embedding.mean"], vectors.mean(0), atol=1e-5)
    np.testing.assert_allclose(source["embedding.var"], vectors.var(0), atol=1e-5)
    for index, (mean, square) in enumerate(zip(observed.means, observed.squares, strict=True)):
        np.testing.assert_allclose(source[f"port{index}.mean"], mean.mean(0), atol=1e-4)
        np.testing.assert_allclose(source[f"port{index}.var"], square.mean(0) - mean.mean(0) ** 2, atol=1e-3)
    assert source["anchor.latents"].dtype == np.int8
    assert len(source["anchor.latents"]) == len(source["anchor.vectors"]) == SMALL.anchors


@pytest.mark.slow
def test_wrong_statistics_of_a_trunk_are_not_written(
    encoder: EncoderModule, calibrate: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Identity ports would not show it: adaptation lives on these outputs, and no vector depends on them."""
    honest = writing.traced

    def exchanged(split: Split) -> Graphs:
        graphs = honest(split)
        first, second = (entry for entry in graphs.trunk.graph.output if entry.name in ("port0.mean", "port0.square"))
        for node in graphs.trunk.graph.node:
            swap = {first.name: second.name, second.name: first.name}
            for field in (node.input, node.output):
                field[:] = [swap.get(name, name) for name in field]
        return graphs

    monkeypatch.setattr(writing, "traced", exchanged)
    config = ExportConfig(precision="fp32", calibration=32, golden=16, anchors=5, step=StepConfig(batch=3, anchors=2))
    with pytest.raises(GateError, match=r"trunk\.fp32\.onnx: port0\.mean differs"):
        export(encoder, {}, calibrate, tmp_path / "robot.edgessl", config=config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_wrong_graph_is_not_written(
    encoder: EncoderModule, calibrate: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = adaptation.write_tail

    def wrong(split: object, path: Path) -> None:
        honest(split, path)  # type: ignore[arg-type]
        model = onnx.load(path)
        entry = max(
            model.graph.initializer, key=lambda entry: len(entry.raw_data)
        )  # a norm's ones are their own reverse
        values = onnx.numpy_helper.to_array(entry)
        entry.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values[::-1]), entry.name))
        onnx.save(model, path)

    monkeypatch.setattr(adaptation, "write_tail", wrong)
    with pytest.raises(GateError, match=r"trunk\.fp32\.onnx"):
        export(
            encoder,
            {},
            calibrate,
            tmp_path / "robot.edgessl",
            config=ExportConfig(
                precision="fp32", calibration=32, golden=16, anchors=5, step=StepConfig(batch=3, anchors=2)
            ),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_the_linter_found_is_said(
    encoder: EncoderModule, calibrate: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no target of the engine is asked for: `edgessl build` takes the fp32 graphs."""
    wrong = Finding(rule="operator", level="error", message="Conv is not supported")
    monkeypatch.setattr(writing, "lint", lambda model, check: [wrong] if check == "tensorrt:10.3" else [])
    told: list[str] = []
    config = replace(SMALL, precision="fp32")
    report = export(encoder, {}, calibrate, tmp_path / "robot.edgessl", config=config, say=told.append)
    files = [found["file"] for found in open_bundle(report.path).manifest["lint"]]
    assert sorted(files) == ["encoder.b1.onnx", "encoder.onnx", "tail.onnx", "trunk.fp32.onnx"]
    assert "lint for tensorrt:10.3: 4 errors; report.html has them" in told


def test_golden_samples_are_not_among_the_calibration_frames(written: ExportReport) -> None:
    bundle = open_bundle(written.path)
    golden = bundle.tensors("golden")["samples"]
    everything = smooth_frames(48)
    places = [next(i for i in range(48) if np.array_equal(everything[i], sample)) for sample in golden]
    assert places == list(np.linspace(0, 47, 24).round().astype(int))
    assert bundle.manifest["provenance"]["calibration"]["frames"] == 24


@pytest.mark.slow
def test_the_step_was_compared_with_pytorch(written: ExportReport) -> None:
    figures = open_bundle(written.path).manifest["parity"]["step.onnx"]
    assert figures["largest_weight_difference"] <= 1e-5
    assert figures["relative_loss_difference"] <= 1e-4


@pytest.mark.slow
def test_a_wrong_step_is_refused(split: Split, tmp_path: Path) -> None:
    source = Statistics(mean=torch.zeros(split.encoder.dim), std=torch.full((split.encoder.dim,), 0.3))
    step = Step(split, StepConfig(batch=3, anchors=2), source)
    write_step(step, tmp_path / "step.onnx")
    latents = np.random.default_rng(0).normal(size=(7, *split.latent)).astype(np.float32)
    step_parity(step, tmp_path / "step.onnx", "onnxruntime", latents)
    model = onnx.load(tmp_path / "step.onnx")
    factory = max(model.graph.initializer, key=lambda entry: len(entry.raw_data))
    values = onnx.numpy_helper.to_array(factory) + np.float32(1)
    factory.CopyFrom(onnx.numpy_helper.from_array(values, factory.name))
    onnx.save(model, tmp_path / "step.onnx")
    with pytest.raises(GateError, match=r"step\.onnx: a weight differs"):
        step_parity(step, tmp_path / "step.onnx", "onnxruntime", latents)


def test_what_is_asked_for_is_checked_before_any_work(
    encoder: EncoderModule, calibrate: Source, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'int8'"):
        ExportConfig(precision="int9")
    with pytest.raises(InputError, match=r"-o .*robot\.edgessl"):
        export(encoder, {}, calibrate, tmp_path / "robot")
    (tmp_path / "robot.edgessl").mkdir()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export(encoder, {}, calibrate, tmp_path / "robot.edgessl")
    np.savez(tmp_path / "few.npz", x=smooth_frames(31))
    with pytest.raises(InputError, match="at least 32"):
        export(encoder, {}, open_source(str(tmp_path / "few.npz")), tmp_path / "new.edgessl")
