"""Snapshots: the newest whole one loads, whatever happened to the others."""

from __future__ import annotations

import os

import numpy as np
import pytest

from edgessl.errors import InputError, StateError
from edgessl.runtimes.adapt.config import LearnerConfig
from edgessl.runtimes.adapt.memory import MemoryConfig
from edgessl.runtimes.adapt.state import State
from edgessl.runtimes.adapt.store import RING, Ring, Store

BIG = 2**127 + 1  # a generator's state has integers of 128 bits


def state(number):
    tensors = {"a": np.arange(number, dtype=np.int8), "b": np.full((2, 3), number / 7), "c": np.float32(number)}
    return State(tensors=tensors, values={"count": number, "big": BIG, "nothing": None})


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "state", bundle="a" * 64, space_id="tiny-6")
    yield opened
    opened.close()


def test_nothing_yet_is_the_factory(store):
    assert store.load().state is None
    assert store.load().number == 0


def test_comes_back_exactly(store):
    number = store.save(state(5))
    loaded = store.load()
    assert loaded.number == number
    assert loaded.state is not None
    assert loaded.state.values == state(5).values
    for name, value in state(5).tensors.items():
        np.testing.assert_array_equal(loaded.state.tensors[name], value)
        assert loaded.state.tensors[name].dtype == value.dtype


def test_a_ring_of_the_newest_is_kept(store):
    for number in range(1, RING + 4):
        store.save(state(number))
    assert len(list(store.folder.glob("*.safetensors"))) == RING
    assert store.load().number == RING + 3


@pytest.mark.parametrize("harm", ["cut", "flip", "empty"])
def test_damaged_snapshots_are_skipped_and_named(store, harm):
    for number in (1, 2, 3):
        store.save(state(number))
    for number in (2, 3):
        file = store.folder / f"snapshot-{number:08d}.safetensors"
        content = bytearray(file.read_bytes())
        content[-3] ^= 4
        file.write_bytes({"cut": content[:-9], "flip": content, "empty": b""}[harm])
    loaded = store.load()
    assert loaded.number == 1
    assert sorted(loaded.damaged) == ["snapshot-00000002.safetensors", "snapshot-00000003.safetensors"]


@pytest.mark.parametrize("values", [{}, {"format": "1"}, {"values": [3]}, {"bundle": None}])
def test_a_snapshot_that_lacks_its_facts_is_damaged_though_its_digest_is_right(tmp_path, values):
    whole = {"format": 1, "bundle": "a" * 64, "space_id": "tiny-6", "values": {"count": 1}}
    with Ring(tmp_path) as ring:
        ring.write({}, whole)
        ring.write({}, {**whole, **values} if values else {})
    opened = Store(tmp_path, bundle="a" * 64, space_id="tiny-6")
    loaded = opened.load()
    opened.close()
    assert (loaded.number, list(loaded.damaged)) == (1, ["snapshot-00000002.safetensors"])


def test_a_damaged_number_is_not_used_again(tmp_path, store):
    store.save(state(1))
    (store.folder / "snapshot-00000009.safetensors").write_bytes(b"half")
    store.close()
    again = Store(store.folder, bundle="a" * 64, space_id="tiny-6")
    assert again.save(state(2)) == 10
    assert again.load().number == 10
    again.close()


def test_what_a_killed_writer_left_is_removed(store):
    (store.folder / ".snapshot-00000001.safetensors.x.partial").write_bytes(b"half")
    store.close()
    Store(store.folder, bundle="a" * 64, space_id="tiny-6").close()
    assert not list(store.folder.glob("*.partial"))


@pytest.mark.parametrize("other", [{"bundle": "b" * 64, "space_id": "tiny-6"}, {"bundle": "a" * 64, "space_id": "x"}])
def test_a_state_of_another_bundle_is_refused(store, other):
    store.save(state(1))
    store.close()
    opened = Store(store.folder, **other)
    with pytest.raises(StateError, match="another bundle"):
        opened.load()
    opened.close()


def test_the_refusal_names_both_bundles_and_what_to_type(tmp_path):
    folder = tmp_path / "state"
    old = Store(folder, bundle="a" * 64, space_id="tiny-6", name="robot.edgessl")
    old.save(state(1))
    old.close()
    new = Store(folder, bundle="b" * 64, space_id="tiny-6", name="newer.edgessl")
    with pytest.raises(StateError) as told:
        new.load()
    new.close()
    for part in (f"robot.edgessl (manifest {'a' * 12}, ", f"newer.edgessl (manifest {'b' * 12}, ", "space tiny-6"):
        assert part in str(told.value)
    assert f"edgessl state reset {folder}" in str(told.value)
    assert f"--state {folder}-{'b' * 8}" in str(told.value)
    again = Store(folder, bundle="a" * 64, space_id="tiny-6", name="renamed.edgessl")  # a name is no identity
    assert again.load().number == 1
    again.close()


def test_a_disk_that_is_full_leaves_the_old_ones(store):
    limits = pytest.importorskip("resource", reason="Windows cannot limit the size of a file")
    for number in range(1, RING + 2):
        store.save(state(number))
    before = {file.name: file.read_bytes() for file in store.folder.iterdir()}
    now = limits.getrlimit(limits.RLIMIT_FSIZE)
    limits.setrlimit(limits.RLIMIT_FSIZE, (1000, now[1]))  # the write fails in its middle, as on a full disk
    try:
        with pytest.raises(OSError, match="too large"):
            store.save(state(5000))
    finally:
        limits.setrlimit(limits.RLIMIT_FSIZE, now)
    assert {file.name: file.read_bytes() for file in store.folder.iterdir()} == before
    assert store.load().number == RING + 1
    assert store.save(state(5000)) == RING + 2


def test_a_folder_takes_its_ring_of_memory_and_four_times_the_weights(encoder, tmp_path, scenes):
    config = LearnerConfig(memory=MemoryConfig(budget_bytes=20_000, novelty=0.0), snapshot_every=8)
    with encoder.learner(tmp_path / "state", level="tail", config=config) as learner:
        learner.observe(scenes(600, 6, np.array([40, 35, 30])))
    files = list((tmp_path / "state").glob("*.safetensors"))
    assert len(files) == RING
    weights = sum(value.nbytes for value in encoder.bundle.tensors("weights").values())
    statistics = 200 * 8 * len(encoder.bundle.tensors("source")["drift.whiten"])  # windows of frames and of votes
    bound = RING * (20_000 + 4 * weights + statistics + 16_000)
    assert 16_000 < sum(file.stat().st_size for file in files) <= bound


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user that may be refused")
def test_a_folder_that_cannot_be_written_is_refused_by_name(tmp_path):
    (tmp_path / "state").mkdir(mode=0o500)
    with pytest.raises(InputError, match="choose another folder"):
        Store(tmp_path / "state", bundle="a" * 64, space_id="tiny-6")


def test_only_one_process_may_hold_it(store):
    with pytest.raises(StateError, match="in use"):
        Store(store.folder, bundle="a" * 64, space_id="tiny-6")


def test_a_folder_that_takes_no_lock_is_refused_by_name(tmp_path):
    (tmp_path / "state" / ".lock").mkdir(parents=True)
    with pytest.raises(InputError, match="choose another folder"):
        Store(tmp_path / "state", bundle="a" * 64, space_id="tiny-6")


def test_a_folder_that_cannot_be_read_is_let_go(tmp_path, monkeypatch):
    def unreadable(_):
        raise PermissionError("no")

    monkeypatch.setattr(Ring, "files", unreadable)
    with pytest.raises(PermissionError):
        Store(tmp_path / "state", bundle="a" * 64, space_id="tiny-6")
    monkeypatch.undo()
    Store(tmp_path / "state", bundle="a" * 64, space_id="tiny-6").close()
