"""`edgessl export`: what it plans, what it refuses, what it hands on, and that it writes the same bytes twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgessl as library
from edgessl.bundle import open_bundle
from edgessl.checkpoint import read_checkpoint
from edgessl.cli.export import _with_camera
from edgessl.errors import GateError
from edgessl.export import bundle as writing
from edgessl.export.bundle import ExportReport
from edgessl.export.config import ExportConfig
from edgessl.load import load_encoder


@pytest.fixture
def words(checkpoint: Path, frames_folder: Path, tmp_path: Path) -> list[object]:
    """A command that would write `robot.edgessl`."""
    return ["export", checkpoint, "--calibrate", frames_folder, "-o", tmp_path / "robot.edgessl"]


def test_a_dry_run_prints_the_plan_and_writes_nothing(edgessl: Any, words: list[object], tmp_path: Path) -> None:
    done = edgessl(*words, "--to", "onnx,tensorrt", "--dry-run")
    assert done.code == 0, done.talk
    assert list(tmp_path.iterdir()) == []
    for row in ExportConfig(targets=("onnx", "tensorrt")).plan():
        assert any(
            line.split() == [*row["target"].split(), row["precision"], *row["files"].split()]
            for line in done.out.splitlines()
        ), row
    assert "conv_small" in done.out
    assert str(tmp_path / "robot.edgessl") in done.out
    assert done.out.rstrip().endswith("nothing was written")


def test_as_json_it_is_the_same_plan(edgessl: Any, words: list[object], tmp_path: Path) -> None:
    given = edgessl(*words, "--to", "openvino", "--precision", "int8", "--input-size", "48x64", "--dry-run", "--json")
    assert given.json["plan"] == ExportConfig(targets=("openvino",), precision="int8").plan()
    assert given.json["input"]["shape"] == [48, 64, 3]
    assert (given.json["encoder"], given.json["dim"], given.json["samples"]) == ("conv_small", 7, 40)
    assert given.json["output"] == str(tmp_path / "robot.edgessl")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_over_a_bundle_leaves_it(edgessl: Any, words: list[object], bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "robot.edgessl")
    assert edgessl(*words, "--dry-run").code == 0
    assert open_bundle(tmp_path / "robot.edgessl").manifest == open_bundle(bundle).manifest
    done = edgessl(*words)
    assert done.code == 1
    assert "--overwrite" in done.talk


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--to", "onx", "no target 'onx'; did you mean 'onnx'?"),
        ("--to", "onnx,coreml", "Choose one of: onnx, openvino, tensorrt"),
        ("--to", ",", "type --to onnx,openvino,tensorrt"),
        ("--precision", "int9", "no precision 'int9'; did you mean 'int8'?"),
        ("--precision", "fp16", "type --precision auto, or --to openvino,tensorrt"),
        ("--input-size", "big", "'big' is no size"),
        ("--input-size", "480x", "height x width"),
        ("--size", "0x4", "'0x4' is no size"),
        ("--calibration", "0", "1 or more"),
        ("--objective", "algn", "did you mean 'align'?"),
        ("--set", "tail", "KEY=VALUE"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(
    edgessl: Any, tmp_path: Path, option: str, value: str, told: str
) -> None:
    done = edgessl(
        "export", "no-checkpoint", "--calibrate", "no-frames", "-o", tmp_path / "robot.edgessl", option, value
    )
    assert done.code == 1
    assert told in done.talk
    assert len(done.talk.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_random_weights_are_not_taken_for_trained_ones(edgessl: Any, words: list[object]) -> None:
    done = edgessl("export", "timm:resnet18", *words[2:], "--size", "32", "--dry-run")
    assert done.code == 0
    assert "timm:resnet18 is untrained: its weights are random; give --weights FILE or --pretrained" in done.talk


@pytest.mark.parametrize("stated", ["stretch", "crop"])
def test_the_fit_is_the_encoders_own_unless_one_is_named(checkpoint: Path, stated: str) -> None:
    loaded = load_encoder(str(checkpoint))
    assert loaded.preprocessing["fit"] == "stretch", "as edgessl's own sources do"
    loaded = replace(loaded, preprocessing=loaded.preprocessing | {"fit": stated})
    assert _with_camera(loaded, (48, 64), "auto").resize.facts["fit"] == stated
    assert _with_camera(loaded, (48, 64), "crop").resize.facts["fit"] == "crop"


def test_a_fit_that_is_not_known_is_refused(edgessl: Any, words: list[object]) -> None:
    done = edgessl(*words, "--input-size", "48x64", "--fit", "squash", "--dry-run")
    assert done.code == 1
    assert "no fit 'squash'; choose stretch, crop or auto" in done.talk


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_bundles_name_ends_in_edgessl(edgessl: Any, words: list[object], tmp_path: Path, more: list[str]) -> None:
    done = edgessl(*words[:-1], tmp_path / "robot", *more)
    assert done.code == 1
    assert f"type -o {tmp_path / 'robot.edgessl'}" in done.talk


def test_every_option_reaches_the_export(
    edgessl: Any, words: list[object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: dict[str, Any] = {}

    def export(encoder: Any, facts: Any, samples: Any, output: Path, **rest: Any) -> ExportReport:
        given.update(rest, encoder=encoder, output=output, samples=samples)
        return ExportReport(path=output, parity=[], rejected={"tensorrt fp16": "too coarse"})

    monkeypatch.setattr(writing, "export", export)
    done = edgessl(
        *words, "--to", "onnx, tensorrt,onnx", "--precision", "int8", "--calibration", 17, "--license", "MIT",
        "--objective", "vicreg", "--rehearsal", "20", "--overwrite", "--input-size", "48x64",
    )  # fmt: skip
    assert done.code == 0, done.talk
    config = given["config"]
    assert (config.targets, config.precision, config.calibration) == (("onnx", "tensorrt"), "int8", 17)
    assert (config.license, config.step.objective, config.rehearsal) == ("MIT", "vicreg", 20)
    assert given["overwrite"] is True
    assert given["trained"] == {}, "this encoder was not trained for int8"
    assert given["encoder"].input.shape == given["samples"].spec.shape == (48, 64, 3)
    assert given["output"] == tmp_path / "robot.edgessl"
    assert "left out: tensorrt fp16: too coarse" in done.out


def test_a_failed_gate_is_exit_code_3(edgessl: Any, words: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: object, **__: object) -> ExportReport:
        raise GateError("int8 for onnx failed its gate")

    monkeypatch.setattr(writing, "export", export)
    done = edgessl(*words, "--precision", "int8")
    assert done.code == 3
    assert "int8 for onnx failed its gate" in done.talk
    assert done.out == ""


@pytest.mark.slow
def test_a_camera_and_a_license_are_in_the_manifest(
    edgessl: Any, words: list[object], checkpoint: Path, tmp_path: Path
) -> None:
    """And the bundle makes of a camera's frame what the encoder makes of the frame that Pillow shrank."""
    told = ["--input-size", "48x64", "--fit", "stretch", "--license", "Apache-2.0", "--precision", "fp32", "--json"]
    done = edgessl(*words, *told)
    assert done.code == 0, done.talk
    opened = open_bundle(tmp_path / "robot.edgessl")
    assert opened.manifest["license"] == "Apache-2.0"
    assert opened.manifest["input"]["shape"] == [48, 64, 3]
    assert opened.input.shape == (48, 64, 3)
    assert opened.manifest["preprocessing"]["resize"]
    assert opened.manifest["rejected"] == done.json["rejected"] == {}
    assert {row["file"] for row in done.json["parity"]} == {"encoder.onnx", "encoder.b1.onnx", "trunk.fp32.onnx"}
    assert set(opened.manifest["parity"]) == {row["file"] for row in done.json["parity"]} | {"step.onnx"}
    frames = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    shrunk = np.stack(
        [np.asarray(Image.fromarray(frame).resize((40, 32), Image.Resampling.BILINEAR)) for frame in frames]
    )
    with torch.no_grad():
        expected = read_checkpoint(checkpoint)[0](torch.from_numpy(shrunk)).numpy()
    with library.open(tmp_path / "robot.edgessl", precision="fp32") as encoder:
        got = encoder.embed(frames)
    np.testing.assert_allclose(got, expected, atol=1e-3)
    assert np.abs(got[1:] - expected[:-1]).max() > 1e-2, "all frames give the same vector: nothing was compared"


@pytest.mark.slow
def test_the_same_encoder_and_frames_give_the_same_bundle(
    edgessl: Any, words: list[object], bundle: Path, tmp_path: Path
) -> None:
    """Beside one that the library wrote: all but what was timed, and the page that shows it."""
    done = edgessl(*words, "--precision", "int8")
    assert done.code == 0, done.talk
    one, other = open_bundle(bundle), open_bundle(tmp_path / "robot.edgessl")
    reports = {artefact.path for artefact in one.artefacts if artefact.role == "report"}
    assert reports == {"measured.json", "report.html"}
    assert {a.path: a.sha256 for a in one.artefacts if a.path not in reports} == {
        a.path: a.sha256 for a in other.artefacts if a.path not in reports
    }
    assert one.manifest["content_sha256"] == other.manifest["content_sha256"]
    assert one.space_id == other.space_id
    assert one.manifest["parity"] == other.manifest["parity"]
    assert {"encoder.int8.onnx", "trunk.int8.onnx"} <= {artefact.path for artefact in one.artefacts}
