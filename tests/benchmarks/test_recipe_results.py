"""The page of recipes is what the results say, and what the benchmark would train can be trained."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import recipes as benchmark
import typer
from imu import IMU
from recipe_page import PAGE, page
from recipe_settings import Settings, command, kinds_of, settings_of

from edgessl.cli.main import app
from edgessl.cli.options import parsed_settings
from edgessl.encoders import build_encoder
from edgessl.recipes import RECIPES, build_recipe
from edgessl.signals import image_spec

LINES = [(recipe, kind) for recipe in RECIPES for kind in kinds_of(recipe)]


def test_the_page_is_what_the_results_say() -> None:
    assert page() == PAGE.read_text(), "type: python benchmarks/recipes.py --page"


def test_every_recipe_has_its_row_its_paper_and_its_commands() -> None:
    text = page()
    for recipe, kind in LINES:
        section = text.partition(f"\n### {recipe}\n")[2].partition("\n### ")[0]
        assert command(recipe, settings_of(recipe, kind)) in section
        assert f"| [{recipe}](#{recipe}) | {settings_of(recipe, kind).encoder} |" in text


@pytest.mark.parametrize(("recipe", "kind"), LINES, ids="-".join)
def test_the_command_parses_and_what_the_benchmark_trains_can_be_built(recipe: str, kind: str) -> None:
    settings = settings_of(recipe, kind)
    words = shlex.split(command(recipe, settings))
    group: Any = typer.main.get_command(app)
    given = group.commands[words[1]].make_context(words[1], words[2:]).params
    assert (given["recipe"], given["encoder"], given["steps"]) == (recipe, settings.encoder, settings.steps)
    assert (given["batch"], given["lr"]) == (settings.batch, settings.lr)
    options = parsed_settings(given["settings"])
    assert options.pop("encoder", {}) == settings.encoder_options
    assert options == settings.recipe_options
    spec = image_spec(32, 32) if kind == "image" else IMU
    build_recipe(recipe, build_encoder(settings.encoder, spec, **settings.encoder_options), **settings.recipe_options)


def _row(untrained: float, trained: float) -> dict[str, Any]:
    return {"untrained": {"linear": untrained}, "trained": {"linear": trained}, "seconds": 3.0}


def test_rows_are_kept_one_by_one_until_the_settings_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "RESULTS", tmp_path)
    tasks = [benchmark.Task("simclr", "image", seed, False) for seed in (1, 0)]
    control = benchmark.Task("simclr", "image", 0, True)
    assert not any(benchmark.is_done(task, 100) for task in [*tasks, control])
    benchmark.keep(tasks[0], _row(0.3, 0.5), 100)
    benchmark.keep(tasks[1], _row(0.3, 0.44), 100)
    told = benchmark.keep(control, {"control": {"linear": 0.31}, "seconds": 1.0}, 100)
    assert told == "gain 0.17, gain_sd 0.0424, control_gain 0.01"
    assert all(benchmark.is_done(task, 100) for task in [*tasks, control])
    found = benchmark._read("simclr")["kinds"]["image"]
    assert [*found["rows"]] == ["0", "1"]
    assert found["summary"]["passes"]
    assert not benchmark.is_done(tasks[0], 200)  # other training images
    monkeypatch.setattr(benchmark, "resolved", lambda *_: Settings(steps=7, encoder="conv_small").to_json())
    assert not benchmark.is_done(tasks[0], 100)
    benchmark.keep(tasks[0], _row(0.3, 0.5), 100)
    found = benchmark._read("simclr")["kinds"]["image"]
    assert [*found["rows"]] == ["1"]
    assert found["summary"]["reasons"] == ["the negative control was not run"]
    assert not found["summary"]["passes"]


def test_a_stopped_benchmark_trains_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    done: list[str] = []

    def measured(task: benchmark.Task, data: str, train: int) -> str:
        done.append(task.told)
        benchmark.keep(task, {"control": {"linear": 0.3}, "seconds": 1.0} if task.control else _row(0.3, 0.5), train)
        return ""

    monkeypatch.setattr(benchmark, "RESULTS", tmp_path)
    monkeypatch.setattr(benchmark, "measure", measured)
    line = ["recipes.py", "data", "--only", "byol", "--kind", "image"]
    for seeds in (["0"], ["0", "1"]):
        monkeypatch.setattr("sys.argv", [*line, "--seeds", *seeds])
        benchmark.main()
    assert done == ["byol image seed 0", "byol image seed 0 control", "byol image seed 1"]
    monkeypatch.setattr("sys.argv", [*line, "--seeds", "0", "--controls", "--again"])
    benchmark.main()
    assert done[3:] == ["byol image seed 0", "byol image seed 0 control"]
    assert "1 trainings to do, 2 are there" in capsys.readouterr().out
