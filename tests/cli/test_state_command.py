"""`edgessl state` and `edgessl adapt --plot`: what they print, write and refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from edgessl.runtimes.adapt.state import State
from edgessl.runtimes.adapt.store import Store


def learned(frames: int) -> State:
    values = {"learner.frames": frames, "learner.level": "ports", "learned.stream.votes": frames // 2}
    return State(tensors={"a": np.arange(frames)}, values=values | {"learned.guard.frozen": False})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Snapshots 1, 2 and 3 of 10, 20 and 30 frames."""
    opened = Store(tmp_path / "state", bundle="ab" * 32, space_id="tiny-6", name="robot.edgessl")
    for frames in (10, 20, 30):
        opened.save(learned(frames))
    opened.close()
    return opened.folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    events: list[dict[str, Any]] = [{"kind": "open", "frame": 0, "level": "ports", "snapshot": 0, "votes": 0}]
    events += [{"kind": "watch", "frame": f, "score": f / 50, "threshold": 2.0, "shifted": f > 99} for f in range(200)]
    file = tmp_path / "events.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    return file


def test_list_shows_every_snapshot_and_where_a_learner_starts(edgessl: Any, folder: Path) -> None:
    done = edgessl("state", "list", folder)
    assert done.code == 0, done.talk
    head, *rows, last = done.out.splitlines()
    assert head.split()[:2] == ["number", "written"]
    assert [row.split()[0] for row in rows] == ["3", "2", "1"]
    assert all("robot.edgessl" in row and "abababababab " in row and "whole" in row for row in rows)
    assert last.startswith("a learner starts from snapshot 3; ")


def test_list_as_json_has_the_whole_digest(edgessl: Any, folder: Path) -> None:
    found = edgessl("state", "list", folder, "--json").json
    assert (found["state"], found["starts_from"]) == (str(folder), 3)
    first = found["snapshots"][0]
    assert (first["number"], first["frames"], first["votes"], first["level"]) == (3, 30, 15, "ports")
    assert first["bundle"] == "ab" * 32


def test_list_names_the_damage(edgessl: Any, folder: Path) -> None:
    (folder / "snapshot-00000003.safetensors").write_bytes(b"half")
    done = edgessl("state", "list", folder)
    assert done.code == 0
    assert "snapshot-00000003.safetensors: " in done.out
    assert "starts from snapshot 2" in done.out


def test_list_of_a_state_that_was_reset_says_factory(edgessl: Any, folder: Path) -> None:
    assert edgessl("state", "reset", folder, "--yes").code == 0
    assert edgessl("state", "list", folder).out == "a learner starts from the factory; 0 bytes in all\n"


def test_rollback_and_forward_again(edgessl: Any, folder: Path) -> None:
    done = edgessl("state", "rollback", folder)
    assert done.code == 0, done.talk
    assert "back at snapshot 2, 20 frames, written again as 4" in done.out
    found = edgessl("state", "rollback", folder, "--to", 3, "--json").json
    assert (found["number"], found["origin"], found["frames"]) == (5, 3, 30)


def test_rollback_to_a_missing_number_is_1_and_to_a_damaged_one_4(edgessl: Any, folder: Path) -> None:
    done = edgessl("state", "rollback", folder, "--to", 8)
    assert (done.code, done.out) == (1, "")
    assert "1, 2, 3" in done.talk
    (folder / "snapshot-00000001.safetensors").write_bytes(b"half")
    done = edgessl("state", "rollback", folder, "--to", 1)
    assert done.code == 4
    assert "2, 3" in done.talk


@pytest.mark.parametrize("words", [["list"], ["rollback"], ["reset", "--yes"]])
def test_a_folder_that_a_learner_holds_is_exit_code_4(edgessl: Any, folder: Path, words: list[str]) -> None:
    holder = Store(folder, bundle="ab" * 32, space_id="tiny-6")
    done = edgessl("state", words[0], folder, *words[1:])
    holder.close()
    assert (done.code, done.out) == (4, "")
    assert "in use" in done.talk
    assert len(list(folder.glob("*.safetensors"))) == 3


def test_reset_without_anybody_to_ask_wants_yes(edgessl: Any, folder: Path) -> None:
    done = edgessl("state", "reset", folder)
    assert done.code == 1
    assert "add --yes" in done.talk
    assert len(list(folder.glob("*.safetensors"))) == 3


@pytest.mark.parametrize(("answer", "left"), [(True, 0), (False, 3)])
def test_reset_asks_where_there_is_somebody(
    edgessl: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, answer: bool, left: int
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    asked: list[str] = []
    monkeypatch.setattr("edgessl.cli.state.sys", type("System", (), {"stdin": Terminal()}))
    monkeypatch.setattr("typer.confirm", lambda question, **_: (asked.append(question), answer)[1])
    done = edgessl("state", "reset", folder)
    assert done.code == (0 if answer else 1)
    assert len(asked) == 1
    assert str(folder) in asked[0]
    assert len(list(folder.glob("*.safetensors"))) == left


def test_plot_draws_a_log(edgessl: Any, log: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.svg"
    done = edgessl("state", "plot", log, "-o", out, "--json")
    assert done.code == 0, done.talk
    assert (done.json["from"], done.json["to"]) == (0, 199)
    assert done.json["counts"] == {"open": 1, "watch": 200}
    assert ET.parse(out).getroot().tag.endswith("svg")
    assert edgessl("state", "plot", log, "-o", out).code == 1
    assert edgessl("state", "plot", log, "-o", out, "--overwrite").code == 0


@pytest.mark.parametrize(("name", "told"), [("out.png", "out.svg"), ("out", "out.svg"), ("", "give a file")])
def test_plot_refuses_what_is_no_svg(edgessl: Any, log: Path, tmp_path: Path, name: str, told: str) -> None:
    done = edgessl("state", "plot", log, "-o", tmp_path / name)
    assert done.code == 1
    assert told in done.talk


def test_plot_names_the_line_that_is_no_event(edgessl: Any, log: Path, tmp_path: Path) -> None:
    log.write_text(log.read_text() + "what?\n")
    done = edgessl("state", "plot", log, "-o", tmp_path / "out.svg")
    assert done.code == 1
    assert "line 202" in done.talk
    assert not (tmp_path / "out.svg").exists()


def test_adapt_draws_what_it_logs(edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path) -> None:
    words = ["adapt", bundle, frames_folder, "--state", tmp_path / "state", "-o", tmp_path / "out.npz"]
    done = edgessl(*words, "--log", tmp_path / "events.jsonl", "--plot", tmp_path / "a.svg", "--json")
    assert done.code == 0, done.talk
    drawn = (tmp_path / "a.svg").read_text()
    assert ET.fromstring(drawn).tag.endswith("svg")
    assert done.json["plot"] == str(tmp_path / "a.svg")
    assert edgessl("state", "plot", tmp_path / "events.jsonl", "-o", tmp_path / "b.svg").code == 0
    titled = drawn.replace(f"{bundle.name}, state", "events.jsonl")
    assert titled == (tmp_path / "b.svg").read_text()


def test_adapt_refuses_a_plot_before_any_work(edgessl: Any, tmp_path: Path) -> None:
    words = ["adapt", "no-bundle", "no-frames", "--state", "s", "-o", tmp_path / "out.npz"]
    assert "--plot" in edgessl(*words, "--plot", tmp_path / "a.png").talk
    (tmp_path / "there.svg").write_text("")
    assert "--overwrite" in edgessl(*words, "--plot", tmp_path / "there.svg").talk
    same = tmp_path / "x.svg"
    assert "both" in edgessl(*words[:-1], same, "--plot", same).talk
    assert "both" in edgessl(*words, "--log", same, "--plot", same).talk


def test_the_drawing_needs_no_heavy_package() -> None:
    code = (
        "import sys\nfor name in 'numpy PIL matplotlib torch safetensors'.split(): sys.modules[name] = None\n"
        "from edgessl.runtimes.adapt.history import history_of\nfrom edgessl.runtimes.adapt.drawing import drawn\n"
        "print(drawn(history_of([{'kind': 'open', 'frame': 3}]), title='x')[:4])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "<svg\n", done.stderr
