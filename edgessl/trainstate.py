"""The state of a training run on disk: tensors in safetensors, everything else in JSON. No pickle.

    OUTPUT.training/            beside the output, as long as training is not done
      settings.json             what the run was started with, compared on --resume
      state-00000200/           state after step 200: `state.safetensors`, `state.json`; only the newest is kept
      log/                      losses

A state is written under a temporary name and renamed; the one before it goes only then. A process killed at any instant
leaves at least one whole state, or none when the first was not reached.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgessl.errors import CheckpointError, InputError
from edgessl.files import atomic_folder, write_atomic

_TENSORS, _TREE, _SETTINGS = "state.safetensors", "state.json", "settings.json"


def training_folder(output: Path) -> Path:
    """Where the run that will write `output` keeps its state."""
    output = output.absolute()
    return output.with_name(f"{output.name}.training")


def begin(folder: Path, settings: dict[str, Any], *, resume: bool, overwrite: bool) -> Path | None:
    """Open the folder of a run; the newest state to go on from, or None to begin at step 0.

    Where there is nothing to resume, a run begins: it may have been stopped before it made its folder.

    Raises:
        InputError: A run is there and `resume` was not asked for, or its settings differ, or the folder is no run's.
        CheckpointError: The settings of the run there cannot be read.
    """
    path = folder / _SETTINGS
    settings = json.loads(json.dumps(settings))
    if resume and path.is_file():
        _compare(path, settings)
        return newest(folder)
    if folder.exists():
        if not path.is_file() and any(not file.name.startswith(f".{_SETTINGS}.") for file in folder.iterdir()):
            raise InputError(
                f"{folder} is a folder that edgessl did not write, and the training needs its name; "
                "choose another output, or move it away"
            )
        if path.is_file() and not overwrite:
            raise InputError(
                f"{folder} holds a training that was interrupted; add --resume to go on with it, "
                "or --overwrite to begin again"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_atomic(path, (json.dumps(settings, indent=2) + "\n").encode())
    return None


def interrupted(output: Path) -> bool:
    """Whether there is a training of `output` to resume."""
    return (training_folder(output) / _SETTINGS).is_file()


def newest(folder: Path) -> Path | None:
    """The newest whole state, if there is one."""
    return max(folder.glob("state-*"), default=None)


def step_of(state: Path | None) -> int:
    """Steps done in this state; 0 for none."""
    return int(state.name.removeprefix("state-")) if state else 0


def state_path(folder: Path, step: int) -> Path:
    """Where the state after `step` steps goes."""
    return folder / f"state-{step:08d}"


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write nested dicts, lists, tuples, tensors and plain values; then remove older states beside it.

    Raises:
        TypeError: Something else is in the state.
    """
    tensors: dict[str, Tensor] = {}
    tree = _to_plain(state, tensors)
    with atomic_folder(path, overwrite=True) as folder:
        save_file(tensors, folder / _TENSORS)
        (folder / _TREE).write_text(json.dumps(tree))
    for older in path.parent.glob("state-*"):
        if older.name < path.name:
            shutil.rmtree(older)


def read_state(path: Path) -> dict[str, Any]:
    """The opposite of `write_state`.

    Raises:
        CheckpointError: The state is damaged.
    """
    try:
        tensors = load_file(path / _TENSORS)
        state = _from_plain(json.loads((path / _TREE).read_text()), tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}; begin again with --overwrite") from error
    return dict(state)


def _compare(path: Path, settings: dict[str, Any]) -> None:
    try:
        before = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}; begin again with --overwrite") from error
    for key in sorted({*before, *settings}):
        if before.get(key) != settings.get(key):
            raise InputError(
                f"the interrupted training in {path.parent} has {key} {before.get(key)!r}, not {settings.get(key)!r}; "
                f"resume with the same settings, or begin again with --overwrite and without --resume"
            )


def _to_plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON that keeps apart what JSON would mix up: int and str keys, tuples and lists, numbers and tensors."""
    if isinstance(value, Tensor):
        key = str(len(tensors))
        # A copy of its own: safetensors refuses tensors that share memory.
        tensors[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        # The optimizer rounds alike only while its tensors lie in memory as they did.
        flat = value.is_contiguous() or not value.is_contiguous(memory_format=torch.channels_last)
        return {"tensor" if flat else "channels_last": key}
    if isinstance(value, dict):
        return {"dict": [[_key(key), _to_plain(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"tuple" if isinstance(value, tuple) else "list": [_to_plain(item, tensors) for item in value]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"cannot keep a {type(value).__name__} in a training state: {value!r}")


def _key(key: object) -> int | str:
    if type(key) is int or type(key) is str:
        return key
    raise TypeError(f"cannot keep a key {key!r} of type {type(key).__name__} in a training state")


def _from_plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "channels_last":
        return tensors[content].contiguous(memory_format=torch.channels_last)
    if kind == "dict":
        return {key: _from_plain(item, tensors) for key, item in content}
    items = [_from_plain(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
