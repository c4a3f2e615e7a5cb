"""A training that tells samples apart goes on; one that no longer does stops, says why, and loses nothing."""

from __future__ import annotations

import csv
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgessl.checkpoint import read_checkpoint
from edgessl.collapse import PATIENCE, CollapseGuard, Figures, evaluating, figures
from edgessl.encoders import build_encoder
from edgessl.errors import CollapseError, GateError
from edgessl.loop import Plan
from edgessl.metrics import rankme
from edgessl.recipes import Defaults, Recipe, Terms, Views, build_recipe
from edgessl.signals import image_spec
from edgessl.sources.arrays import ArraySource
from edgessl.trainer import Run, seeded, train

SPEC = image_spec(16, 24)


class Attraction(Recipe):
    """All vectors are drawn to one: nothing but collapse lowers this loss."""

    defaults = Defaults(lr=3e-2, weight_decay=0.0, batch=12)

    def forward(self, batch: Views) -> Terms:
        vectors = functional.normalize(self.encoder.features(batch.views[0]))
        return {"attraction": 1 - (vectors @ vectors.mT).mean()}


def _coloured(count: int = 60) -> ArraySource:
    """Blobs of all colours: even an untrained encoder tells them apart."""
    rng = np.random.default_rng(2)
    coarse = rng.integers(0, 256, (count, 4, 3, 3), dtype=np.uint8)
    array = np.ascontiguousarray(coarse.repeat(4, 1).repeat(8, 2))
    return ArraySource("blobs", array, SPEC, [f"{index:02d}" for index in range(count)])


def _train(output: Path, recipe: str = "", **run: Any) -> dict[str, Any]:
    settings = {"steps": 60, "batch": 12, "seed": 1, "save_every": 7, "log_every": 2, "progress": False} | run
    with seeded(1):
        encoder = build_encoder("conv_small", SPEC, widths=(6, 9), dim=7)
        built = build_recipe(recipe, encoder) if recipe else Attraction(encoder, None)
    return train(built, _coloured(), output=output, run=Run(**settings), facts={})


def _rows(folder: Path) -> list[dict[str, str]]:
    texts = [file.read_text().splitlines() for file in sorted(folder.glob("log/*/metrics.csv"))]
    return [row for lines in texts for row in csv.DictReader(lines) if row["spread"]]


def test_figures_are_those_of_the_formulas() -> None:
    features = torch.randn(31, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    units = features.double().numpy()
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    distance = np.linalg.norm(units[:, None] - units[None], axis=2)[np.triu_indices(31, 1)]
    seen = figures(features)
    assert seen.spread == pytest.approx(units.std(0).mean() * np.sqrt(6))
    assert seen.rank == pytest.approx(rankme(units))
    assert seen.uniformity == pytest.approx(np.log(np.exp(-2 * distance**2).mean()))


def test_the_figures_at_their_ends() -> None:
    sphere = figures(torch.randn(4000, 16, generator=torch.Generator().manual_seed(0)))
    point = figures(torch.ones(20, 16) * torch.linspace(1, 5, 20)[:, None])
    line = figures(torch.ones(20, 16) * torch.linspace(-1, 1, 20)[:, None])
    assert sphere.spread == pytest.approx(1, abs=0.01)
    assert sphere.rank == pytest.approx(16, abs=0.1)
    assert (point.spread, point.uniformity) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))
    assert line.rank == point.rank == pytest.approx(1, abs=1e-3)
    assert line.spread > 0.9


def test_features_that_are_not_finite_have_no_figures() -> None:
    features = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    features[3, 2] = torch.nan
    assert not figures(features).finite  # the loss says it better


def test_a_training_that_collapses_stops_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(CollapseError) as stopped:
        _train(tmp_path / "out")
    message = str(stopped.value)
    for part in (
        "spread",
        "effective rank",
        "under 0.02",
        "under 1.05",
        "lower --lr than 0.03",
        "--resume --no-guard",
        "--overwrite",
    ):
        assert part in message
    assert isinstance(stopped.value, GateError)
    assert stopped.value.exit_code == 3
    assert not (tmp_path / "out").exists()
    rows = _rows(tmp_path / "out.training")
    assert float(rows[-1]["spread"]) < 0.02 < float(rows[0]["spread"])


@pytest.mark.slow
def test_a_collapsed_training_can_go_on_where_it_stood(tmp_path: Path) -> None:
    whole = _train(tmp_path / "whole", guard=False)
    with pytest.raises(CollapseError):
        _train(tmp_path / "out")
    with pytest.raises(CollapseError):
        _train(tmp_path / "out", resume=True)
    facts = _train(tmp_path / "out", resume=True, guard=False)
    assert facts["loss"] == whole["loss"]
    assert facts["figures"] == whole["figures"]
    assert facts["figures"]["spread"] < 0.02
    assert _rows(tmp_path / "out")[-1]["spread"] == _rows(tmp_path / "whole")[-1]["spread"]


@pytest.mark.parametrize("recipe", ["simclr", "vicreg", "byol"])
def test_healthy_trainings_go_through(tmp_path: Path, recipe: str) -> None:
    facts = _train(tmp_path / "out", recipe, steps=20, log_every=1)
    assert facts["figures"]["spread"] > 0.1
    assert read_checkpoint(tmp_path / "out")[1]["figures"] == facts["figures"]


def test_looking_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _train(tmp_path / "seen", "byol", steps=5, log_every=1)
    monkeypatch.setattr(CollapseGuard, "on_train_batch_start", lambda *_: None)
    _train(tmp_path / "unseen", "byol", steps=5, log_every=1)
    a, b = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in ("seen", "unseen"))
    assert a == b


def test_every_part_gets_its_own_mode_back() -> None:
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3)).train()
    module[1].eval()
    with evaluating(module):
        assert not any(part.training for part in module)
    assert [part.training for part in (module, *module)] == [True, True, False]


def _guard(stop: bool = True) -> CollapseGuard:
    numbers: dict[str, Any] = {"steps": 1000, "batch": 8, "weight_decay": 0, "seed": 0, "save_every": 50}
    return CollapseGuard(Plan(lr=1e-3, warmup=100, precision="32-true", **numbers), log_every=10, stop=stop)


def _seen(spread: float, rank: float = 4.0) -> Figures:
    return Figures(spread=spread, rank=rank, uniformity=-0.1)


def _judged(guard: CollapseGuard, seen: list[Figures], start: int = 100) -> int:
    """Checks until it stops; all where it does not."""
    places = iter(range(len(seen)))
    with suppress(CollapseError):
        for place in places:
            guard.judge(start + place, seen[place])
    return len(seen) - len(list(places))


@pytest.mark.parametrize(
    ("first", "later", "bad"),
    [
        (_seen(0.4), _seen(0.01), True),
        (_seen(0.4), _seen(0.03), False),
        (_seen(0.03), _seen(0.012), False),  # little, but not much less than untrained
        (_seen(0.03), _seen(0.005), True),
        (_seen(0.4, 6.0), _seen(0.9, 1.01), True),  # a line
        (_seen(0.001, 1.01), _seen(0.001, 1.01), False),  # samples that are all alike
    ],
)
def test_the_rule(first: Figures, later: Figures, bad: bool) -> None:
    guard = _guard()
    guard.judge(0, first)
    assert _judged(guard, [later] * 9) == (PATIENCE if bad else 9)


def test_patience_and_warmup() -> None:
    good, bad = _seen(0.4), _seen(0.001)
    guard = _guard()
    guard.judge(0, good)
    assert _judged(guard, [bad] * 50, start=20) == 50
    assert _judged(guard, [bad, bad, good] * 5, start=200) == 15
    assert _judged(_guard(stop=False), [good, *[bad] * 9]) == 10


def test_patience_survives_a_stop() -> None:
    first, second = _guard(), _guard()
    for step, seen in ((0, _seen(0.4)), (100, _seen(0.001)), (110, _seen(0.001))):
        first.judge(step, seen)
    second.load_state_dict(first.state_dict())
    with pytest.raises(CollapseError, match="at step 120"):
        second.judge(120, _seen(0.001))


@pytest.mark.slow
def test_it_looks_about_fifty_times(tmp_path: Path) -> None:
    _train(tmp_path / "out", "simclr", steps=101, log_every=1, save_every=101, guard=False)
    assert [int(row["step"]) for row in _rows(tmp_path / "out")] == [*range(0, 101, 3), 100]
