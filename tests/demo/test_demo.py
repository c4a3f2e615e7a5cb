"""The demo, small: what it writes and what its device side may import. Its figures are `make demo`'s."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgessl.demo import run
from edgessl.demo.report import NAMES, hits
from edgessl.demo.run import DEVICE, DemoConfig, run_demo
from edgessl.errors import EdgeSSLError

FIELDS = {"name", "recall_revisit", "recall_night", "size_bytes", "ms_per_frame", "peak_mb"}


@pytest.mark.slow
def test_it_writes_its_report_and_its_picture(tmp_path: Path) -> None:
    config = DemoConfig(frames=266, pretrain_steps=3, distill_steps=3, batch=16)
    report = run_demo(tmp_path / "demo", config=config, progress=False)
    assert json.loads((tmp_path / "demo" / "report.json").read_text()) == report
    assert [row["name"] for row in report["rows"]] == list(NAMES)
    for row in report["rows"]:
        assert set(row) == FIELDS
        assert 0 <= row["recall_revisit"] <= 1
        assert 0 <= row["recall_night"] <= 1
        assert row["ms_per_frame"] > 0
        assert row["peak_mb"] > 10
    assert (tmp_path / "demo" / "night.png").read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [tmp_path / "demo"], "something was left beside the output"


def test_a_contender_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "laps").mkdir()
    with pytest.raises(EdgeSSLError, match=r"measuring int8 failed[\s\S]*BundleError"):
        run._measured("int8", tmp_path)


@pytest.mark.parametrize("name", sorted(DEVICE))
def test_a_device_contender_cannot_import_torch(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contender of that name that imports torch fails where it is measured; on the workstation's side it does not."""
    (tmp_path / "laps").mkdir()
    torch_user = (
        "import edgessl.demo.measure as m; m.CONTENDERS[%r] = lambda *_: {'t': float(__import__('torch').pi)}; "
    )
    monkeypatch.setattr(run, "_MEASURE", torch_user % name + run._MEASURE)
    with pytest.raises(EdgeSSLError, match=r"import of torch halted|No module named .torch."):
        run._measured(name, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(run, "_MEASURE", torch_user % "student" + run._MEASURE)
    assert float(run._measured("student", tmp_path)["t"]) == pytest.approx(np.pi)


def test_a_hit_is_a_day_frame_from_the_same_place() -> None:
    places = {"day": np.array([[0.0, 0, 0], [1, 0, 0], [100, 0, 0]]), "night": np.array([[0.4, 0, 0], [1.0, 0, 0]])}
    found = {"day": np.eye(3, dtype=np.float32), "night": np.eye(3, dtype=np.float32)[[0, 2]]}
    np.testing.assert_array_equal(hits(found, places, "night", 0.5), [True, False])
