"""`kill -9` at any instant leaves a state that loads, and it is the newest whole one."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

INSTANTS = 8


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="there is no kill -9")
def test_killed_at_any_instant_the_newest_whole_snapshot_loads(tiny, tmp_path):
    benchmark = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "kill_adapt.py"))
    rows = benchmark["trials"](tiny, tmp_path, INSTANTS, seed=1)
    assert [row["ok"] for row in rows] == [True] * INSTANTS, rows
    assert any(row["halves"] for row in rows), "no kill came while a snapshot was being written"
