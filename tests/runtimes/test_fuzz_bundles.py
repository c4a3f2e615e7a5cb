"""Mutated bundles are refused cleanly: the benchmark's worker process survives every one of them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CASES = 300


@pytest.mark.slow
def test_no_mutation_crashes_hangs_or_opens_what_was_changed(root, tmp_path):
    written = tmp_path / "found.json"
    command = [sys.executable, root / "benchmarks" / "fuzz_bundles.py", "--count", str(CASES), "--seed", "7"]
    done = subprocess.run([*command, "--output", written], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert written.exists(), done.stderr[-2000:]
    found = json.loads(written.read_text())
    assert found["failed"] == []
    assert done.returncode == 0
    assert sum(sum(kind.values()) for kind in found["counts"].values()) == CASES
    assert len(found["counts"]) >= 12
    consistent = ("signed manifest values", "listed safetensors headers", "listed ONNX bytes", "listed ONNX fields")
    refused = {kind: found["counts"][kind] for kind in consistent}
    assert all("BundleError" in each or "EngineError" in each for each in refused.values()), refused
    assert any("opened" in each for each in refused.values())  # they reach the engine, and it runs them
