"""`edgessl embed` and `edgessl adapt` of a camera."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from edgessl.errors import EngineError
from edgessl.runtimes.adapt.learner import Learner
from edgessl.runtimes.encoder import Encoder

pytestmark = pytest.mark.usefixtures("camera")


@pytest.fixture
def words(bundle: Path, tmp_path: Path) -> list[Any]:
    return ["adapt", bundle, "camera:0", "--state", tmp_path / "state", "-o"]


@pytest.mark.parametrize("ending", [".npz", ".jsonl"])
def test_adaptation_to_a_camera_ends_gracefully_and_its_state_is_gone_on_with(
    edgessl: Any, words: list[Any], tmp_path: Path, ending: str
) -> None:
    done = edgessl(*words, tmp_path / f"v{ending}", "--log", tmp_path / "events")
    assert done.code == 143, done.talk
    assert "3 vectors of 7" in done.out
    assert "events: 1 open, 1 blank, 1 snapshot, given 3, dropped 4" in done.out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["events", "state", f"v{ending}"]
    done = edgessl(*words, tmp_path / "more.npz", "--count", 2, "--json", "--low-power")
    assert done.code == 0, done.talk
    assert (done.json["samples"], done.json["threads"], done.json["stream"]["reconnects"]) == (2, 1, 2)
    assert [event["frame"] for event in done.json["events"]] == [3, 5]


def test_adaptation_gives_lines_on_standard_output(edgessl: Any, words: list[Any], frames_folder: Path) -> None:
    done = edgessl(*words, "-", "--count", 2)
    assert done.code == 0, done.talk
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [list(line) for line in lines] == [["name", "stamp", "version", "age_ms", "vector"]] * 2
    words[2] = frames_folder
    done = edgessl(*words, "-", "--json")
    assert len(done.out.splitlines()) == 39
    assert '"samples": 39' in done.talk


def test_a_signal_ends_adaptation_to_a_folder_between_two_batches(
    edgessl: Any, words: list[Any], tmp_path: Path, frames_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe, seen = Learner.observe, [0]

    def observing(learner: Learner, frames: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        seen[0] += len(frames)
        return observe(learner, frames)

    words[2] = frames_folder
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "observe", observing)
        done = edgessl(*words, tmp_path / "v.npz", "--batch", 5)
    assert (done.code, seen) == (143, [5])
    assert "stopped behind 5 of" in done.talk
    assert not (tmp_path / "v.npz").exists()
    done = edgessl(*words, tmp_path / "v.npz", "--json")
    assert done.json["events"][-1]["frame"] == 5 + 39, "what the stopped one saw was in the state"


def test_an_engine_that_fails_at_a_camera_is_replaced_and_said(
    edgessl: Any, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed, asked = Encoder.embed, [0]

    def failing(encoder: Encoder, frames: Any) -> Any:
        asked[0] += 1
        if encoder.precision == "int8" and asked[0] > 1:
            raise EngineError("torn")
        return embed(encoder, frames)

    words = ["embed", bundle, "camera:0", "-o", tmp_path / "v.npz", "--precision", "int8", "--engine", "onnxruntime"]
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "embed", failing)
        patch.setattr("edgessl.runtimes.sinks.journal.Journal.finish", _interrupted)
        done = edgessl(*words)
    assert done.code == 143
    assert "engine_failed: onnxruntime int8: torn" in done.talk
    assert "fp32 embeds; the space is the same" in done.talk
    words[6] = "fp32"  # what another engine began may be gone on with
    done = edgessl(*words, "--json", "--count", 1)
    assert done.code == 0, done.talk
    assert "going on behind 3" in done.talk
    assert (done.json["samples"], done.json["health"]["state"], done.json["engine"]) == (4, "ok", "onnxruntime")


def _interrupted(journal: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)
