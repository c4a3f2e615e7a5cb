"""`edgessl evaluate` beyond its first table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_a_full_report_of_a_checkpoint_and_its_bundle(
    edgessl: Any, checkpoint: Path, bundle: Path, frames_folder: Path, tmp_path: Path
) -> None:
    done = edgessl("evaluate", checkpoint, bundle, frames_folder, "--full", "--seeds", 2, "-o", tmp_path / "report")
    assert done.code == 0, done.talk
    assert "a bundle's graph cannot be looked into" in done.talk
    assert "best at" in done.out
    assert "20-NN accuracy, corrupted" in done.out
    assert "above the same encoder untrained, pair by pair" in done.out
    facts = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert [row["runs"] for row in facts["rows"]] == [2, 2, 2, 2]
    assert set(facts["rows"][0]["few_labels"]) == {"1", "5", "10"}
    assert (tmp_path / "report" / "maps.png").is_file()
    assert (tmp_path / "report" / "curves.png").is_file()


def test_the_help_says_where_labels_come_from(edgessl: Any) -> None:
    assert "label=NAME" in edgessl("evaluate", "--help").out


def test_an_existing_report_is_refused_before_any_work(edgessl: Any, tmp_path: Path) -> None:
    done = edgessl("evaluate", "no-checkpoint", "no-frames", "-o", tmp_path)
    assert done.code == 1
    assert "--overwrite" in done.talk
