"""The way down from int8 ends at the first form that passes, and says why where none does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgessl.errors import EngineError, GateError
from edgessl.export import ladder
from edgessl.export.calibrate import Ranges, observe
from edgessl.export.draft import Draft
from edgessl.export.graphs import Graphs
from edgessl.export.ladder import Attempt, descend, formed, layers_of, where
from edgessl.export.placement import PLACEMENTS
from edgessl.export.quantize import quantized
from edgessl.export.surgery import weights_of
from edgessl.export.targets import TARGETS, Target
from edgessl.runtimes.verify import BOUNDS
from tests.export.hand_drafts import FEW, chain_net, draft_of, files_in, graphs_of, points_of
from tests.export.hand_graphs import attention_net, norm_net, places_of_pairs, tokens_of

ONNX = TARGETS["onnx"]
SYMMETRIC = replace(ONNX, placement=PLACEMENTS["symmetric"])
FP32 = {"encoder.onnx", "trunk.fp32.onnx", "tail.onnx"}
INT8 = {"encoder.int8.onnx", "trunk.int8.onnx"}


def prepared(folder: Path, model: onnx.ModelProto, samples: np.ndarray) -> tuple[Draft, Graphs, Ranges]:
    return draft_of(folder, model, samples[:FEW]), graphs_of(model), observe(model, samples)


def chain(folder: Path, layers: int, broken: Collection[int] = ()) -> tuple[Draft, Graphs, Ranges]:
    return prepared(folder, chain_net(layers, broken), points_of(60))


@pytest.mark.parametrize("target", [ONNX, SYMMETRIC], ids=["onnxruntime", "symmetric"])
def test_where_plain_int8_passes_nothing_else_is_tried(tmp_path: Path, target: Target) -> None:
    said: list[str] = []
    draft, graphs, ranges = chain(tmp_path, 4)
    attempt = descend(draft, target, graphs, ranges, said.append)
    assert (attempt.reason, attempt.excluded, attempt.smoothed, said) == ("", (), (), [])
    assert {row.file for row in attempt.rows} == set(attempt.files) == INT8
    assert "encoder.int8.onnx" in attempt.vectors
    assert all(row.mean_cosine > BOUNDS["int8"].mean_cosine for row in attempt.rows)
    assert attempt.facts("symmetric") == {"placement": "symmetric", "excluded": [], "smoothed": 0}


def test_its_files_lie_there_and_are_not_accepted(tmp_path: Path) -> None:
    draft, graphs, ranges = chain(tmp_path, 4)
    attempt = descend(draft, ONNX, graphs, ranges)
    assert files_in(tmp_path) == FP32 | INT8
    assert set(draft.kinds) == FP32
    assert draft.parity == []
    assert onnx.load(tmp_path / "encoder.int8.onnx") == attempt.encoder
    assert onnx.load(tmp_path / "trunk.int8.onnx") == attempt.trunk


@pytest.mark.parametrize("target", [ONNX, SYMMETRIC], ids=["onnxruntime", "symmetric"])
@pytest.mark.parametrize("broken", [0, 2, 4])
def test_the_layer_that_eight_bits_do_not_hold_goes_back_to_float(tmp_path: Path, target: Target, broken: int) -> None:
    said: list[str] = []
    draft, graphs, ranges = chain(tmp_path, 5, [broken])
    attempt = descend(draft, target, graphs, ranges, said.append)
    assert attempt.reason == ""
    assert attempt.excluded == (f"layer.{broken}/Gemm",)
    assert attempt.smoothed == ()
    assert len(said) == 1
    assert "mean_cosine" in said[0]
    assert said[0].endswith("1 of 5 layers back to float")
    for model in (attempt.encoder, attempt.trunk):
        rounded = {name for name in weights_of(model) if name.endswith("_quantized") and name.startswith("w")}
        assert rounded == {f"w{index}_quantized" for index in range(5) if index != broken}
    assert onnx.load(tmp_path / "encoder.int8.onnx") == attempt.encoder, "an earlier form is on the disk"
    assert attempt.facts("x")["excluded"] == [f"layer.{broken}/Gemm"]


def test_two_of_them_take_two_steps(tmp_path: Path) -> None:
    said: list[str] = []
    draft, graphs, ranges = chain(tmp_path, 9, [6, 3])
    attempt = descend(draft, ONNX, graphs, ranges, said.append)
    assert attempt.reason == ""
    assert attempt.excluded == ("layer.3/Gemm", "layer.6/Gemm")
    assert [text.rpartition("; ")[2].split()[0] for text in said] == ["1", "2"]


def test_where_nothing_passes_the_last_form_says_why(tmp_path: Path) -> None:
    """1, 2, 4 of nine layers, and no more than half: with more of them in float it is no int8 graph."""
    said: list[str] = []
    draft, graphs, ranges = chain(tmp_path, 9, range(9))
    attempt = descend(draft, ONNX, graphs, ranges, said.append)
    assert [text.rpartition("; ")[2] for text in said] == [f"{n} of 9 layers back to float" for n in (1, 2, 4)]
    assert len(attempt.excluded) == 4
    assert "encoder.int8.onnx in onnxruntime" in attempt.reason
    assert "at least 0.995" in attempt.reason
    assert attempt.rows
    assert set(attempt.files) == INT8
    assert draft.kinds.keys() == FP32


@pytest.mark.parametrize("target", [ONNX, SYMMETRIC], ids=["onnxruntime", "symmetric"])
def test_outliers_behind_a_norm_are_smoothed_before_anything_goes_back(tmp_path: Path, target: Target) -> None:
    said: list[str] = []
    draft, graphs, ranges = prepared(tmp_path, norm_net(outlier=80.0), tokens_of(60))
    attempt = descend(draft, target, graphs, ranges, said.append)
    assert attempt.reason == ""
    assert attempt.excluded == ()
    assert attempt.smoothed == ("a.q/MatMul", "a.k/MatMul", "b.m/MatMul")
    assert len(said) == 1
    assert said[0].endswith("smoothing 3 products")
    assert attempt.facts("symmetric") == {"placement": "symmetric", "excluded": [], "smoothed": 3}
    assert {row.name: row.ok for row in attempt.rows} == {"encoder int8": True, "trunk + tail int8": True}


def test_what_smoothing_does_not_mend_goes_back_from_the_smoothed_form(tmp_path: Path) -> None:
    """Softmax has no gain to take a division: its reader is excluded, and the outliers stay smoothed."""
    model = norm_net(outlier=80.0)
    draft, graphs, ranges = prepared(tmp_path, model, tokens_of(60))
    ranges.high["soft"] = 500.0
    attempt = descend(draft, ONNX, graphs, ranges)
    assert attempt.reason == ""
    assert attempt.excluded == ("a.o/MatMul",)
    assert len(attempt.smoothed) == 3
    assert not {"wq", "wk", "wm"} & set(weights_of(attempt.encoder))
    assert {"wo"} < set(weights_of(attempt.encoder))


def refusing(error: Exception) -> Target:
    def write(model: onnx.ModelProto, file: Path, precision: str, keep: Collection[str]) -> None:
        raise error

    return replace(ONNX, write=write)


@pytest.mark.parametrize("error", [EngineError("it knows no Gemm"), GateError("too large for fp16")])
def test_a_target_that_cannot_write_it_leaves_its_reason(tmp_path: Path, error: Exception) -> None:
    draft, graphs, ranges = chain(tmp_path, 4)
    attempt = descend(draft, refusing(error), graphs, ranges)
    assert (attempt.rows, attempt.vectors, attempt.reason) == ([], {}, str(error))
    assert set(attempt.files) == INT8, "what may lie half written must be named, to be taken away"


def test_an_engine_that_does_not_open_it_leaves_its_reason(tmp_path: Path) -> None:
    def write(model: onnx.ModelProto, file: Path, precision: str, keep: Collection[str]) -> None:
        file.write_bytes(b"no graph")

    draft, graphs, ranges = prepared(tmp_path, norm_net(outlier=80.0), tokens_of(30))
    said: list[str] = []
    attempt = descend(draft, replace(ONNX, write=write), graphs, ranges, said.append)
    assert attempt.rows == []
    assert "cannot load" in attempt.reason
    assert attempt.smoothed == (), "nothing was measured that smoothing could mend"
    assert not any("smoothing" in text for text in said)


def test_an_engine_that_refuses_one_layer_gets_it_in_float(tmp_path: Path) -> None:
    def write(model: onnx.ModelProto, file: Path, precision: str, keep: Collection[str]) -> None:
        if "w1_quantized" in weights_of(model):
            raise EngineError("no int8 there")
        onnx.save(model, file)

    draft, graphs, ranges = chain(tmp_path, 4, [1])
    attempt = descend(draft, replace(ONNX, write=write), graphs, ranges)
    assert (attempt.reason, attempt.excluded) == ("", ("layer.1/Gemm",))


def test_an_error_in_our_own_code_is_not_taken_for_a_refusal(tmp_path: Path) -> None:
    draft, graphs, ranges = chain(tmp_path, 4)
    with pytest.raises(ZeroDivisionError):
        descend(draft, refusing(ZeroDivisionError()), graphs, ranges)


@pytest.mark.parametrize("broken", [1, 3])
def test_where_the_error_starts(tmp_path: Path, broken: int) -> None:
    draft, graphs, ranges = chain(tmp_path, 5, [broken])
    attempt = ladder._tried(draft, ONNX, graphs, ranges)
    assert attempt.reason
    assert where(draft, ONNX, graphs, attempt, "int8") == f"layer.{broken}/Gemm"


def test_layers_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft, graphs, ranges = chain(tmp_path, 4, [2])
    attempt = ladder._tried(draft, ONNX, graphs, ranges)
    first = layers_of(draft, ONNX, graphs, attempt)
    assert [name for name, _ in first] == [f"layer.{index}/Gemm" for index in range(4)]
    monkeypatch.setattr(ladder, "layer_cosines", lambda *_: pytest.fail("they are known"))
    assert layers_of(draft, ONNX, graphs, attempt) is first
    assert where(draft, ONNX, graphs, attempt, "int8") == "layer.2/Gemm"


def test_an_engine_that_refuses_inner_outputs_is_stood_in_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft, graphs, ranges = chain(tmp_path, 4, [2])
    attempt = ladder._tried(draft, ONNX, graphs, ranges)
    asked: list[str] = []

    def cosines(reference: object, candidate: object, samples: np.ndarray, engine: str) -> list[tuple[str, float]]:
        asked.append(engine)
        if engine == "openvino":
            raise EngineError("no")
        return [("layer.0/Gemm", 0.5)]

    monkeypatch.setattr(ladder, "layer_cosines", cosines)
    assert layers_of(draft, TARGETS["openvino"], graphs, attempt) == [("layer.0/Gemm", 0.5)]
    assert asked == ["openvino", "onnxruntime"]


def test_without_any_figure_the_first_layer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft, graphs, ranges = chain(tmp_path, 4)

    def refuse(*_: object) -> list[tuple[str, float]]:
        raise EngineError("no")

    monkeypatch.setattr(ladder, "layer_cosines", refuse)
    empty = Attempt(encoder=graphs.encoder, trunk=graphs.trunk)
    assert layers_of(draft, ONNX, graphs, empty) == []
    assert where(draft, ONNX, graphs, empty, "int8") == "layer.0/Gemm"
    assert ranges.low


@pytest.mark.parametrize("smooth", [False, True])
def test_a_form_without_attention_leaves_the_same_layers_in_float(smooth: bool) -> None:
    model = attention_net()
    ranges = observe(model, tokens_of(30))
    graphs = graphs_of(model)
    like = Attempt(encoder=model, trunk=model, excluded=("q/MatMul",), smoothed=("a",) * smooth)
    made = formed(graphs, ranges, PLACEMENTS["symmetric"], like)
    plain, whole = (places_of_pairs(quantized(model, ranges, PLACEMENTS[name], exclude=["q/MatMul"]))
                    for name in ("symmetric", "openvino"))  # fmt: skip
    assert set(places_of_pairs(made.encoder)) == set(places_of_pairs(made.trunk)) == set(plain)
    assert set(whole) - set(plain) == {"q", "turned", "v", "soft"}
    assert (made.excluded, made.smoothed) == (like.excluded, like.smoothed)


@pytest.mark.parametrize(("scale", "steps"), [(1.0, ["1"]), (30.0, ["1", "2", "4"])])
def test_a_searched_form_holds_for_samples_that_nothing_was_chosen_by(
    tmp_path: Path, scale: float, steps: list[str]
) -> None:
    """Golden samples alone would take the first form; some of the others lie far outside of what was calibrated on."""
    said: list[str] = []
    draft, graphs, ranges = chain(tmp_path, 9, [3])
    draft.unseen = points_of(40, seed=7)
    draft.unseen[::20] *= scale
    attempt = descend(draft, ONNX, graphs, ranges, said.append)
    assert attempt.reason == ""
    assert [text.rpartition("; ")[2].split()[0] for text in said] == steps
