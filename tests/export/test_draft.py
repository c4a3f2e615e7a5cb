"""What is accepted stays, what is rejected goes, and what is asked for is looked for in the newest form first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgessl.bundle import Kind
from edgessl.errors import EngineError
from edgessl.export.draft import Draft, failures, judged_or_reason
from tests.export.hand_drafts import FEW, chain_net, draft_of, files_in, points_of

FILES = {"encoder.onnx": Kind("encoder", "fp32"), "trunk.fp32.onnx": Kind("trunk", "fp32")}


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    return draft_of(tmp_path, chain_net(3), points_of(FEW))


def spoil(path: Path) -> None:
    """Turn the last layer around: the vectors point the other way."""
    model = onnx.load(path)
    for entry in model.graph.initializer:
        if entry.name in ("w2", "b2"):
            entry.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(entry), entry.name))
    onnx.save(model, path)


def test_a_right_graph_is_judged_right(draft: Draft) -> None:
    rows, vectors = draft.judge(FILES, "onnxruntime")
    assert [(row.file, row.name, row.ok) for row in rows] == [
        ("encoder.onnx", "encoder fp32", True),
        ("trunk.fp32.onnx", "trunk + tail fp32", True),
    ]
    assert failures(rows) == ""
    np.testing.assert_allclose(vectors["encoder.onnx"], draft.golden.vectors, atol=1e-6)


@pytest.mark.parametrize("wrong", FILES)
def test_a_wrong_graph_is_named_with_what_it_reached(draft: Draft, wrong: str) -> None:
    spoil(draft.folder / wrong)
    rows, _, reason = judged_or_reason(draft, FILES, "onnxruntime")
    assert [row.file for row in rows if not row.ok] == [wrong]
    assert rows[list(FILES).index(wrong)].min_cosine == pytest.approx(-1, abs=1e-6)
    assert reason.startswith(f"{wrong} in onnxruntime: min_cosine -1.00000 (at least 0.9999)")
    assert ";" in reason
    assert "worst sample sample " in reason


def test_vectors_that_are_no_numbers_do_not_pass(draft: Draft) -> None:
    model = onnx.load(draft.folder / "encoder.onnx")
    for entry in model.graph.initializer:
        if entry.name == "b2":
            entry.CopyFrom(numpy_helper.from_array(np.full(16, np.nan, np.float32), "b2"))
    onnx.save(model, draft.folder / "encoder.onnx")
    rows, _, reason = judged_or_reason(draft, FILES, "onnxruntime")
    assert [row.ok for row in rows] == [False, True]
    assert "nan" in reason


def test_a_graph_that_is_refused_is_a_reason_and_no_figure(draft: Draft) -> None:
    (draft.folder / "encoder.onnx").write_bytes(b"no graph")
    rows, vectors, reason = judged_or_reason(draft, FILES, "onnxruntime")
    assert (rows, vectors) == ([], {})
    assert "cannot load" in reason
    with pytest.raises(EngineError):
        draft.judge(FILES, "onnxruntime")


def test_another_form_is_found_before_the_one_that_stays(draft: Draft) -> None:
    """Of the same role, precision and engine, and of the same path."""
    (draft.folder / ".check").mkdir()
    other = {".check/encoder.onnx": Kind("encoder", "fp32")}
    assert draft.bundle().graph("encoder") == draft.folder / "encoder.onnx"
    assert draft.bundle(other).graph("encoder") == draft.folder / ".check/encoder.onnx"
    (draft.folder / ".check/encoder.onnx").write_bytes((draft.folder / "encoder.onnx").read_bytes())
    spoil(draft.folder / ".check/encoder.onnx")
    assert not draft.judge(other, "onnxruntime")[0][0].ok
    assert draft.judge({"encoder.onnx": FILES["encoder.onnx"]}, "onnxruntime")[0][0].ok
    assert draft.bundle({"encoder.onnx": Kind("encoder", "fp16")}).precisions("encoder") == ("fp16",)
    assert draft.kinds["encoder.onnx"] == Kind("encoder", "fp32")


def test_what_is_accepted_and_then_rejected_leaves_only_its_reason(draft: Draft) -> None:
    made = {"openvino/x.xml": Kind("encoder", "int8", "openvino"), "openvino/x.bin": Kind("data", "int8", "openvino")}
    (draft.folder / "openvino").mkdir()
    (draft.folder / "openvino/x.xml").write_bytes(b"x")  # the other one was never written
    rows, vectors = draft.judge(FILES, "onnxruntime")
    draft.accept(FILES, rows, vectors)
    draft.accept(made, [], {"openvino/x.xml": vectors["encoder.onnx"]})
    assert set(draft.kinds) == {*FILES, *made, "tail.onnx"}
    draft.reject(made, "openvino int8", "too coarse")
    assert set(draft.kinds) == {*FILES, "tail.onnx"}
    assert draft.parity == rows
    assert "encoder.onnx" in draft.vectors
    assert "openvino/x.xml" not in draft.vectors
    draft.reject({"encoder.onnx": FILES["encoder.onnx"]}, "x fp32", "wrong")
    assert [row.file for row in draft.parity] == ["trunk.fp32.onnx"]
    assert "encoder.onnx" not in draft.vectors
    assert draft.rejected == {"openvino int8": "too coarse", "x fp32": "wrong"}
    assert files_in(draft.folder) == {"trunk.fp32.onnx", "tail.onnx"}
