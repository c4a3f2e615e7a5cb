"""A state folder between two runs: what is in it, the way back, and the way to the factory."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from edgessl.errors import InputError, StateError
from edgessl.runtimes.adapt import snapshots, store
from edgessl.runtimes.adapt.snapshots import list_snapshots, reset, roll_back
from edgessl.runtimes.adapt.state import State
from edgessl.runtimes.adapt.store import RING, Store, read_snapshot

IDENTITY = {"bundle": "ab" * 32, "space_id": "tiny-6", "name": "robot.edgessl"}


def learned(frames: int) -> State:
    """What a learner writes, as far as a list shows it."""
    values = {"learner.frames": frames, "learner.level": "ports", "learned.stream.votes": frames // 3}
    return State(
        tensors={"learned.recenter.mean": np.arange(frames, dtype=np.float32)},
        values=values | {"learned.guard.frozen": frames > 400},
    )


@pytest.fixture
def folder(tmp_path):
    """Snapshots 1, 2 and 3 of 100, 200 and 300 frames."""
    opened = Store(tmp_path / "state", **IDENTITY)
    for frames in (100, 200, 300):
        opened.save(learned(frames))
    opened.close()
    return opened.folder


def save(folder, frames):
    opened = Store(folder, **IDENTITY)
    opened.save(learned(frames))
    opened.close()


def loaded(folder):
    opened = Store(folder, **IDENTITY)
    found = opened.load()
    opened.close()
    return found


def damage(folder, number):
    file = folder / f"snapshot-{number:08d}.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content)


def digest(folder, number):
    tensors, values = read_snapshot(folder / f"snapshot-{number:08d}.safetensors")
    parts = [
        repr(sorted(values["values"].items())),
        *(f"{name}{tensors[name].tobytes()!r}" for name in sorted(tensors)),
    ]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def test_the_list_has_the_newest_first_with_its_figures(folder):
    rows = list_snapshots(folder)
    assert [(row.number, row.frames, row.votes, row.level) for row in rows] == [
        (3, 300, 100, "ports"),
        (2, 200, 66, "ports"),
        (1, 100, 33, "ports"),
    ]
    assert {(row.bundle, row.space_id, row.name) for row in rows} == {("ab" * 32, "tiny-6", "robot.edgessl")}
    assert [row.size_bytes for row in rows] == [(folder / row.file).stat().st_size for row in rows]
    assert all(row.damaged == "" and row.origin is None for row in rows)
    assert rows[0].written.endswith("+00:00")


def test_the_list_tells_a_damaged_one_with_the_reason(folder):
    damage(folder, 3)
    first, *rest = list_snapshots(folder)
    assert "digest" in first.damaged
    assert first.frames is None
    assert first.size_bytes > 0
    assert [row.damaged for row in rest] == ["", ""]


def test_the_list_tells_one_of_a_newer_format(folder, monkeypatch):
    monkeypatch.setattr(store, "FORMAT", 7)
    save(folder, 400)
    monkeypatch.undo()
    assert "pip install -U edgessl" in list_snapshots(folder)[0].damaged


def test_a_rollback_writes_the_one_before_again_as_the_newest(folder):
    expected = digest(folder, 2)
    row = roll_back(folder)
    assert (row.number, row.origin, row.frames) == (4, 2, 200)
    assert loaded(folder).number == 4
    assert digest(folder, 4) == expected
    assert [each.number for each in list_snapshots(folder)] == [4, 3, 2, 1]


def test_one_rollback_after_the_other_goes_further_back(folder):
    assert [roll_back(folder).origin, roll_back(folder).origin] == [2, 1]
    with pytest.raises(InputError, match="nothing older"):
        roll_back(folder)


def test_what_was_learned_after_a_rollback_goes_back_to_it(folder):
    roll_back(folder)
    save(folder, 222)
    assert roll_back(folder).origin == 2  # 4 holds what 2 does


def test_a_rollback_goes_forward_again_by_number(folder):
    roll_back(folder)
    assert roll_back(folder, 3).frames == 300
    assert loaded(folder).state.values["learner.frames"] == 300


def test_a_rollback_keeps_the_ring_and_what_it_went_back_to(folder):
    save(folder, 400)
    assert roll_back(folder, 1).number == 5
    assert [row.number for row in list_snapshots(folder)] == [5, 4, 3, 2]
    assert len(list_snapshots(folder)) == RING
    assert loaded(folder).state.values["learner.frames"] == 100


def test_a_rollback_steps_over_what_is_damaged(folder):
    damage(folder, 2)
    assert roll_back(folder).origin == 1


def test_a_rollback_with_a_damaged_newest_goes_behind_the_one_that_loads(folder):
    damage(folder, 3)
    row = roll_back(folder)
    assert (row.number, row.origin) == (4, 1)


@pytest.mark.parametrize("number", [0, 9, -1])
def test_a_number_that_is_missing_is_refused_with_those_that_are_there(folder, number):
    with pytest.raises(InputError, match=rf"no snapshot {number} .* 1, 2, 3.*edgessl state reset"):
        roll_back(folder, number)


def test_a_damaged_number_is_refused_with_those_that_are_whole(folder):
    damage(folder, 1)
    with pytest.raises(StateError, match=r"damaged.* 2, 3"):
        roll_back(folder, 1)
    assert len(list_snapshots(folder)) == 3


def test_the_newest_is_no_way_back(folder):
    with pytest.raises(InputError, match="starts from snapshot 3 already"):
        roll_back(folder, 3)


def test_a_rollback_undoes_a_freeze(folder):
    save(folder, 500)
    assert list_snapshots(folder)[0].frozen
    assert roll_back(folder).frozen is False


def test_a_rollback_on_a_full_disk_leaves_what_was_there(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        roll_back(folder)
    assert [row.number for row in list_snapshots(folder)] == [3, 2, 1]


def test_a_reset_goes_back_to_the_factory(folder):
    damage(folder, 2)
    assert reset(folder) == 3
    assert list_snapshots(folder) == []
    assert loaded(folder).state is None
    assert reset(folder) == 0


def test_a_reset_lets_another_bundle_have_the_folder(folder):
    reset(folder)
    other = Store(folder, bundle="b" * 64, space_id="other", name="other.edgessl")
    assert other.load().number == 0
    other.close()


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_reset_that_is_cut_off_is_none(folder, monkeypatch, cut):
    """The newest goes last: until then, a learner starts from what it would have started from."""
    syncs = []

    def power_cut(_):
        syncs.append(0)
        if len(syncs) > cut:
            raise OSError("power cut")

    monkeypatch.setattr(store, "sync_folder", power_cut)
    with pytest.raises(OSError, match="power cut"):
        reset(folder)
    monkeypatch.undo()
    assert loaded(folder).number == (3 if cut < 2 else 0)


@pytest.mark.parametrize("work", [list_snapshots, roll_back, reset])
def test_nothing_is_done_while_a_learner_holds_the_folder(folder, work):
    holder = Store(folder, **IDENTITY)
    with pytest.raises(StateError, match="in use"):
        work(folder)
    holder.close()
    work(folder)


@pytest.mark.parametrize("work", [list_snapshots, roll_back, reset])
def test_a_folder_that_is_no_state_is_refused_and_left_alone(tmp_path, work):
    (tmp_path / "notes.txt").write_text("mine")
    for wrong in (tmp_path, tmp_path / "missing", tmp_path / "notes.txt"):
        with pytest.raises(InputError, match="--state"):
            work(wrong)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_copied_without_its_lock_is_a_state(folder):
    (folder / ".lock").unlink()
    assert len(list_snapshots(folder)) == 3


def test_the_folder_is_let_go_whatever_happened(folder, monkeypatch):
    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(snapshots, "_row", broken)
    with pytest.raises(RuntimeError):
        list_snapshots(folder)
    monkeypatch.undo()
    assert len(list_snapshots(folder)) == 3
