"""What an `.npz` file may say of its series, and recordings that are cut into windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgessl.errors import InputError
from edgessl.signals import InputSpec, series_spec
from edgessl.sources import Windowing, open_source


def _save(path: Path, **arrays: Any) -> str:
    np.savez(path / "data.npz", **arrays)
    return str(path / "data.npz")


def test_rate_units_channels_and_groups_are_read(tmp_path: Path) -> None:
    facts = {"rate_hz": 100.0, "units": "m/s2", "channels": np.array(["ax", "ay"])}
    data = _save(
        tmp_path,
        x_train=np.zeros((3, 2, 50)),
        x_test=np.zeros((2, 2, 50)),
        subject_train=np.array([7, 3, 7]),
        subject_test=np.array([4, 4]),
        **facts,
    )
    train, test = open_source(data), open_source(data, split="test")
    assert train.spec == InputSpec(
        kind="series", shape=(2, 50), dtype="float32", units="m/s2", rate_hz=100.0, channels=("ax", "ay")
    )
    assert train.groups is not None
    assert test.groups is not None
    assert (train.groups.tolist(), test.groups.tolist()) == (["7", "3", "7"], ["4", "4"])
    assert open_source(_save(tmp_path, x=np.zeros((2, 2, 50)))).groups is None


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"rate_hz": np.zeros(2)}, "it is one number"),
        ({"rate_hz": -1.0}, "must be a positive"),
        ({"channels": np.arange(6)}, "holds names"),
        ({"channels": np.array(list("abc"))}, "must be 6 names"),
        ({"channels": np.array([f"c{i}" for i in range(50)])}, r"time first; type np\.swapaxes"),
        ({"subject": np.zeros(4)}, "groups are numbers or names"),
        ({"group": np.zeros(3, int)}, r"\(4,\), one per sample"),
    ],
)
def test_facts_that_do_not_fit_are_refused(tmp_path: Path, facts: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_source(_save(tmp_path, x=np.zeros((4, 6, 50)), **facts))


def test_one_recording_is_cut_into_windows(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((3, 100))
    data = _save(tmp_path, x=x, rate_hz=50, channels=np.array(["a", "b", "c"]), units="mV")
    source = open_source(data, windowing=Windowing(window="0.4s", hop=25, channels="c,a"))
    assert source.spec == series_spec(("c", "a"), 20, rate_hz=50, units="mV")
    assert np.array_equal(source.read([2])[1][0], x[[2, 0], 50:70].astype(np.float32))
    folder = open_source(str(tmp_path), windowing=Windowing(window=20))
    assert folder.groups is not None
    assert set(folder.groups.tolist()) == {"data.npz"}


def test_a_recording_says_its_rate_and_windows_are_not_cut_again(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rate_hz=100\.0"):
        open_source(_save(tmp_path, x=np.zeros((3, 100))), windowing=Windowing(window=20))
    with pytest.raises(InputError, match="leave out --series"):
        open_source(_save(tmp_path, x=np.zeros((4, 3, 100))), windowing=Windowing(window=20))
    with pytest.raises(InputError, match="has no labels"):
        open_source(_save(tmp_path, x=np.zeros((3, 100)), rate_hz=9), windowing=Windowing(window=20, label="y"))
