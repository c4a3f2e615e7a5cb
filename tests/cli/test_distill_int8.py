"""`edgessl distill --int8` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgessl.checkpoint import read_ranges


@pytest.mark.slow
def test_a_student_goes_on_from_itself_with_its_values_rounded(
    edgessl: Any, checkpoint: Path, frames_folder: Path, tmp_path: Path
) -> None:
    words = ("--encoder", "same", "--int8", "--steps", 2, "--accelerator", "cpu", "-o", tmp_path / "rounded")
    done = edgessl("distill", checkpoint, frames_folder, *words, "--json")
    assert done.code == 0, done.talk
    assert done.json["quantization"] == {"placement": "onnxruntime"}
    assert done.json["architecture"]["name"] == "conv_small"
    assert done.json["start"]["path"] == str(checkpoint)
    assert "input.stages.0.0" in read_ranges(tmp_path / "rounded")
    kept = json.loads((tmp_path / "rounded" / "encoder.json").read_text())["quantization"]
    assert kept["file"] == "quantization.safetensors"


def test_a_student_that_is_none_yet_is_told_to_train_first(
    edgessl: Any, checkpoint: Path, frames_folder: Path, tmp_path: Path
) -> None:
    words = ("distill", checkpoint, frames_folder, "--encoder", "vit_micro", "-o", tmp_path / "x")
    done = edgessl(*words, "--int8")
    assert done.code != 0
    assert "--init FLOAT_STUDENT --int8" in " ".join(done.talk.split())
    done = edgessl(*words, "--placement", "symmetric")
    assert done.code != 0
    assert "add --int8" in " ".join(done.talk.split())


def test_a_placement_that_does_not_exist_is_named(
    edgessl: Any, checkpoint: Path, frames_folder: Path, tmp_path: Path
) -> None:
    words = ("--encoder", "same", "--int8", "--placement", "gpu", "-o", tmp_path / "x")
    done = edgessl("distill", checkpoint, frames_folder, *words)
    assert done.code != 0
    assert "auto, onnxruntime, symmetric" in " ".join(done.talk.split())


def test_the_checkpoint_to_begin_with_can_be_another_than_the_teacher(
    edgessl: Any, checkpoint: Path, frames_folder: Path, tmp_path: Path
) -> None:
    words = ("--encoder", "same", "--init", checkpoint, "--int8", "--placement", "symmetric", "--steps", 1)
    done = edgessl("distill", checkpoint, frames_folder, *words, "-o", tmp_path / "x", "--json")
    assert done.code == 0, done.talk
    assert done.json["quantization"] == {"placement": "symmetric"}
    assert not any(name.startswith("output.") for name in read_ranges(tmp_path / "x"))
