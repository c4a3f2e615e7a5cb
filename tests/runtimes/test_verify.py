"""Golden samples are replayed through every graph that embeds."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgessl.bundle import open_bundle
from edgessl.errors import BundleError
from edgessl.runtimes.verify import replay


def test_every_graph_of_every_precision_is_replayed(tiny):
    rows = replay(open_bundle(tiny), "onnxruntime")
    assert [row.name for row in rows] == ["encoder fp32", "encoder int8", "trunk + tail fp32", "trunk + tail int8"]
    assert [row.file for row in rows] == ["encoder.onnx", "encoder.int8.onnx", "trunk.fp32.onnx", "trunk.int8.onnx"]
    assert all(row.ok for row in rows)


def change_golden(bundle, vectors):
    golden = load_file(bundle / "golden.safetensors")
    save_file(golden | {"vectors": vectors(golden["vectors"])}, bundle / "golden.safetensors")
    return open_bundle(bundle, verify=False)


def test_one_wrong_vector_fails_fp32(own):
    def turned(vectors):
        vectors = vectors.copy()
        vectors[2] = -vectors[2]
        return vectors

    rows = replay(change_golden(own, turned), "onnxruntime")
    assert not rows[0].ok
    assert rows[0].min_cosine == pytest.approx(-1, abs=1e-4)


def test_nan_does_not_pass(own):
    rows = replay(change_golden(own, lambda vectors: np.full_like(vectors, np.nan)), "onnxruntime")
    assert not any(row.ok for row in rows)


def test_a_bundle_without_golden_samples_is_refused(own):
    save_file({"samples": np.zeros((1, 12, 10, 3), np.uint8)}, own / "golden.safetensors")
    manifest = (own / "manifest.json").read_text()
    size = (own / "golden.safetensors").stat().st_size
    was = open_size(manifest)
    (own / "manifest.json").write_text(manifest.replace(f'"size_bytes": {was}', f'"size_bytes": {size}'))
    with pytest.raises(BundleError, match="golden"):
        replay(open_bundle(own, verify=False), "onnxruntime")


def open_size(manifest: str) -> int:
    import json

    return int(json.loads(manifest)["artefacts"]["golden.safetensors"]["size_bytes"])
