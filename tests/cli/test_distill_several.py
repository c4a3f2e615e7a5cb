"""`edgessl distill` with more than one teacher, and with what they said kept on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_a_second_teacher_and_a_cache(edgessl: Any, checkpoint: Path, frames_folder: Path, tmp_path: Path) -> None:
    words = ("--encoder", "conv_small", "--set", "encoder.dim=5", "--set", "clean=true", "--steps", 2, "--batch", 8)
    more = ("--teacher", checkpoint, "--cache", tmp_path / "said", "--accelerator", "cpu", "--json")
    done = edgessl("distill", checkpoint, frames_folder, *words, *more, "-o", tmp_path / "student")
    assert done.code == 0, done.talk
    assert [each["path"] for each in done.json["more_teachers"]] == [str(checkpoint)]
    assert len(list((tmp_path / "said").iterdir())) == 1  # the same teacher twice


def test_a_cache_of_random_views_is_refused(
    edgessl: Any, checkpoint: Path, frames_folder: Path, tmp_path: Path
) -> None:
    words = ("--encoder", "conv_small", "--cache", tmp_path / "said", "-o", tmp_path / "student")
    done = edgessl("distill", checkpoint, frames_folder, *words)
    assert done.code == 1
    assert "--set clean=true" in " ".join(done.talk.split())
