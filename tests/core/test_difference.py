"""What differs between two bundles is found, and whether their vectors may be mixed."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgessl.bundle import Kind, open_bundle, write_manifest
from edgessl.difference import difference, flattened
from edgessl.errors import BundleError


@pytest.fixture(scope="module")
def tiny(root, tmp_path_factory) -> Path:
    write = runpy.run_path(str(root / "tests" / "runtimes" / "tiny_bundle.py"))["write_tiny_bundle"]
    return Path(write(tmp_path_factory.mktemp("difference") / "a.edgessl"))


@pytest.fixture
def pair(tiny, tmp_path) -> tuple[Path, Path]:
    """A bundle, and a copy to change."""
    return tiny, shutil.copytree(tiny, tmp_path / "b.edgessl")


def rewritten(path: Path, *, tensors: dict | None = None, **facts: object) -> None:
    """Change arrays (`file` -> function of its arrays) and facts, and write the manifest anew."""
    opened = open_bundle(path)
    for file, change in (tensors or {}).items():
        arrays = change(load_file(path / file))
        save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, path / file)
    kinds = {each.path: Kind(each.role, each.precision, each.engine, each.batch) for each in opened.artefacts}
    kept = {key: value for key, value in opened.manifest.items() if key not in ("artefacts", "sha256", "format")}
    write_manifest(path, {name: kind for name, kind in kinds.items() if (path / name).exists()}, kept | facts)


def test_a_bundle_and_its_copy_are_the_same(pair):
    found = difference(*pair)
    assert found.may_mix
    assert found.facts == found.volatile == found.artefacts == found.tensors == []
    assert found.vectors is not None
    assert found.vectors.mean_cosine == pytest.approx(1)


def test_parity_figures_stand_side_by_side(pair):
    rewritten(pair[1], parity={"encoder.onnx": {"min_cosine": 0.5, "engine": "onnxruntime"}})
    assert difference(*pair).parity == [{"what": "encoder.onnx min_cosine", "a": None, "b": 0.5}]


def test_facts_are_compared_by_their_path_and_time_is_set_apart(pair):
    rewritten(pair[1], created="2031-01-01", license="MIT", input=open_bundle(pair[0]).input.to_json() | {"units": "x"})
    found = difference(*pair)
    assert {"what": "license", "a": None, "b": "MIT"} in found.facts
    assert {"what": "input.units", "a": "RGB 0..255", "b": "x"} in found.facts
    assert [line["what"] for line in found.volatile] == ["created"]


def test_files_that_were_added_removed_and_changed(pair):
    one, two = pair
    (two / "encoder.int8.onnx").unlink()
    manifest = (one / "manifest.json").read_bytes()
    rewrite_without(two, "encoder.int8.onnx")
    rewritten(two, tensors={"tail.safetensors": lambda arrays: arrays | {"more": np.zeros(3, np.float32)}})
    found = difference(one, two)
    by_file = {line["what"]: line for line in found.artefacts}
    size = (one / "encoder.int8.onnx").stat().st_size
    assert by_file["encoder.int8.onnx"] == {
        "what": "encoder.int8.onnx",
        "role": "encoder",
        "change": "removed",
        "a": size,
        "b": None,
    }
    assert by_file["tail.safetensors"]["change"] == "changed"
    assert set(by_file) == {"encoder.int8.onnx", "tail.safetensors"}
    assert difference(two, one).artefacts[0]["change"] == "added"
    assert (one / "manifest.json").read_bytes() == manifest


def rewrite_without(path: Path, name: str) -> None:
    opened = open_bundle_unchecked(path)
    kinds = {
        file: Kind(entry["role"], entry["precision"], entry["engine"], entry["batch"])
        for file, entry in opened["artefacts"].items()
        if file != name
    }
    kept = {key: value for key, value in opened.items() if key not in ("artefacts", "sha256", "format")}
    write_manifest(path, kinds, kept)


def open_bundle_unchecked(path: Path) -> dict:
    import json

    return dict(json.loads((path / "manifest.json").read_text()))


def test_the_largest_difference_of_a_tensor(pair):
    names: list[str] = []

    def moved(arrays):
        names.append(sorted(name for name in arrays if name.startswith("weight."))[0])
        changed = arrays[names[0]].copy()
        changed.flat[1] -= 0.25
        changed.flat[0] += 0.125
        return arrays | {names[0]: changed}

    rewritten(pair[1], tensors={"tail.safetensors": moved})
    found = difference(*pair)
    assert [(line["what"], line["change"]) for line in found.tensors] == [(f"weights {names[0]}", "changed")]
    assert found.tensors[0]["max_abs"] == pytest.approx(0.25, abs=1e-6)


def test_tensors_that_came_went_and_changed_their_shape(pair):
    def change(arrays):
        kept = {name: value for name, value in arrays.items() if name != "drift.threshold"}
        return kept | {"new": np.zeros(2, np.float32), "drift.bank": arrays["drift.bank"][:-1]}

    rewritten(pair[1], tensors={"source.safetensors": change})
    lines = {line["what"]: line["change"] for line in difference(*pair).tensors}
    wanted = {"source drift.threshold": "removed", "source new": "added", "source drift.bank": "reshaped"}
    assert lines == wanted


def test_a_space_that_both_claim_and_only_one_has(pair):
    def turned(arrays):
        return arrays | {"vectors": np.roll(arrays["vectors"], 1, axis=1)}

    rewritten(pair[1], tensors={"golden.safetensors": turned})
    found = difference(*pair)
    assert not found.may_mix
    assert "not what it says" in found.mixing
    same = load_file(pair[0] / "golden.safetensors")["vectors"]
    wanted = (same * np.roll(same, 1, axis=1)).sum(1).mean()  # unit rows
    assert found.vectors is not None
    assert found.vectors.mean_cosine == pytest.approx(float(wanted), abs=1e-5)


def test_running_both_tells_what_they_compute_whatever_they_hold(pair):
    def turned(arrays):
        return arrays | {"vectors": np.roll(arrays["vectors"], 1, axis=1)}

    rewritten(pair[1], tensors={"golden.safetensors": turned})
    found = difference(*pair, run=True, threads=1)
    assert found.may_mix
    assert found.vectors is not None
    assert found.vectors.ran
    assert found.vectors.precisions == ("int8", "int8")
    assert found.vectors.min_cosine == pytest.approx(1, abs=1e-6)
    assert found.vectors.samples == len(load_file(pair[0] / "golden.safetensors")["samples"])


def test_two_spaces_do_not_mix_even_where_vectors_agree(pair):
    rewritten(pair[1], space_id="other-7")
    found = difference(*pair)
    assert not found.may_mix
    assert found.vectors is not None
    assert found.vectors.agree
    assert "only the space id promises" in found.mixing


def test_other_golden_samples_share_nothing_until_both_run(pair):
    def other(arrays):
        return arrays | {"samples": 255 - arrays["samples"]}

    rewritten(pair[1], tensors={"golden.safetensors": other})
    assert difference(*pair).vectors is None
    ran = difference(*pair, run=True, threads=1).vectors
    assert ran is not None
    assert ran.samples == 2 * len(load_file(pair[0] / "golden.safetensors")["samples"])


def test_vectors_of_another_length_have_neighbours_but_no_cosine(pair):
    def shorter(arrays):
        return arrays | {"vectors": arrays["vectors"][:, :-1]}

    source = {"embedding.mean", "embedding.var", "embedding.covariance", "anchor.vectors"}

    def without(arrays):
        return {name: value for name, value in arrays.items() if name not in source}

    tensors = {"golden.safetensors": shorter, "source.safetensors": without}
    rewritten(pair[1], tensors=tensors, dim=5, space_id="five")
    found = difference(*pair).vectors
    assert found is not None
    assert found.mean_cosine is None
    assert 0 < found.knn_overlap <= 1


def test_a_damaged_bundle_is_not_compared(pair):
    (pair[1] / "tail.onnx").write_bytes(b"x")
    with pytest.raises(BundleError):
        difference(*pair)


def test_nested_facts_are_flattened():
    assert dict(flattened({"a": {"b": 1, "c": {}}, "d": [1, {"e": 2}]})) == {"a.b": 1, "a.c": {}, "d": [1, {"e": 2}]}
