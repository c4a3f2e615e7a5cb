"""A bundle that is not what was exported is refused, with exit code 4."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgessl
from edgessl.errors import BundleError

FILES = [
    "encoder.onnx",
    "encoder.int8.onnx",
    "trunk.fp32.onnx",
    "trunk.int8.onnx",
    "tail.onnx",
    "step.onnx",
    "tail.safetensors",
    "source.safetensors",
    "golden.safetensors",
]


def rename(bundle: Path, old: str, new: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["artefacts"][new] = manifest["artefacts"].pop(old)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def refused(bundle: Path, match: str, **options: bool) -> None:
    with pytest.raises(BundleError, match=match) as caught:
        edgessl.open(bundle, **options)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte(own, name):
    content = bytearray((own / name).read_bytes())
    content[len(content) // 2] ^= 1
    (own / name).write_bytes(content)
    refused(own, "digest")


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file(own, name):
    (own / name).unlink()
    refused(own, "lost|no bundle|there is no", verify=False)


def test_a_cut_off_file(own):
    (own / "tail.onnx").write_bytes((own / "tail.onnx").read_bytes()[:-1])
    refused(own, "bytes", verify=False)


def test_a_newer_format(own):
    manifest = json.loads((own / "manifest.json").read_text()) | {"format": 2}
    (own / "manifest.json").write_text(json.dumps(manifest))
    refused(own, "pip install -U")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "artefacts": []}'])
def test_a_manifest_that_says_nothing(own, content):
    (own / "manifest.json").write_text(content)
    refused(own, "damaged")


@pytest.mark.parametrize("path", ["../encoder.onnx", "a/../../encoder.onnx", "..\\encoder.onnx", "C:encoder.onnx", ""])
def test_a_path_that_leaves_the_bundle(own, path):
    rename(own, "encoder.onnx", path)
    refused(own, "leaves the bundle", verify=False)


def test_an_absolute_path(own):
    rename(own, "encoder.onnx", str(own / "encoder.onnx"))
    refused(own, "leaves the bundle", verify=False)


@pytest.mark.parametrize("name", ["encoder.onnx", "manifest.json"])
def test_a_link(own, tmp_path, name):
    (own / name).rename(tmp_path / name)
    (own / name).symlink_to(tmp_path / name)
    refused(own, "link|no bundle")


def test_a_folder_that_is_a_link(own, tmp_path):
    (tmp_path / "outside").mkdir()
    (own / "encoder.onnx").rename(tmp_path / "outside" / "encoder.onnx")
    (own / "graphs").symlink_to(tmp_path / "outside")
    rename(own, "encoder.onnx", "graphs/encoder.onnx")
    refused(own, "link")


def test_no_bundle_says_how_to_make_one(tmp_path):
    refused(tmp_path / "none.edgessl", "edgessl export")
