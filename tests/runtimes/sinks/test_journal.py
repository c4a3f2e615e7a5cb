"""What is kept of an output that is not finished."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgessl.errors import InputError, OutputExistsError
from edgessl.runtimes.sinks import Space, writer_for
from edgessl.runtimes.sinks import journal as module
from edgessl.runtimes.sinks.journal import Journal, folder_of, unfinished

SPACE = Space(space_id="a-2", revision=0, dim=3)
KEY = {"bundle": "b", "batch": 2}


def opened(output: Path, key: dict[str, Any] = KEY, **options: Any) -> Journal:
    return Journal(output, key, SPACE, writer_for(output), **options)


def give(journal: Journal, number: int, count: int = 2) -> None:
    """The record `number`: its values are told by its number."""
    names = [f"{number}-{row}.png" for row in range(count)]
    vectors = np.full((count, 3), number, np.float32)
    journal.write(names, np.full(count, number / 4), vectors, {"done": number + 1, "version": [number] * count})


def numbers(journal: Journal) -> list[int]:
    return [int(rows.vectors[0, 0]) for rows in journal]


def test_what_was_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "v.npz"
    with opened(output) as journal:
        give(journal, 0)
        journal.write(["bad"], None, np.full((1, 3), np.nan, np.float32), {"done": 2, "skipped": [["x", "torn"]]})
    assert unfinished(output)
    with opened(output) as journal:
        assert (journal.count, journal.tally.done, journal.name_width, journal.stamped) == (3, 2, 7, True)
        assert journal.tally.counts() == {
            "samples": 3,
            "skipped": [{"name": "x", "reason": "torn"}],
            "quarantined": ["bad"],
        }
        first, second = journal
        assert (first.names, first.columns) == (["0-0.png", "0-1.png"], {"version": [0, 0]})
        assert first.stamps is not None
        assert second.stamps is None


def test_the_output_is_what_numpy_reads_and_the_journal_goes(tmp_path: Path) -> None:
    output = tmp_path / "v.npz"
    with opened(output) as journal:
        give(journal, 0)
        give(journal, 1, count=1)
        journal.finish()
    assert [file.name for file in tmp_path.iterdir()] == ["v.npz"]
    with np.load(output) as held:
        np.testing.assert_array_equal(held["vectors"], np.repeat([0, 0, 1], 3).reshape(3, 3).astype(np.float32))
        assert held["version"].tolist() == [0, 0, 1]


def test_a_record_cut_off_anywhere_is_dropped_and_those_before_it_stay(tmp_path: Path) -> None:
    output = tmp_path / "v.npz"
    rows = folder_of(output) / "rows"
    ends = []
    with opened(output) as journal:
        for number in range(3):
            give(journal, number)
            ends.append(rows.stat().st_size)
    content = rows.read_bytes()
    for kept in range(0, len(content) + 1, 5):
        rows.write_bytes(content[:kept])
        whole = sum(end <= kept for end in ends)
        with opened(output) as journal:
            assert numbers(journal) == list(range(whole))
            assert journal.tally.done == whole
            assert journal.lost_bytes == kept - (ends[whole - 1] if whole else 0)
            give(journal, 9)
        with opened(output) as journal:
            assert numbers(journal) == [*range(whole), 9]


def test_a_changed_byte_ends_what_is_believed(tmp_path: Path) -> None:
    output = tmp_path / "v.npz"
    with opened(output) as journal:
        for number in range(3):
            give(journal, number)
    rows = folder_of(output) / "rows"
    content = bytearray(rows.read_bytes())
    content[len(content) // 2] ^= 1  # in the second of three
    rows.write_bytes(content)
    with opened(output) as journal:
        assert numbers(journal) == [0]


def test_another_command_is_refused_and_told_what_differs(tmp_path: Path) -> None:
    output = tmp_path / "v.npz"
    with opened(output) as journal:
        give(journal, 0)
    with pytest.raises(InputError, match=r"batch was 2 and is 3.*--overwrite"):
        opened(output, KEY | {"batch": 3})
    with opened(output) as journal:
        assert numbers(journal) == [0], "a refusal costs nothing"
    with opened(output, KEY | {"batch": 3}, overwrite=True) as journal:
        assert numbers(journal) == []


def test_the_same_command_goes_on_with_overwrite_too(tmp_path: Path) -> None:
    output = tmp_path / "v.npz"
    output.write_text("old")
    with opened(output, overwrite=True) as journal:
        give(journal, 0)
    with opened(output, overwrite=True) as journal:
        assert numbers(journal) == [0]
        assert output.read_text() == "old", "until the new one is whole"
        journal.finish()
    with np.load(output) as held:
        assert len(held["vectors"]) == 2


def test_two_processes_on_one_output_are_refused(tmp_path: Path) -> None:
    output = tmp_path / "v.npz"
    code = (
        "import sys; from pathlib import Path; from edgessl.files import hold_folder\n"
        "held = hold_folder(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    folder_of(output).mkdir()
    words = [sys.executable, "-c", code, str(folder_of(output))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="is being written by another process"):
            opened(output)
        other.communicate("")
    opened(output).close()


def test_a_journal_without_a_row_leaves_nothing_behind(tmp_path: Path) -> None:
    opened(tmp_path / "v.npz").close()
    assert list(tmp_path.iterdir()) == []


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    output = tmp_path / "v.npz"
    folder_of(output).mkdir()
    (folder_of(output) / "mine.txt").write_text("keep")
    with opened(output) as journal:
        give(journal, 0)
        journal.finish()
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["mine.txt", "v.npz", "v.npz.embedding"]


def test_a_full_disk_keeps_what_is_whole_and_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "v.npz"
    journal = opened(output)
    give(journal, 0)

    def full(file: Any, content: bytes) -> None:
        file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_all", full)
        with pytest.raises(InputError, match=r"No space left.*2 samples are kept.*type the same command"):
            give(journal, 1)
    assert journal.tally.done == 1
    give(journal, 1)  # somebody made room
    journal.close()
    with opened(output) as journal:
        assert numbers(journal) == [0, 1]


@pytest.mark.parametrize("ending", [".npz", ".parquet", ".jsonl", ".index"])
def test_a_disk_that_is_full_when_the_output_is_put_together_keeps_the_journal(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / f"v{ending}"
    with opened(output) as journal:
        give(journal, 1)

        def full(path: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(module, "sync", full)
            with pytest.raises(InputError, match="2 samples are kept"):
                journal.finish()
        assert not output.exists()
        assert sorted(file.name for file in folder_of(output).iterdir()) == [".lock", "key.json", "rows"]
    with opened(output) as journal:
        journal.finish()
    assert output.exists()


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
import pyarrow.parquet, edgessl.runtimes.engines.onnxrt, usearch.index  # loading them writes files
from edgessl.errors import InputError
from edgessl.runtimes.sinks import Space, writer_for
from edgessl.runtimes.sinks.journal import Journal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
vectors = np.random.default_rng(0).normal(size=(2000, 64)).astype(np.float32)
for ending in (".npz", ".parquet", ".jsonl", ".index"):
    output = Path(sys.argv[1]) / f"v{ending}"
    with Journal(output, {}, Space(space_id="s", revision=0, dim=64), writer_for(output)) as journal:
        journal.write([str(row) for row in range(2000)], None, vectors, {"done": 1})
        for limit in (100_000, resource.RLIM_INFINITY):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                journal.finish()
            except InputError as error:
                print(ending, limit, output.exists(), "2000 samples are kept" in str(error))
    print(ending, output.exists())
"""


@pytest.mark.slow
def test_every_form_survives_a_file_that_may_not_grow(tmp_path: Path) -> None:
    words = [sys.executable, "-W", "error", "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    endings = (".npz", ".parquet", ".jsonl", ".index")
    assert done.stdout.splitlines() == [
        line for ending in endings for line in (f"{ending} 100000 False True", f"{ending} True")
    ]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(f"v{ending}" for ending in endings)


def test_a_read_only_disk_is_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(InputError, match=r"v.npz cannot be written: .*Read-only file system.*choose another output"):
        opened(tmp_path / "v.npz")


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user that may be refused")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match="choose another output"):
        opened(tmp_path / "v.npz")


def test_killed_between_the_output_and_the_end_of_the_journal_the_same_command_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "v.npz"
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_remove", lambda self: None)
        with opened(output) as journal:
            give(journal, 0)
            journal.finish()
    before = output.read_bytes()
    with opened(output) as journal:
        journal.finish()
    assert output.read_bytes() == before
    assert list(tmp_path.iterdir()) == [output]


def test_an_output_that_somebody_else_made_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    output = tmp_path / "v.npz"
    with opened(output) as journal:
        give(journal, 0)
        output.write_text("theirs")
        with pytest.raises(OutputExistsError):
            journal.finish()
    assert output.read_text() == "theirs"
    assert unfinished(output)


def test_the_disk_is_flushed_about_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, flushed = [0.0], []
    journal = opened(tmp_path / "v.npz", clock_s=lambda: now[0])
    monkeypatch.setattr(module.os, "fsync", lambda handle: flushed.append(now[0]))
    for tenth in range(40):
        now[0] = tenth / 10
        give(journal, tenth)
    journal.close()
    assert flushed == [1.0, 2.0, 3.0]


def test_a_key_that_cannot_be_read_is_no_licence_to_start_again(tmp_path: Path) -> None:
    output = tmp_path / "v.npz"
    with opened(output) as journal:
        give(journal, 0)
    (folder_of(output) / "key.json").write_text("{")
    with pytest.raises(InputError, match=r"remove .*v.npz.embedding to start again"):
        opened(output)


def test_the_key_says_its_format(tmp_path: Path) -> None:
    with opened(tmp_path / "v.npz") as journal:
        give(journal, 0)
    assert json.loads((folder_of(tmp_path / "v.npz") / "key.json").read_text()) == {"format": 1, **KEY}
