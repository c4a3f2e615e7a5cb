"""`edgessl lint` on files and bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper
from typer.testing import CliRunner

from edgessl.cli import lint
from edgessl.cli.failures import guarded


def call(*words: object) -> Any:
    app = typer.Typer()
    app.command("lint")(guarded("lint", lint.lint))
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    return written(tmp_path / "relu.onnx", "Relu")


def written(path: Path, op: str, opset: int = 20) -> Path:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], name="it")], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def test_a_clean_graph_says_how_much_was_checked(relu: Path) -> None:
    done = call(relu, "--for", "tensorrt:10.3", "--for", "onnxruntime:1.20")
    assert done.exit_code == 0
    assert "relu.onnx for tensorrt:10.3: clean: 1 nodes, 26 rules" in done.stdout
    assert "relu.onnx for onnxruntime:1.20: clean: 1 nodes, 8 rules" in done.stdout


def test_an_error_names_the_node_and_exits_3(tmp_path: Path) -> None:
    path = written(tmp_path / "hann.onnx", "Det", opset=21)
    done = call(path, "--for", "jetpack:6.2")
    assert done.exit_code == 3
    assert "2 errors, 0 warnings" in done.stdout
    assert "Det is not supported" in done.stdout
    assert "9 to 20" in done.stdout
    assert "hann.onnx for jetpack:6.2 (2)" in done.stderr


def test_json_has_every_finding(tmp_path: Path, relu: Path) -> None:
    import json

    done = call(written(tmp_path / "det.onnx", "Det"), "--for", "tensorrt:11.1", "--for", "openvino", "--json")
    first, second = json.loads(done.stdout)
    assert (first["file"], first["for"], first["errors"], first["nodes"]) == ("det.onnx", "tensorrt:11.1", 1, 1)
    assert first["findings"] == [
        {
            "rule": "operator", "level": "error", "tensor": "", "node": "it", "operator": "Det",
            "message": "Det is not supported; write it with other operators",
        }
    ]  # fmt: skip
    assert second["findings"] == []
    assert done.exit_code == 3


def test_a_warning_alone_is_no_failure(relu: Path) -> None:
    done = call(relu, "--for", "tensorrt:99.0")
    assert done.exit_code == 0
    assert "0 errors, 1 warning: 1 nodes" in done.stdout


@pytest.mark.parametrize(
    ("target", "word"),
    [("npu:1", "no target 'npu:1'"), ("tensorrt", "Choose one of"), ("tensorrt:8.6", "tensorrt:10.0")],
)
def test_a_target_that_is_not_known_is_named(relu: Path, target: str, word: str) -> None:
    done = call(relu, "--for", target)
    assert done.exit_code == 1
    assert word in done.stderr


def test_no_file_and_no_graph_are_clear_errors(tmp_path: Path) -> None:
    assert "there is no file" in call(tmp_path / "none.onnx", "--for", "openvino").stderr
    (tmp_path / "bad.onnx").write_bytes(np.random.default_rng(0).bytes(99))
    done = call(tmp_path / "bad.onnx", "--for", "openvino")
    assert done.exit_code == 1
    assert "bad.onnx" in done.stderr


def test_a_bundle_is_judged_by_its_graphs(bundle: Path) -> None:
    import json

    done = call(bundle, "--for", "onnxruntime:1.20", "--json")
    files = {row["file"] for row in json.loads(done.stdout)}
    assert {"encoder.onnx", "tail.onnx", "step.onnx"} <= files
    assert done.exit_code == 0
    done = call(bundle, "--for", "tensorrt:10.3", "--json")
    judged = {row["file"]: row for row in json.loads(done.stdout)}
    assert not [name for name in judged if "int8" in name]  # that one is onnxruntime's
    assert judged["tail.onnx"]["errors"] == judged["step.onnx"]["errors"] == 0
