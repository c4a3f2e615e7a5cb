"""`edgessl state export`: a bundle that embeds as the learner did, or a clear no."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgessl.bundle import open_bundle
from edgessl.runtimes.adapt.learned import read_learned
from edgessl.runtimes.adapt.store import snapshot_files


@pytest.fixture(scope="module")
def dark(frames_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frames at a sixth of their light, many times over."""
    folder = tmp_path_factory.mktemp("dark")
    for index, file in enumerate(sorted(frames_folder.rglob("[0-9]*.png")) * 12):
        pixels = np.asarray(Image.open(file), np.float64)
        shade = pixels * 0.15 + np.random.default_rng(index).normal(0, 3, pixels.shape)
        Image.fromarray(np.clip(shade, 0, 255).astype(np.uint8)).save(folder / f"{index:04d}.png")
    return folder


@pytest.fixture
def state(edgessl: Any, bundle: Path, dark: Path, tmp_path: Path) -> Path:
    for name in "ab":
        words = ["--state", tmp_path / "state", "-o", tmp_path / f"{name}.npz", "--level", "1"]
        done = edgessl("adapt", bundle, dark, *words)
        assert done.code == 0, done.talk
    return tmp_path / "state"


def test_export_then_verify_inspect_and_embed(
    edgessl: Any, bundle: Path, state: Path, dark: Path, tmp_path: Path
) -> None:
    out = tmp_path / "adapted.edgessl"
    before = {file.name: file.read_bytes() for file in state.iterdir()}
    found = edgessl("state", "export", state, bundle, "-o", out, "--json")
    assert found.code == 0, found.talk
    assert before == {file.name: file.read_bytes() for file in state.iterdir()}
    assert found.json["space_revision"] == 1
    assert found.json["compatibility"]["before"] == 1
    assert edgessl("verify", out).code == 0
    assert edgessl("inspect", out, "--json").json["space_revision"] == 1
    assert "space_revision" in edgessl("inspect", bundle).out
    assert edgessl("embed", out, dark, "-o", tmp_path / "v.npz", "--precision", "fp32").code == 0
    with np.load(tmp_path / "v.npz") as held:
        assert held["space_revision"] == 1
        assert held["version"].dtype == np.int64
        assert not held["version"].any()
        assert held["version"].shape == held["names"].shape
    again = edgessl("state", "export", state, bundle, "-o", out)
    assert again.code == 1
    assert "--overwrite" in again.talk
    done = edgessl("adapt", out, dark, "--state", tmp_path / "new", "-o", tmp_path / "w.npz")
    assert done.code == 1
    assert "only embeds" in done.talk
    assert edgessl("state", "export", state, bundle, "-o", out, "--overwrite").code == 0


def test_a_damaged_snapshot_is_passed_over_and_named(edgessl: Any, bundle: Path, state: Path, tmp_path: Path) -> None:
    (newest, file), (older, _) = snapshot_files(state)[:2]
    file.write_bytes(file.read_bytes()[:-5])
    found = edgessl("state", "export", state, bundle, "-o", tmp_path / "out.edgessl", "--json")
    assert found.code == 0, found.talk
    assert (found.json["snapshot"], list(found.json["damaged"])) == (older, [file.name])
    assert f"{file.name} was passed over" in found.talk
    assert newest > older
    assert read_learned(open_bundle(bundle), state).snapshot == older


def test_the_state_of_another_bundle_is_exit_code_4(edgessl: Any, bundle: Path, state: Path, tmp_path: Path) -> None:
    done = edgessl("state", "export", state, bundle, "-o", tmp_path / "other.edgessl")
    assert done.code == 0, done.talk
    done = edgessl("state", "export", state, tmp_path / "other.edgessl", "-o", tmp_path / "no.edgessl")
    assert (done.code, done.out) == (4, "")
    assert "another bundle" in done.talk
    assert not (tmp_path / "no.edgessl").exists()


def test_nothing_learned_is_1(edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path) -> None:
    words = ["--state", tmp_path / "s", "-o", tmp_path / "v.npz"]
    assert edgessl("adapt", bundle, frames_folder, *words).code == 0
    done = edgessl("state", "export", tmp_path / "s", bundle, "-o", tmp_path / "no.edgessl")
    assert done.code == 1
    assert "learned nothing yet" in done.talk
    done = edgessl("state", "export", tmp_path / "s", bundle, "-o", tmp_path / "no")
    assert ".edgessl" in done.talk
    copy = shutil.copytree(bundle, tmp_path / "copy.edgessl")
    assert "bundle itself" in edgessl("state", "export", tmp_path / "s", copy, "-o", copy, "--overwrite").talk


def test_without_onnx_the_extra_is_named(
    edgessl: Any, bundle: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in ("adapted", "adapted_graphs"):
        monkeypatch.delitem(sys.modules, f"edgessl.export.{name}", raising=False)
    done = edgessl("state", "export", state, bundle, "-o", tmp_path / "out.edgessl")
    assert (done.code, done.out) == (1, "")
    assert "pip install 'edgessl[export]'" in done.talk
