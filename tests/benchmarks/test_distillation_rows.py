"""What the benchmark of distillation claims follows from its rows."""

from __future__ import annotations

import json
from typing import Any

import distillation as benchmark
import pytest


def _rows(distilled: tuple[float, ...], parameters: int = 20) -> dict[str, Any]:
    alone = {str(seed): {"knn": 0.4, "parameters": parameters} for seed in range(len(distilled))}
    students = {str(seed): {"knn": knn, "parameters": parameters} for seed, knn in enumerate(distilled)}
    return {"teacher": {"0": {"knn": 0.5, "parameters": 100}}, "alone": alone, "distilled": students}


def test_three_good_seeds_hold() -> None:
    found = benchmark.summary(_rows((0.48, 0.49, 0.5)))
    assert found["holds"]
    assert found["kept"] == pytest.approx(0.98)
    assert found["better_than_alone"] == {"0": 0.08, "1": 0.09, "2": 0.1}


@pytest.mark.parametrize(
    "rows",
    [
        _rows((0.5, 0.5)),  # too few seeds
        _rows((0.48, 0.48, 0.49)),  # too little kept
        _rows((0.5, 0.5, 0.5), parameters=21),  # too large
        _rows((0.6, 0.6, 0.39)),  # one seed worse than alone
        {**_rows((0.5, 0.5, 0.5)), "alone": {}},
        {},
    ],
)
def test_what_misses_a_part_of_the_claim_does_not(rows: dict[str, Any]) -> None:
    assert not benchmark.summary(rows)["holds"]


def test_the_result_is_of_the_settings_of_today() -> None:
    result = json.loads(benchmark.RESULT.read_text())
    rows = result["rows"]
    assert all(
        row["settings"] == benchmark.settings(group, name) for group in rows for name, row in rows[group].items()
    )
    assert {key: result[key] for key in benchmark.summary(rows)} == benchmark.summary(rows)
