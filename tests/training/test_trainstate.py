from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgessl.errors import CheckpointError, InputError
from edgessl.trainstate import begin, newest, read_state, state_path, step_of, training_folder, write_state


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and bool(a == b)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    state = {
        "optimizer": [{"state": {0: {"step": torch.tensor(3.0)}, 12: {}}, "1": (1, [2.5, None], True)}],
        "shared": (shared, shared[2:]),
        "maps": torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "lr": 0.1 + 0.2,
        "": "text",
    }
    write_state(tmp_path / "state-00000003", state)
    assert _same(read_state(tmp_path / "state-00000003"), state)


def test_nothing_is_pickled(tmp_path: Path) -> None:
    write_state(tmp_path / "state-00000001", {"weight": torch.ones(2)})
    assert sorted(path.name for path in (tmp_path / "state-00000001").iterdir()) == ["state.json", "state.safetensors"]
    with pytest.raises(TypeError, match="a set in a training state"):
        write_state(tmp_path / "state-00000002", {"odd": {1, 2}})
    with pytest.raises(TypeError, match="key"):
        write_state(tmp_path / "state-00000002", {"odd": {(1, 2): 3}})
    assert newest(tmp_path) == tmp_path / "state-00000001"


def test_only_the_newest_state_is_kept(tmp_path: Path) -> None:
    assert (newest(tmp_path), step_of(newest(tmp_path))) == (None, 0)
    for step in (5, 10, 100):
        write_state(state_path(tmp_path, step), {"step": step})
    assert [path.name for path in tmp_path.iterdir()] == ["state-00000100"]
    assert step_of(newest(tmp_path)) == 100


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_damaged_state_says_so(tmp_path: Path, name: str) -> None:
    write_state(tmp_path / "state-00000001", {"weight": torch.ones(2)})
    (tmp_path / "state-00000001" / name).write_bytes(b"{")
    with pytest.raises(CheckpointError, match="damaged"):
        read_state(tmp_path / "state-00000001")


def test_the_folder_stands_beside_the_output(tmp_path: Path) -> None:
    assert training_folder(tmp_path / "runs" / "a.b") == tmp_path / "runs" / "a.b.training"


def test_damaged_settings_say_so(tmp_path: Path) -> None:
    begin(tmp_path / "run", {"lr": 1}, resume=False, overwrite=False)
    (tmp_path / "run" / "settings.json").write_text("[")
    with pytest.raises(CheckpointError, match="damaged"):
        begin(tmp_path / "run", {"lr": 1}, resume=True, overwrite=False)
    with pytest.raises(InputError, match="--overwrite"):
        begin(tmp_path / "run", {"lr": 1}, resume=False, overwrite=False)


def test_a_folder_that_is_no_trainings_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("1")
    for resume in (False, True):
        with pytest.raises(InputError, match="did not write"):
            begin(tmp_path / "run", {"lr": 1}, resume=resume, overwrite=True)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "1"


def test_a_training_killed_before_its_settings_were_written_can_be_typed_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".settings.json.x.partial").write_text("{")
    assert begin(tmp_path / "run", {"lr": 1}, resume=False, overwrite=False) is None
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["settings.json"]
