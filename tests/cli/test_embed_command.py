"""`edgessl embed`: stopped at any time, typed again, and the file is what it would have been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgessl as library
from edgessl.files import hold_folder
from edgessl.runtimes.encoder import Encoder

FORMS = [".npz", ".parquet", ".jsonl", ".index"]


def content_of(path: Path) -> bytes:
    if path.is_dir():
        return b"".join(file.name.encode() + file.read_bytes() for file in sorted(path.iterdir()))
    return path.read_bytes()


class Stops:
    """Counts what is embedded, and does something to the process at a frame."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames = 0
        self.at: tuple[int, int] | None = None
        embed = Encoder.embed

        def counting(encoder: Encoder, frames: Any) -> Any:
            self.frames += len(frames)
            if self.at is not None and self.frames > self.at[0]:
                os.kill(os.getpid(), self.at[1])
            return embed(encoder, frames)

        monkeypatch.setattr(Encoder, "embed", counting)


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> Stops:
    return Stops(monkeypatch)


@pytest.mark.parametrize("ending", FORMS)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_and_typed_again_it_goes_on_and_the_output_is_the_same(
    edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path, stops: Stops, ending: str, number: int, code: int
) -> None:
    words = ["embed", bundle, frames_folder, "--batch", 5, "--json", "-o"]
    whole = edgessl(*words, tmp_path / f"whole{ending}")
    assert (whole.code, stops.frames) == (0, 39)
    stops.frames, stops.at = 0, (30, number)  # behind the sample that cannot be read
    done = edgessl(*words, tmp_path / f"v{ending}")
    assert done.code == code
    assert "stopped; 29 of 40 samples are done and kept; type the same command to go on" in done.talk
    assert not (tmp_path / f"v{ending}").exists()
    stops.frames, stops.at = 0, None
    done = edgessl(*words, tmp_path / f"v{ending}")
    assert done.code == 0, done.talk
    assert "going on behind 29 samples" in done.talk
    assert stops.frames == 39 - 29, "nothing is embedded twice"
    assert content_of(tmp_path / f"v{ending}") == content_of(tmp_path / f"whole{ending}")
    assert {**done.json, "output": ""} == {**whole.json, "output": ""}, (
        "what the first run skipped is named by the second"
    )
    assert done.json["samples"] == 39
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"v{ending}", f"whole{ending}"]


def test_another_command_does_not_go_on_with_it(
    edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path, stops: Stops
) -> None:
    words = ["embed", bundle, frames_folder, "-o", tmp_path / "v.npz"]
    stops.at = (22, signal.SIGTERM)
    assert edgessl(*words, "--batch", 5).code == 143
    stops.at = None
    for other, told in ((["--batch", 6], "batch was 5 and is 6"), (["--precision", "fp32"], "precision was 'int8'")):
        done = edgessl(*words, "--batch", 5, *other)
        assert done.code == 1
        assert told in done.talk
        assert "--overwrite" in done.talk
    stops.frames = 0
    assert edgessl(*words, "--batch", 6, "--overwrite").code == 0
    assert stops.frames == 39


def test_with_overwrite_the_old_output_stays_until_the_new_one_is_whole(
    edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path, stops: Stops
) -> None:
    output = tmp_path / "v.npz"
    output.write_text("old")
    words = ["embed", bundle, frames_folder, "-o", output, "--batch", 5]
    stops.at = (22, signal.SIGINT)
    assert edgessl(*words, "--overwrite").code == 130
    assert output.read_text() == "old"
    done = edgessl(*words)
    assert done.code == 1
    assert "exists already" in done.talk
    stops.frames, stops.at = 0, None
    assert edgessl(*words, "--overwrite").code == 0
    assert stops.frames == 19
    with np.load(output) as held:
        assert len(held["vectors"]) == 39


def test_a_second_process_on_one_output_is_refused(
    edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "v.npz.embedding").mkdir()
    held = hold_folder(tmp_path / "v.npz.embedding")
    done = edgessl("embed", bundle, frames_folder, "-o", tmp_path / "v.npz")
    assert done.code == 1
    assert "is being written by another process" in done.talk
    assert held is not None
    held.close()
    assert edgessl("embed", bundle, frames_folder, "-o", tmp_path / "v.npz").code == 0


def test_json_lines_on_standard_output_and_all_talk_beside_it(
    edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path
) -> None:
    done = edgessl("embed", bundle, frames_folder, "-o", "-", "--batch", 5)
    assert done.code == 0, done.talk
    assert edgessl("embed", bundle, frames_folder, "-o", tmp_path / "v.npz", "--batch", 5).code == 0
    lines = [json.loads(line) for line in done.out.splitlines()]
    with np.load(tmp_path / "v.npz") as held:
        assert [line["name"] for line in lines] == held["names"].tolist()
        np.testing.assert_array_equal(np.array([line["vector"] for line in lines], np.float32), held["vectors"])
    assert "39 vectors of 7" in done.talk
    assert "a/broken.png" in done.talk
    assert not Path("-").exists()


def test_an_unknown_ending_is_refused_before_any_work(edgessl: Any, tmp_path: Path) -> None:
    done = edgessl("embed", "no-bundle", "no-frames", "-o", tmp_path / "v.csv")
    assert done.code == 1
    assert ".npz, .parquet, .jsonl, .index, or -" in done.talk


def test_a_count_is_for_live_streams(edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path) -> None:
    done = edgessl("embed", bundle, frames_folder, "-o", tmp_path / "v.npz", "--count", 3)
    assert done.code == 1
    assert "leave them out" in done.talk


@pytest.mark.usefixtures("camera")
@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_a_live_stream_is_closed_gracefully_by_sigterm(edgessl: Any, bundle: Path, tmp_path: Path, ending: str) -> None:
    done = edgessl("embed", bundle, "camera:0", "-o", tmp_path / f"v{ending}")
    assert done.code == 143
    assert "camera:0 disconnected: retry_s 0.5" in done.talk
    assert "3 vectors of 7" in done.out
    assert "given 3, dropped 4, stale 1, damaged 0, reconnects 2, oldest_ms" in done.out
    assert [file.name for file in tmp_path.iterdir()] == [f"v{ending}"]


@pytest.mark.usefixtures("camera")
def test_a_live_stream_to_standard_output_says_the_age(edgessl: Any, bundle: Path) -> None:
    done = edgessl("embed", bundle, "camera:0", "-o", "-", "--count", 2)
    assert done.code == 0, done.talk
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [list(line) for line in lines] == [["name", "stamp", "age_ms", "vector"]] * 2
    assert all(line["age_ms"] >= 10 for line in lines)
    assert "reconnects 2" in done.talk


@pytest.mark.usefixtures("camera")
def test_what_a_killed_live_run_left_is_finished_without_the_camera(
    edgessl: Any, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgessl.runtimes.sinks.journal import Journal

    words = ["embed", bundle, "camera:0", "-o", tmp_path / "v.npz"]
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "finish", lambda self: os.kill(os.getpid(), signal.SIGTERM))
        done = edgessl(*words)
    assert done.code == 143
    assert "3 samples are kept" in done.talk
    monkeypatch.setattr("edgessl.sources.open_live", None)
    with (tmp_path / "v.npz.embedding" / "rows").open("ab") as rows:
        rows.write(b"rows torn")
    done = edgessl(*words, "--seconds", 0)
    assert done.code == 0, done.talk
    assert "going on behind 3 samples that are done, without one that was cut off" in done.talk
    with np.load(tmp_path / "v.npz") as held:
        assert held["names"].tolist() == [f"camera:0#{number:06d}" for number in (2, 1, 0)]
        assert held["stamp"].tolist() == [1.7e9] * 3
    done = edgessl("embed", bundle, "camera:0", "-o", tmp_path / "none.npz", "--seconds", 0)
    assert done.code == 1
    assert "gave no frame" in done.talk


PROGRAM = "from edgessl.cli.main import main; main()"


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_it_quietly(bundle: Path, frames_folder: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, "embed", str(bundle), str(frames_folder), "-o", "-", "--batch", "1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        talk = process.stderr.read().decode()
        assert process.wait() == 141
    assert "rror" not in talk


@pytest.mark.slow
def test_a_file_that_may_not_grow_is_told_and_gone_on_with(bundle: Path, frames_folder: Path, tmp_path: Path) -> None:
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
    )
    words = ["embed", str(bundle), str(frames_folder), "-o", str(tmp_path / "v.npz"), "--batch", "5"]

    def run(code: str, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)

    done = run(limit + PROGRAM, words)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "type the same command to go on" in done.stderr
    assert not (tmp_path / "v.npz").exists()
    done = run(PROGRAM, words)
    assert done.returncode == 0, done.stderr
    assert "going on behind" in done.stderr
    with np.load(tmp_path / "v.npz") as held, library.open(bundle) as encoder:
        assert held["vectors"].shape == (39, encoder.dim)
