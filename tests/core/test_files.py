from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgessl.errors import InputError, OutputExistsError
from edgessl.files import atomic_folder, refuse_existing, sha256_of, write_atomic


@settings(max_examples=20, deadline=None)
@given(content=st.binary(max_size=4096))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("file") / "x"
    write_atomic(path, content)
    assert path.read_bytes() == content
    assert sha256_of(path) == hashlib.sha256(content).hexdigest()


def test_a_large_file_has_the_digest_of_all_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4097 + b"end"  # more than one read
    (tmp_path / "x").write_bytes(content)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "run"
    with atomic_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "x").write_text("1")
        assert not target.exists()
    assert (target / "sub" / "x").read_text() == "1"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def write() -> None:
        with atomic_folder(tmp_path / "run") as folder:
            (folder / "x").write_text("1")
            raise error

    with pytest.raises(error):
        write()
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with atomic_folder(target) as folder:
        (folder / "x").write_text("old")
        (folder / "encoder.json").write_text("{}")

    def write() -> None:
        with atomic_folder(target, overwrite=True) as folder:
            (folder / "x").write_text("new")
            raise ValueError("full")

    with pytest.raises(ValueError, match="full"):
        write()
    assert (target / "x").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_overwriting_keeps_nothing_of_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "run"
    for name in ("old", "new"):
        with atomic_folder(target, overwrite=name == "new") as folder:
            (folder / name).mkdir()
            (folder / name / "x").write_text(name)
            (folder / "manifest.json").write_text(name)
    assert sorted(file.name for file in target.iterdir()) == ["manifest.json", "new"]
    assert list(tmp_path.iterdir()) == [target]


def test_overwriting_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("1")
    target.symlink_to(elsewhere)
    with atomic_folder(target, overwrite=True) as folder:
        (folder / "new").write_text("2")
    assert not target.is_symlink()
    assert (elsewhere / "precious").read_text() == "1"


def test_an_existing_output_is_refused_before_the_block_runs(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(OutputExistsError, match="--overwrite"), atomic_folder(tmp_path / "run"):
        pytest.fail("the block ran")


def test_a_dangling_link_counts_as_an_output(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExistsError):
        refuse_existing(tmp_path / "run", overwrite=False)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file"):
        refuse_existing(tmp_path / "file" / "run", overwrite=True)


def test_a_folder_that_edgessl_did_not_write_is_never_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    (precious / "chapters").mkdir(parents=True)
    (precious / "chapters" / "encoder.json").write_text("1")  # not directly inside
    with pytest.raises(InputError, match="thesis is a folder that edgessl did not write"):
        refuse_existing(precious, overwrite=True)
    with pytest.raises(InputError, match="did not write"), atomic_folder(precious, overwrite=True):
        pytest.fail("the block ran")
    assert (precious / "chapters" / "encoder.json").read_text() == "1"


def test_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with atomic_folder(tmp_path / "run", overwrite=True) as folder:
        (folder / "x").write_text("1")
    assert (tmp_path / "run" / "x").read_text() == "1"


@pytest.mark.parametrize("output", [".", "..", ""])
def test_the_folder_that_one_is_in_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    (tmp_path / "run" / "sub").mkdir(parents=True)
    for folder in (tmp_path / "run", tmp_path / "run" / "sub"):
        (folder / "encoder.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "run" / "sub")
    with pytest.raises(InputError, match="folder that you are in"):
        refuse_existing(Path(output), overwrite=True)


def test_a_file_and_a_folder_never_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_text("1")
    with pytest.raises(InputError, match="is a file, and a folder is written"):
        refuse_existing(tmp_path / "data.npz", overwrite=True)
    with pytest.raises(InputError, match=r"is a folder; give a file, such as -o .*vectors\.npz"):
        refuse_existing(tmp_path, overwrite=True, file="-o vectors.npz")
    refuse_existing(tmp_path / "data.npz", overwrite=True, file="-o vectors.npz")
