"""A precision asked for by name passes or stops everything; under auto what fails or does not pay is left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgessl.bundle import Kind
from edgessl.errors import EngineError, GateError
from edgessl.export import make, pays
from edgessl.export.calibrate import observe
from edgessl.export.config import ExportConfig
from edgessl.export.draft import Draft
from edgessl.export.make import Maker
from edgessl.export.placement import PLACEMENTS
from edgessl.export.surgery import weights_of
from edgessl.export.targets import TARGETS
from tests.export.hand_drafts import FEW, chain_net, draft_of, files_in, graphs_of, points_of

FP32 = {"encoder.onnx", "trunk.fp32.onnx", "tail.onnx"}
INT8 = {"encoder.int8.onnx", "trunk.int8.onnx"}
TYPED = {f"tensorrt/{name}" for name in INT8}
IR = {f"openvino/{role}.{precision}{end}" for role in ("encoder", "trunk") for precision in ("fp32", "int8")
      for end in (".xml", ".bin")}  # fmt: skip


def every(made: make.Maker, name: str) -> None:
    """Every precision that is wanted of a target."""
    for precision in made.config.wanted(name):
        made.make(name, precision)


def maker(folder: Path, targets: Sequence[str], precision: str, broken: Collection[int] = (), layers: int = 4) -> Maker:
    model, points = chain_net(layers, broken), points_of(60)
    ranges = observe(model, points)
    return Maker(
        draft=draft_of(folder, model, points[:FEW]),
        graphs=graphs_of(model),
        ranges=dict.fromkeys(PLACEMENTS, ranges),
        config=ExportConfig(targets=tuple(targets), precision=precision, lint_for=("tensorrt:10.3",)),
        say=lambda _: None,
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds per call by the precision in a file's name; nothing is really timed."""
    seconds = {"fp32": 1.0, "int8": 0.5, "fp16": 0.5}

    def interleaved(runs: dict[str, Any], **_: object) -> dict[str, list[float]]:
        for run in runs.values():
            run()
        return {path: [seconds[next((p for p in ("int8", "fp16") if p in path), "fp32")]] * 5 for path in runs}

    monkeypatch.setattr(pays, "interleaved", interleaved)
    return seconds


def targets_with(monkeypatch: pytest.MonkeyPatch, name: str, write: Any) -> None:
    monkeypatch.setitem(TARGETS, name, replace(TARGETS[name], write=write))


def turned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The last layer's weights the other way around: valid, and wrong."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    last = max(
        (entry for entry in copy.graph.initializer if entry.name.startswith("w") and len(entry.dims) == 2),
        key=lambda entry: entry.name,
    )
    last.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(last), last.name))
    return copy


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_what_passes_and_is_faster_stays(tmp_path: Path, precision: str) -> None:
    made = maker(tmp_path, ["onnx"], precision)
    every(made, "onnx")
    assert files_in(tmp_path) == set(made.draft.kinds) == FP32 | INT8
    assert made.draft.kinds["encoder.int8.onnx"] == Kind("encoder", "int8", "onnxruntime")
    assert {row.file for row in made.draft.parity} == INT8
    assert made.draft.rejected == {}
    assert made.draft.manifest["quantization"] == {
        "encoder.int8.onnx": {"placement": "onnxruntime", "excluded": [], "smoothed": 0}
    }
    assert [name for name, _ in made.layers["encoder.int8.onnx"]] == [f"layer.{index}/Gemm" for index in range(4)]
    ratios = {(row["file"], row["precision"]): row["ratio_to_fp32"] for row in made.measured}
    assert ratios == {
        ("encoder.onnx", "fp32"): 1.0, ("encoder.int8.onnx", "int8"): 0.5,
        ("trunk.fp32.onnx", "fp32"): 1.0, ("trunk.int8.onnx", "int8"): 0.5,
    }  # fmt: skip


@pytest.mark.usefixtures("clock")
def test_int8_by_name_that_fails_stops_the_export_and_says_what_to_type(tmp_path: Path) -> None:
    made = maker(tmp_path, ["onnx"], "int8", broken=range(4))
    with pytest.raises(GateError, match=r"int8 for onnx failed its gate: encoder\.int8\.onnx in onnxruntime") as raised:
        every(made, "onnx")
    for words in ("calibration samples", "distill --int8", "--precision auto", "the error starts at layer."):
        assert words in str(raised.value)
    assert files_in(tmp_path) == FP32


@pytest.mark.usefixtures("clock")
def test_under_auto_it_is_left_out_with_its_reason(tmp_path: Path) -> None:
    made = maker(tmp_path, ["onnx"], "auto", broken=range(4))
    every(made, "onnx")
    assert files_in(tmp_path) == set(made.draft.kinds) == FP32
    assert list(made.draft.rejected) == ["onnxruntime int8"]
    reason = made.draft.rejected["onnxruntime int8"]
    assert "mean_cosine" in reason
    assert "; the error starts at layer." in reason
    assert made.draft.parity == []
    assert made.draft.vectors == {}
    assert made.measured == [], "what fails is not timed"
    assert made.draft.manifest["quantization"]["encoder.int8.onnx"]["excluded"]
    assert made.layers["encoder.int8.onnx"]


def test_a_slower_int8_is_left_out_under_auto_and_kept_by_name(tmp_path: Path, clock: dict[str, float]) -> None:
    clock["int8"] = 1.25
    for precision, kept in (("auto", FP32), ("int8", FP32 | INT8)):
        folder = tmp_path / precision
        folder.mkdir()
        made = maker(folder, ["onnx"], precision)
        every(made, "onnx")
        assert files_in(folder) == set(made.draft.kinds) == kept, precision
        assert any(row["ratio_to_fp32"] == 1.25 for row in made.measured)
        if precision == "auto":
            told = made.draft.rejected["onnxruntime int8"]
            assert told.startswith("it does not pay on this machine")
            assert "its encoder takes 1.25 of fp32's time, its trunk takes 1.25 of fp32's time" in told
        else:
            assert made.draft.rejected == {}


def test_a_tie_does_not_pay(tmp_path: Path, clock: dict[str, float]) -> None:
    clock["int8"] = 0.99
    made = maker(tmp_path, ["onnx"], "auto")
    every(made, "onnx")
    assert "0.99 of fp32's time" in made.draft.rejected["onnxruntime int8"]


@pytest.mark.usefixtures("clock")
def test_an_engine_that_refuses_is_a_reason_without_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the numbers would have gone: it is the graph that it does not take."""

    def write(model: onnx.ModelProto, file: Path, precision: str, keep: Collection[str]) -> None:
        file.write_bytes(b"half")
        raise EngineError("it knows no Gemm")

    targets_with(monkeypatch, "onnx", write)
    made = maker(tmp_path, ["onnx"], "auto")
    every(made, "onnx")
    assert made.draft.rejected == {"onnxruntime int8": "it knows no Gemm"}
    assert files_in(tmp_path) == FP32


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("broken", [[], [2]])
def test_tensorrts_form_is_searched_for_in_a_place_that_goes_away(tmp_path: Path, broken: list[int]) -> None:
    """Beside an int8 form of onnxruntime that stays: the two are told apart."""
    made = maker(tmp_path, ["onnx", "tensorrt"], "int8", broken=broken)
    every(made, "onnx")
    kept = (tmp_path / "encoder.int8.onnx").read_bytes()
    every(made, "tensorrt")
    assert made.draft.rejected == {}
    assert files_in(tmp_path) == FP32 | INT8 | TYPED
    assert not (tmp_path / ".check").exists()
    assert (tmp_path / "encoder.int8.onnx").read_bytes() == kept
    names = [row.name for row in made.draft.parity if row.file in TYPED]
    assert names == ["encoder int8, in place of tensorrt", "trunk + tail int8, in place of tensorrt"]
    facts = made.draft.manifest["quantization"]["tensorrt/encoder.int8.onnx"]
    assert facts == {"placement": "symmetric", "excluded": [f"layer.{each}/Gemm" for each in broken], "smoothed": 0}
    model = onnx.load(tmp_path / "tensorrt/encoder.int8.onnx")
    zeros = [numpy_helper.to_array(entry) for entry in model.graph.initializer if "zero_point" in entry.name]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)


@pytest.mark.usefixtures("clock")
def test_the_file_that_is_written_is_the_one_that_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not onnxruntime's of the same precision, which is right, and not the form that was searched for."""
    honest = TARGETS["tensorrt"].write

    def write(model: onnx.ModelProto, file: Path, precision: str, keep: Collection[str]) -> None:
        honest(turned(model), file, precision, keep)

    targets_with(monkeypatch, "tensorrt", write)
    made = maker(tmp_path, ["onnx", "tensorrt"], "auto")
    every(made, "onnx")
    every(made, "tensorrt")
    assert set(made.draft.rejected) == {"tensorrt fp16", "tensorrt int8"}
    for precision in ("fp16", "int8"):
        assert f"tensorrt/encoder.{precision}.onnx in onnxruntime" in made.draft.rejected[f"tensorrt {precision}"]
    assert files_in(tmp_path) == set(made.draft.kinds) == FP32 | INT8


@pytest.mark.usefixtures("clock")
def test_a_wrong_form_in_the_search_is_seen_beside_a_right_one_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search for TensorRT writes through onnxruntime's target; its wrong file must not pass as the one accepted."""
    made = maker(tmp_path, ["onnx", "tensorrt"], "auto")
    every(made, "onnx")

    def write(model: onnx.ModelProto, file: Path, precision: str, keep: Collection[str]) -> None:
        onnx.save(turned(model), file)

    targets_with(monkeypatch, "onnx", write)
    every(made, "tensorrt")
    assert ".check/encoder.int8.onnx" in made.draft.rejected["tensorrt int8"]
    assert set(made.draft.rejected) == {"tensorrt int8"}
    assert set(made.draft.kinds) >= INT8


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Engines that a form was searched for in."""
    searched: list[str] = []
    real = make.descend

    def descend(draft: Draft, target: Any, *rest: Any) -> Any:
        searched.append(f"{target.engine} {target.placement.name}")
        return real(draft, target, *rest)

    monkeypatch.setattr(make, "descend", descend)
    return searched


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
def test_targets_of_alike_placements_share_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = counted(monkeypatch)
    made = maker(tmp_path, ["openvino", "tensorrt", "onnx"], "int8", broken=[1])
    for name in ("onnx", "openvino", "tensorrt"):
        every(made, name)
    assert searched == ["onnxruntime onnxruntime", "openvino openvino"]
    assert made.draft.rejected == {}
    assert files_in(tmp_path) == FP32 | INT8 | IR | TYPED
    facts = made.draft.manifest["quantization"]
    assert {tuple(each["excluded"]) for each in facts.values()} == {("layer.1/Gemm",)}
    found = {path: each["placement"] for path, each in facts.items()}
    assert (found["tensorrt/encoder.int8.onnx"], found["openvino/encoder.int8.xml"]) == ("symmetric", "openvino")
    assert "w1" in weights_of(onnx.load(tmp_path / "encoder.int8.onnx"))


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
def test_what_openvino_refuses_is_searched_for_again_for_tensorrt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no judgement of the form then, only of the engine."""
    searched = counted(monkeypatch)

    def refuse(model: onnx.ModelProto, file: Path, precision: str, keep: Collection[str]) -> None:
        raise EngineError("not on this machine")

    targets_with(monkeypatch, "openvino", refuse)
    made = maker(tmp_path, ["openvino", "tensorrt"], "auto")
    for name in ("openvino", "tensorrt"):
        every(made, name)
    assert searched == ["openvino openvino", "onnxruntime symmetric"]
    assert made.draft.rejected == {f"openvino {precision}": "not on this machine" for precision in ("fp32", "int8")}
    assert files_in(tmp_path) >= TYPED


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_an_engine_that_is_wrong_in_fp32_stops_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Left out, it would run the graph for every engine, and as wrongly."""
    write = TARGETS["openvino"].write
    targets_with(monkeypatch, "openvino", lambda model, *rest: write(turned(model), *rest))
    made = maker(tmp_path, ["openvino"], precision)
    with pytest.raises(GateError, match="fp32 for openvino failed its gate: openvino/encoder"):
        every(made, "openvino")


@pytest.mark.usefixtures("clock")
def test_a_file_that_tensorrt_would_not_take_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Finding:
        level, message = "error", "Gemm is not supported"

        def to_json(self) -> dict[str, str]:
            return {"message": self.message}

    monkeypatch.setattr(make, "lint", lambda model, check: [Finding()])
    made = maker(tmp_path, ["onnx", "tensorrt"], "auto")
    for name in ("onnx", "tensorrt"):
        every(made, name)
    assert set(made.draft.rejected) == {"tensorrt fp16", "tensorrt int8"}, "onnxruntime's is not linted for TensorRT"
    assert "tensorrt/encoder.fp16.onnx: Gemm is not supported" in made.draft.rejected["tensorrt fp16"]
    assert {each["file"] for each in made.findings} == TYPED | {path.replace("int8", "fp16") for path in TYPED}
    assert all(each["target"] == "tensorrt:10.3" for each in made.findings)
