"""Snapshots of what was learned, on disk: a power cut or `kill -9` at any instant leaves one that loads.

A snapshot is one safetensors file `snapshot-NUMBER.safetensors`. It is written beside its name, flushed and renamed,
and carries the SHA-256 of its own content, so that a reader can tell a whole one without trusting the file system. The
newest few are kept; when none is whole, the learner starts from the factory's state.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import edgessl
from edgessl.errors import InputError, StateError
from edgessl.files import sync_folder, write_atomic
from edgessl.runtimes.adapt.state import State

FORMAT = 1
RING = 4  # snapshots kept: the newest, and three to fall back to
_NAME = re.compile(r"snapshot-(\d{8})\.safetensors")
_LOCK = ".lock"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What `Store.load` found.

    Attributes:
        number: Of the snapshot; 0 is the factory.
        state: Its content; `None` for the factory.
        damaged: Files that were skipped, with the reason.
    """

    number: int
    state: State | None
    damaged: dict[str, str] = field(default_factory=dict)


class Store:
    """The folder with the snapshots of one learner. Only one process may hold it.

    Args:
        folder: Made when it is not there.
        bundle: Digest that names the bundle; a state of another one is refused.
        space_id: Of the bundle.

    Raises:
        StateError: Another process holds the folder.
        InputError: The folder cannot be made, or nothing can be written there.
    """

    def __init__(self, folder: Path, *, bundle: str, space_id: str) -> None:
        self.folder = folder
        self._identity = {"bundle": bundle, "space_id": space_id}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot hold a state: {error}; choose another folder") from error
        self._lock = _lock(folder)
        try:
            for left in folder.glob(".snapshot-*.partial"):  # of a writer that was killed
                left.unlink(missing_ok=True)
            self.next_number = max((number for number, _ in self._files()), default=0) + 1
        except BaseException:
            self.close()
            raise

    def save(self, state: State) -> int:
        """Write a snapshot and return its number. When this returns, it survives a power cut."""
        number = self.next_number
        values = {
            "format": FORMAT,
            "edgessl": edgessl.__version__,
            **self._identity,
            "number": number,
            "values": state.values,
        }
        text = json.dumps(values, sort_keys=True)
        tensors = {name: np.array(value, order="C") for name, value in state.tensors.items()}
        content = save(tensors, {"state": text, "sha256": _digest(tensors, text)})
        write_atomic(self.folder / f"snapshot-{number:08d}.safetensors", content)
        self.next_number += 1
        for _, old in self._files()[RING:]:
            old.unlink(missing_ok=True)
        sync_folder(self.folder)
        return number

    def load(self) -> Loaded:
        """The newest whole snapshot, or the factory when there is none.

        Raises:
            StateError: The newest whole snapshot belongs to another bundle or is of a newer format.
        """
        damaged: dict[str, str] = {}
        for number, file in self._files():
            try:
                tensors, values = read_snapshot(file)
            except StateError as error:
                damaged[file.name] = str(error)
                continue
            self._check(file, values)
            return Loaded(number=number, state=State(tensors=tensors, values=values["values"]), damaged=damaged)
        return Loaded(number=0, state=None, damaged=damaged)

    def close(self) -> None:
        """Let another process have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _files(self) -> list[tuple[int, Path]]:
        """Number and path of every snapshot, newest first."""
        found = [(match, file) for file in self.folder.iterdir() if (match := _NAME.fullmatch(file.name))]
        return sorted(((int(match[1]), file) for match, file in found), reverse=True)

    def _check(self, file: Path, values: dict[str, Any]) -> None:
        if values["format"] > FORMAT:
            raise StateError(
                f"{file} has format {values['format']}; this edgessl {edgessl.__version__} reads up to {FORMAT}. "
                "Type: pip install -U edgessl"
            )
        for key, wanted in self._identity.items():
            if values[key] != wanted:
                raise StateError(
                    f"{self.folder} was learned by another bundle ({key.replace('_', ' ')} {str(values[key])[:12]}, "
                    f"this one has {wanted[:12]}); give each bundle its own --state folder"
                )


def read_snapshot(file: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Tensors and values of one snapshot.

    Raises:
        StateError: It is not whole.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
        text, digest = header["state"], header["sha256"]
        values = json.loads(text)
        whole = digest == _digest(tensors, text) and isinstance(values["format"], int)
    except (SafetensorError, AttributeError, OSError, KeyError, ValueError, TypeError) as error:
        raise StateError(f"{file} is damaged: {error!r}") from error
    if not whole:
        raise StateError(f"{file} is damaged: its digest is not that of its content")
    return tensors, dict(values)


def _digest(tensors: dict[str, NDArray[Any]], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _lock(folder: Path) -> IO[bytes] | None:
    """Hold the folder until the process ends, however it ends."""
    if os.name != "posix":
        return None
    fcntl = import_module("fcntl")  # is not there on Windows
    try:
        file = (folder / _LOCK).open("ab")
    except OSError as error:
        raise InputError(f"{folder} cannot hold a state: {error}; choose another folder") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StateError(f"{folder} is in use by another process; stop it, or choose another state folder") from error
    return file
