"""Writing so that a reader sees the old thing or the new thing, never half of one."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO

from edgessl.errors import InputError, OutputExistsError


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut (POSIX; does nothing elsewhere)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, flush it, then rename: `path` is always whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write into; when that is done it is flushed and renamed: `path` is always whole."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes files that only their owner reads
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def hold_folder(folder: Path, name: str = ".lock") -> IO[bytes] | None:
    """Keep other processes out until the file is closed or the process ends, however it ends (POSIX; None elsewhere).

    Raises:
        BlockingIOError: Another process holds it.
        OSError: Nothing can be written there.
    """
    if os.name != "posix":
        return None
    fcntl = import_module("fcntl")  # is not there on Windows
    path = folder / name
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise BlockingIOError(errno.EAGAIN, "its last holder removed it in this moment", str(path))
    except OSError:
        file.close()
        raise
    return file


#: What a folder that edgessl wrote holds one of: a checkpoint, a bundle, a demo, a training's state, an index.
MARKS = ("encoder.json", "manifest.json", "report.json", "state.json", "evaluation.json", "index.json")


def refuse_existing(path: Path, *, overwrite: bool, file: str = "") -> None:
    """Call before long work: fails while nothing has been computed yet.

    Args:
        path: What will be written.
        overwrite: It may be replaced: a file by a file, a folder that is empty or holds one of `MARKS` by a folder.
        file: For an output that is a file: the option and a name, as in `-o vectors.npz`. Any other is a folder.

    Raises:
        OutputExistsError: `path` exists and `overwrite` is false.
        InputError: It must not be replaced, or the parent folder cannot hold it.
    """
    if file:
        _refuse_folder(path, file)
    elif not path.is_symlink():  # only the link would go
        _refuse_precious(path)
    if (path.exists() or path.is_symlink()) and not overwrite:
        raise OutputExistsError(path)
    ancestor = path.parent
    while not ancestor.exists():
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        raise InputError(f"{ancestor} is a file, so {path} cannot be written; choose another output")


def _refuse_folder(path: Path, file: str) -> None:
    if path.is_dir():
        option, _, name = file.partition(" ")
        raise InputError(f"{path} is a folder; give a file, such as {option} {path / name}")


def _refuse_precious(path: Path) -> None:
    if path.is_file():
        raise InputError(f"{path} is a file, and a folder is written; choose another output")
    if not path.is_dir():
        return
    if Path.cwd().is_relative_to(path.resolve()):
        raise InputError(f"{path} is or holds the folder that you are in; choose another output, such as -o out")
    if any(path.iterdir()) and not any((path / mark).is_file() for mark in MARKS):
        raise InputError(
            f"{path} is a folder that edgessl did not write; --overwrite would delete it. Choose another output"
        )


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an error.

    Raises:
        OutputExistsError: `path` exists and `overwrite` is false.
        InputError: It must not be replaced; see `refuse_existing`.
    """
    path = path.absolute()
    refuse_existing(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial"))
    try:
        temporary.chmod(0o755)
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                file.chmod(0o644)  # some writers make files that only their owner reads
                _sync_file(file)
        sync_folder(temporary)
        put_in_place(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


def put_in_place(new: Path, path: Path) -> None:
    """Rename a file or folder, on the same disk; what is there goes, a file without a moment in which nothing is there."""
    if new.is_file() or not (path.exists() or path.is_symlink()):
        new.replace(path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old)
    else:
        old.unlink()


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
