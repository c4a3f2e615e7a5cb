"""A bundle that is not what was exported is refused, with exit code 4."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import edgessl
from edgessl.bundle import FORMAT, Bundle, open_bundle, signed
from edgessl.errors import BundleError, EngineError
from edgessl.files import sha256_of
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.split import Tail, Trunk

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


def read(bundle: Path) -> dict:
    return json.loads((bundle / "manifest.json").read_text())


def sign(bundle: Path, manifest: dict) -> None:
    """Write a manifest as one does who knows how it is signed."""
    (bundle / "manifest.json").write_text(json.dumps(signed(manifest)))


def rename(bundle: Path, old: str, new: str) -> None:
    manifest = read(bundle)
    manifest["artefacts"][new] = manifest["artefacts"].pop(old)
    sign(bundle, manifest)


def put(facts: dict, path: str, value: object) -> None:
    *above, last = path.split("/")
    for name in above:
        facts = facts[name]
    facts[last] = value


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


def test_a_changed_byte_anywhere_in_the_manifest(own):
    whole = (own / "manifest.json").read_bytes()
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1
        (own / "manifest.json").write_bytes(content)
        refused(own, "damaged|digest|pip install -U", verify=False)


@pytest.mark.parametrize("change", [{"dim": 7}, {"space_id": "other"}, {"step": {"lr": 1.0}}, {"more": 1}])
def test_a_changed_manifest(own, change):
    (own / "manifest.json").write_text(json.dumps(read(own) | change))
    refused(own, "digest")


def test_a_manifest_without_its_digest(own):
    manifest = read(own)
    del manifest["sha256"]
    (own / "manifest.json").write_text(json.dumps(manifest))
    refused(own, "digest")


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file(own, name):
    (own / name).unlink()
    refused(own, "lost|no bundle|there is no", verify=False)


def test_a_cut_off_file(own):
    (own / "tail.onnx").write_bytes((own / "tail.onnx").read_bytes()[:-1])
    refused(own, "bytes", verify=False)


def test_a_newer_format(own):
    sign(own, read(own) | {"format": FORMAT + 1})
    refused(own, "pip install -U")


@pytest.mark.parametrize("content", ["", "[]", "{}", "1", "nul", "[" * 200_000, '{"format": 1, "a": ' + "[" * 200_000])
def test_a_manifest_that_says_nothing(own, content):
    (own / "manifest.json").write_text(content)
    refused(own, "damaged")


def test_a_manifest_nested_too_deep_to_sign(own):
    text = (own / "manifest.json").read_text().rstrip().removesuffix("}")
    for depth in (900, 990, 5000):
        (own / "manifest.json").write_text(f'{text}, "a": {"[" * depth}{"]" * depth}}}')
        refused(own, "damaged|digest")


@pytest.mark.parametrize("content", [{"format": 1}, {"format": 1, "artefacts": []}])
def test_a_signed_manifest_that_says_nothing(own, content):
    sign(own, content)
    refused(own, "damaged")


@pytest.mark.parametrize("value", [float("inf"), float("nan"), True, 0, -1, 1.5, "1", None, [1]])
def test_a_format_that_is_no_number(own, value):
    sign(own, read(own) | {"format": value})
    refused(own, "format is")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("dim", float("inf")),
        ("dim", 0),
        ("dim", "6"),
        ("dim", True),
        ("dim", 2**60),
        ("split", "x"),
        ("split/ports", "x"),
        ("split/ports", [{"channels": -1}]),
        ("split/ports", [{"channels": 2**60}]),
        ("split/latent", [float("inf")]),
        ("split/channel_axis", 4),
        ("split/folds", "x"),
        ("split/folds", {"encoder.onnx": []}),
        ("split/folds", {"encoder.onnx": "xy"}),
        ("split/folds", {"encoder.onnx": [{"weight": 7, "scale": "", "bias": "b", "steps": ""}] * 2}),
        ("split/folds", {"encoder.onnx": [{"weight": "", "scale": "", "bias": "b", "steps": ""}] * 2}),
        ("split/ports", [{"stage": 0, "channels": 3, "products": "yes"}] * 2),
        ("split/stem", "x"),
        ("split/stem", {"kernel": [3]}),
        ("split/stem/kernel", [2**60, 3]),
        ("split/stem/prepare", ["mean"]),
        ("split/stem/prepare", ["mean", "std", "smell"]),
        ("split/stem/constants", "x"),
        ("split/stem/constants/encoder.onnx/weight", ""),
        ("split/stem/constants/encoder.onnx/units", [0.0, 1.0, 1.0]),
        ("split/stem/constants/encoder.onnx/units", [float("inf"), 1.0, 1.0]),
        ("step", "x"),
        ("step/batch", -1),
        ("step/anchors", float("inf")),
        ("parity", "x"),
        ("parity", {"encoder.onnx": "x"}),
        ("provenance", "x"),
        ("input", "x"),
        ("input/dtype", "foo"),
        ("input/dtype", "U8"),
        ("input/kind", "smell"),
        ("input/shape", []),
        ("input/shape", [12, 10]),
        ("input/shape", [12, 10, float("inf")]),
        ("artefacts", "x"),
        ("artefacts/tail.onnx", "x"),
        ("artefacts/tail.onnx/size_bytes", float("inf")),
    ],
)
def test_a_signed_manifest_with_a_value_that_cannot_be(own, path, value):
    manifest = read(own)
    put(manifest, path, value)
    sign(own, manifest)
    refused(own, "damaged")


@pytest.mark.parametrize("verify", [True, False])
def test_no_artefacts_at_all(own, verify):
    sign(own, read(own) | {"artefacts": {}})
    refused(own, "encoder", verify=verify)


@pytest.mark.parametrize("role", ["encoder", "trunk", "tail", "weights", "source", "golden"])
def test_a_role_that_is_missing(own, role):
    manifest = read(own)
    manifest["artefacts"] = {name: entry for name, entry in manifest["artefacts"].items() if entry["role"] != role}
    sign(own, manifest)
    refused(own, f"has no {role}")


def test_a_role_in_no_precision_that_there_is(own):
    manifest = read(own)
    for entry in manifest["artefacts"].values():
        entry["precision"] = "fp7"
    sign(own, manifest)
    refused(own, "has no encoder, trunk, tail")


@pytest.mark.parametrize(
    "entry",
    ["embedding.mean", "embedding.var", "port1.mean", "port0.var", "latent.scale", "anchor.latents", "drift.mean"],
)
def test_a_source_without_an_entry(own, tmp_path, entry):
    source = load_file(own / "source.safetensors")
    del source[entry]
    save_file({name: np.ascontiguousarray(value) for name, value in source.items()}, own / "source.safetensors")
    manifest = read(own)
    manifest["artefacts"]["source.safetensors"] |= {
        "sha256": sha256_of(own / "source.safetensors"),
        "size_bytes": (own / "source.safetensors").stat().st_size,
    }
    sign(own, manifest)
    with edgessl.open(own) as encoder, pytest.raises(BundleError, match=entry):
        encoder.learner(tmp_path / "state", level="tail")
    assert not (tmp_path / "state").exists()


def test_a_dtype_that_numpy_does_not_have(own):
    """Such as F8_E4M3, which a header may name."""
    header = json.dumps({"samples": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (own / "golden.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    manifest = read(own)
    manifest["artefacts"]["golden.safetensors"] |= {
        "sha256": sha256_of(own / "golden.safetensors"),
        "size_bytes": (own / "golden.safetensors").stat().st_size,
    }
    sign(own, manifest)
    with pytest.raises(BundleError, match=r"golden\.safetensors cannot be read"):
        open_bundle(own, verify=False).tensors("golden", "samples")


def test_export_may_open_a_bundle_in_the_making(own):
    manifest = read(own)
    del manifest["artefacts"]["source.safetensors"], manifest["step"]
    sign(own, manifest)
    assert open_bundle(own, verify=False).precisions("trunk", "onnxruntime") == ("int8", "fp32")


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
    refused(own, "link")


def test_a_folder_that_is_a_link(own, tmp_path):
    (tmp_path / "outside").mkdir()
    (own / "encoder.onnx").rename(tmp_path / "outside" / "encoder.onnx")
    (own / "graphs").symlink_to(tmp_path / "outside")
    rename(own, "encoder.onnx", "graphs/encoder.onnx")
    refused(own, "link")


def test_no_bundle_says_how_to_make_one(tmp_path):
    refused(tmp_path / "none.edgessl", "edgessl export")


@pytest.mark.parametrize("path", ["a" * 300, "a/" * 3000 + "b"])
def test_a_path_that_no_disk_holds(own, path):
    rename(own, "encoder.onnx", path)
    refused(own, "cannot be read")


@pytest.mark.parametrize(
    ("path", "value"), [("dim", 7), ("split/latent", [7, 3, 4]), ("split/ports", [{"channels": 5}, {"channels": 8}])]
)
def test_a_graph_that_gives_other_shapes_than_the_manifest_promises(own, path, value):
    manifest = read(own)
    put(manifest, path, value)
    sign(own, manifest)
    frames = load_file(own / "golden.safetensors")["samples"]
    with pytest.raises(EngineError, match=r"export the bundle again|invalid dimensions"):
        embed_both_ways(open_bundle(own), frames)


def embed_both_ways(bundle: Bundle, frames: np.ndarray) -> None:
    """Through the whole encoder, then through its halves."""
    with Encoder(bundle, engine="onnxruntime", precision="fp32") as encoder:
        encoder.embed(frames)
    with Trunk(bundle, engine="onnxruntime", precision="fp32") as trunk, Tail(bundle, engine="onnxruntime") as tail:
        tail.run(trunk.run(frames, trunk.identity).latents)


def test_arrays_of_other_shapes_than_the_manifest_promises(own):
    golden = load_file(own / "golden.safetensors")
    save_file({"samples": golden["samples"], "vectors": golden["vectors"][:, :-1].copy()}, own / "golden.safetensors")
    bundle = open_bundle_relisted(own, "golden.safetensors")
    with pytest.raises(BundleError, match="vectors is float32"):
        bundle.tensors("golden")


def open_bundle_relisted(own: Path, name: str) -> Bundle:
    manifest = read(own)
    manifest["artefacts"][name] |= {"sha256": sha256_of(own / name), "size_bytes": (own / name).stat().st_size}
    sign(own, manifest)
    return open_bundle(own)
