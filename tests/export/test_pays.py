"""A precision pays where the encoder is faster than in fp32, and the trunk no slower; by a clock of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgessl.bundle import Kind
from edgessl.errors import EngineError
from edgessl.export import pays
from edgessl.export.calibrate import observe
from edgessl.export.ladder import write
from edgessl.export.placement import PLACEMENTS
from edgessl.export.quantize import quantized
from edgessl.export.targets import TARGETS
from tests.export.hand_drafts import FEW, chain_net, draft_of, graphs_of, points_of


@pytest.fixture
def made(tmp_path: Path) -> tuple[Any, dict[str, Kind]]:
    model, points = chain_net(3), points_of(30)
    draft, graphs = draft_of(tmp_path, model, points[:FEW]), graphs_of(model)
    ranges = observe(model, points)
    forms = {
        role: quantized(each, ranges, PLACEMENTS["onnxruntime"])
        for role, each in (("encoder", graphs.encoder), ("trunk", graphs.trunk))
    }
    return draft, write(draft, TARGETS["onnx"], forms, "int8")


@pytest.mark.parametrize(
    ("encoder", "trunk", "enough"),
    [(0.9, 0.9, True), (0.9, 1.02, True), (0.9, 1.04, False), (0.98, 0.5, False), (1.5, 0.5, False)],
)
def test_the_encoder_must_be_faster_and_the_trunk_no_slower(
    made: tuple[Any, dict[str, Kind]], monkeypatch: pytest.MonkeyPatch, encoder: float, trunk: float, enough: bool
) -> None:
    draft, files = made
    seconds = {
        "encoder.onnx": 0.002,
        "trunk.fp32.onnx": 0.004,
        "encoder.int8.onnx": 0.002 * encoder,
        "trunk.int8.onnx": 0.004 * trunk,
    }
    monkeypatch.setattr(pays, "interleaved", lambda runs, **_: {path: [seconds[path]] * 7 for path in runs})
    rows, paid = pays.timed(draft, files, "onnxruntime")
    assert paid == enough
    assert [(row["file"], row["role"], row["precision"], row["median_ms"], row["ratio_to_fp32"]) for row in rows] == [
        ("encoder.onnx", "encoder", "fp32", 2.0, 1.0),
        ("encoder.int8.onnx", "encoder", "int8", pytest.approx(2 * encoder), pytest.approx(encoder)),
        ("trunk.fp32.onnx", "trunk", "fp32", 4.0, 1.0),
        ("trunk.int8.onnx", "trunk", "int8", pytest.approx(4 * trunk), pytest.approx(trunk)),
    ]
    assert all((row["engine"], row["batch"]) == ("onnxruntime", 1) for row in rows)


def test_every_graph_is_run_with_one_sample_and_closed(
    made: tuple[Any, dict[str, Kind]], monkeypatch: pytest.MonkeyPatch
) -> None:
    draft, files = made
    opened = []
    real = pays.open_engine

    def opening(engine: str, graph: Path) -> Any:
        opened.append(real(engine, graph))
        return opened[-1]

    def interleaved(runs: dict[str, Any], **_: object) -> dict[str, list[float]]:
        for run in runs.values():
            (value,) = run().values()
            assert value.shape == (1, 16)
        raise InterruptedError

    monkeypatch.setattr(pays, "open_engine", opening)
    monkeypatch.setattr(pays, "interleaved", interleaved)
    with pytest.raises(InterruptedError):
        pays.timed(draft, files, "onnxruntime")
    assert len(opened) == 4
    for engine in opened:
        with pytest.raises(EngineError, match="closed"):
            engine.run({"frames": np.zeros((1, 16), np.float32)})


def test_a_real_clock_gives_times_above_zero(
    made: tuple[Any, dict[str, Kind]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pays, "_ROUNDS", 2)
    rows, _ = pays.timed(*made, "onnxruntime")
    assert len(rows) == 4
    assert all(row["median_ms"] > 0 for row in rows)


def test_the_machine_has_a_name() -> None:
    assert pays.machine().strip()
