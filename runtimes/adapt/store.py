"""Snapshots of what was learned, on disk: a power cut or `kill -9` at any instant leaves one that loads.

A snapshot is one safetensors file `snapshot-NUMBER.safetensors`. It is written beside its name, flushed and renamed,
and carries the SHA-256 of its own content, so that a reader can tell a whole one without trusting the file system. The
newest few are kept; when none is whole, the learner starts from the factory's state.

A folder is bounded: `RING` snapshots, and one more while it is written. Each holds at most the replay memory's budget
(4 MiB by default), four times the tail's weights (trained, velocity, average, served) and a few hundred rows of
statistics, whatever the number of frames.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import edgessl
from edgessl.errors import InputError, StateError
from edgessl.files import hold_folder, replacing, sync_folder
from edgessl.runtimes.adapt.state import State

FORMAT = 1
RING = 4  # snapshots kept: the newest, and three to fall back to
_NAME = re.compile(r"snapshot-(\d{8})\.safetensors")
_LOCK = ".lock"
_FACTS = {"format": int, "bundle": str, "space_id": str, "values": dict}  # what every snapshot says


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


class Ring:
    """Numbered snapshots in a folder that is there. Only one process may hold it; use it in a `with`, or close it.

    Attributes:
        next_number: Of the snapshot that is written next; no number is given twice.

    Raises:
        StateError: Another process holds the folder.
        InputError: Nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = _lock(folder)
        try:
            for left in folder.glob(".snapshot-*.partial"):  # of a writer that was killed
                left.unlink(missing_ok=True)
            self.next_number = max((number for number, _ in self.files()), default=0) + 1
        except BaseException:
            self.close()
            raise

    def files(self) -> list[tuple[int, Path]]:
        """Number and path of every snapshot, newest first."""
        return snapshot_files(self.folder)

    def write(self, tensors: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> int:
        """Write a snapshot and return its number. When this returns, it survives a power cut; the oldest ones go."""
        number = self.next_number
        text = json.dumps({**values, "number": number}, sort_keys=True)
        arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
        with replacing(self.folder / f"snapshot-{number:08d}.safetensors") as file:  # never whole in memory once more
            try:
                save_file(arrays, file, {"state": text, "sha256": _digest(arrays, text)})
            except SafetensorError as error:  # what the system refused, in other words
                raise OSError(str(error)) from error
        self.next_number += 1
        for _, old in self.files()[RING:]:
            old.unlink(missing_ok=True)
        sync_folder(self.folder)
        return number

    def clear(self) -> int:
        """Remove every snapshot, and return how many there were.

        The newest goes last: cut off before that, the folder still loads as it would have.
        """
        files = self.files()
        for _, old in reversed(files):
            old.unlink(missing_ok=True)
            sync_folder(self.folder)
        return len(files)

    def close(self) -> None:
        """Let another process have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Ring:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Store:
    """What one learner keeps of one bundle.

    Args:
        folder: Made when it is not there.
        bundle: Digest that names the bundle; a state of another one is refused.
        space_id: Of the bundle.
        name: What people call the bundle; for messages only.

    Raises:
        StateError: Another process holds the folder.
        InputError: The folder cannot be made, or nothing can be written there.
    """

    def __init__(self, folder: Path, *, bundle: str, space_id: str, name: str = "") -> None:
        self.folder = folder
        self._identity = {"bundle": bundle, "space_id": space_id}
        self._name = name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot hold a state: {error}; choose another folder") from error
        self._ring = Ring(folder)

    @property
    def next_number(self) -> int:
        """Of the snapshot that `save` writes next."""
        return self._ring.next_number

    def save(self, state: State) -> int:
        """Write a snapshot and return its number. When this returns, it survives a power cut."""
        facts = {"format": FORMAT, "edgessl": edgessl.__version__, **self._identity, "name": self._name}
        return self._ring.write(state.tensors, {**facts, "values": state.values})

    def load(self) -> Loaded:
        """The newest whole snapshot, or the factory when there is none.

        Raises:
            StateError: The newest whole snapshot belongs to another bundle or is of a newer format.
        """
        damaged: dict[str, str] = {}
        for number, file in self._ring.files():
            try:
                tensors, values = read_snapshot(file)
            except StateError as error:
                damaged[file.name] = str(error)
                continue
            check_format(file, values)
            self._check_bundle(values)
            return Loaded(number=number, state=State(tensors=tensors, values=values["values"]), damaged=damaged)
        return Loaded(number=0, state=None, damaged=damaged)

    def close(self) -> None:
        """Let another process have the folder."""
        self._ring.close()

    def _check_bundle(self, values: Mapping[str, Any]) -> None:
        own = self._identity
        if any(values[key] != wanted for key, wanted in own.items()):
            raise StateError(
                f"{self.folder} was learned by another bundle, {_called(values)}; this one is "
                f"{_called(own | {'name': self._name})}. What was learned does not carry over: give this bundle a folder "
                f"of its own, such as --state {self.folder}-{own['bundle'][:8]}, or forget what was learned, with "
                f"edgessl state reset {self.folder}"
            )


def is_state(folder: Path) -> bool:
    """Whether a learner has had this folder."""
    return folder.is_dir() and ((folder / _LOCK).is_file() or bool(snapshot_files(folder)))


def snapshot_files(folder: Path) -> list[tuple[int, Path]]:
    """Number and path of every snapshot, newest first."""
    found = [(match, file) for file in folder.iterdir() if (match := _NAME.fullmatch(file.name))]
    return sorted(((int(match[1]), file) for match, file in found), reverse=True)


def check_format(file: Path, values: Mapping[str, Any]) -> None:
    """Refuse what a newer edgessl wrote.

    Raises:
        StateError: It did.
    """
    if values["format"] > FORMAT:
        raise StateError(
            f"{file} has format {values['format']}; this edgessl {edgessl.__version__} reads up to {FORMAT}. "
            "Type: pip install -U edgessl"
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
        whole = digest == _digest(tensors, text) and all(isinstance(values[key], of) for key, of in _FACTS.items())
    except (SafetensorError, AttributeError, OSError, KeyError, ValueError, TypeError) as error:
        raise StateError(f"{file} is damaged: {error!r}") from error
    if not whole:
        raise StateError(f"{file} is damaged: its digest is not that of its content")
    return tensors, dict(values)


def _called(values: Mapping[str, Any]) -> str:
    name, identity = values.get("name"), f"manifest {str(values['bundle'])[:12]}, space {values['space_id']}"
    return f"{name} ({identity})" if name else identity


def _digest(tensors: dict[str, NDArray[Any]], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(np.asarray(value, order="C").reshape(-1).view(np.uint8).data)  # not copied
    return digest.hexdigest()


def _lock(folder: Path) -> IO[bytes] | None:
    """Hold the folder until the process ends, however it ends."""
    try:
        return hold_folder(folder, _LOCK)
    except BlockingIOError as error:
        raise StateError(
            f"{folder} is in use by another process; stop it first, or choose another state folder"
        ) from error
    except OSError as error:
        raise InputError(f"{folder} cannot hold a state: {error}; choose another folder") from error
