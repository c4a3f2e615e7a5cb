"""`edgessl build`, from the words typed to the table."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from edgessl.cli import build as command
from edgessl.cli.failures import guarded


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.delenv("EDGESSL_DEBUG", raising=False)
    monkeypatch.setenv("EDGESSL_CACHE", str(tmp_path / "engines"))
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("build")(guarded("build", command.build))
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_the_table_has_a_row_per_plan_and_says_what_is_chosen(run, orin, robot, tmp_path):
    orin._faults.wrong.add("int8")
    done = run(robot)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["role", "precision", "typing", "ok"]
    assert [line.split()[:2] for line in lines[1:5]][:2] == [["encoder", "int8"], ["encoder", "int8"]]
    assert f"is chosen; the plans are in {tmp_path / 'engines'}" in done.stdout
    assert f"edgessl embed {robot} FRAMES --engine tensorrt" in done.stdout
    assert "refused encoder int8: minimum cosine" in done.stderr or "mean cosine" in done.stderr


def test_json_says_all(run, orin, robot, tmp_path):
    done = run(robot, "--precision", "fp32", "--batch", "1,2,4", "--cache", tmp_path / "here", "--json")
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["machine"]["gpu"] == "Orin"
    assert facts["cache"] == str(tmp_path / "here")
    assert [(row["role"], row["chosen"]) for row in facts["rows"]] == [("encoder", True), ("trunk", True)]


def test_nothing_that_passes_leaves_with_3(run, orin, robot):
    orin._faults.wrong.update({"int8", "fp16", "fp32"})
    done = run(robot)
    assert done.exit_code == 3
    assert "minimum cosine" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("batch", ["", "1", "1,2", "a,b,c", "1,1,16,32", "4,2,1"])
def test_a_range_of_batches_that_is_none_leaves_with_1(run, orin, robot, batch):
    done = run(robot, "--batch", batch)
    assert done.exit_code == 1
    assert "--batch" in done.stderr


def test_the_example_parses(run, orin, robot):
    words = command.EXAMPLE.split()
    assert words[:2] == ["edgessl", "build"]
    assert run(robot, *words[3:]).exit_code == 0
