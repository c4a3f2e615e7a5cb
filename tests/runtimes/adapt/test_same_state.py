"""The same stream, seed and engine leave the same state, bit for bit, however often it stops in between."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgessl.runtimes.adapt.config import LEVELS, LearnerConfig
from edgessl.runtimes.adapt.guard import GuardConfig
from edgessl.runtimes.adapt.memory import MemoryConfig
from edgessl.runtimes.adapt.ports import PortsConfig

BLOCK = 32  # votes that make a block, and frames that a long batch is cut into
CONFIG = LearnerConfig(
    observe_every=1,
    guard=GuardConfig(anchor_overlap=0.0, lidar=0.0),
    confirm_ports=1,
    confirm_tail=1,
    ports=PortsConfig(window=48, paired=24),
    memory=MemoryConfig(novelty=0.001),
)


@pytest.fixture(scope="module")
def stream(scenes):
    """A day, a night, and the next day."""
    return np.concatenate([scenes(64, 5), scenes(192, 6, 0.4), scenes(64, 7)])


def digest(state):
    """Of every number in it."""
    found = hashlib.sha256(json.dumps(state.values, sort_keys=True).encode())
    for name, value in sorted(state.tensors.items()):
        found.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
    return found.hexdigest()


def live(encoder, folder, frames, sizes, *, level="tail", seed=3, config=CONFIG):
    """Vectors, digest of the state, and (kind, frame) of what happened; `sizes` are repeated until the stream ends."""
    with encoder.learner(folder, level=level, seed=seed, steps_per_frame=0.125, config=config) as learner:
        vectors, start = [], 0
        while start < len(frames):
            size = sizes[len(vectors) % len(sizes)]
            vectors.append(learner.observe(frames[start : start + size]))
            start += size
        events = [(event["kind"], event["frame"]) for event in learner.events]
        return np.concatenate(vectors), digest(learner._learned.state()), events


def test_this_stream_teaches_everything(encoder, tmp_path, stream):
    """Else the tests below would say nothing."""
    _, _, events = live(encoder, tmp_path / "state", stream, [BLOCK])
    assert {"shift", "port", "accepted", "return"} <= {kind for kind, _ in events}


@pytest.mark.slow
@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 70), min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_the_same_batches_and_seed_leave_the_same_state(encoder, tmp_path_factory, stream, sizes, seed):
    sizes = [*sizes, 20]
    one, two = (live(encoder, tmp_path_factory.mktemp("state"), stream, sizes, seed=seed) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    assert one[1:] == two[1:]


@pytest.mark.parametrize("level", LEVELS)
def test_batches_of_whole_blocks_leave_the_same_state_whatever_their_length(encoder, tmp_path, stream, level):
    one, *others = (
        live(encoder, tmp_path / str(blocks), stream, [blocks * BLOCK], level=level) for blocks in (1, 2, 3, 10)
    )
    for other in others:
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1:] == other[1:]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_small_batches_notice_a_change_no_later_and_less_than_a_block_sooner(encoder, tmp_path, stream, size):
    """Each batch is judged when it comes, so the state is that of these batches; the vectors are nearly the same."""
    whole, _, slow = live(encoder, tmp_path / "whole", stream, [BLOCK])
    vectors, _, quick = live(encoder, tmp_path / "small", stream, [size])
    for kind in ("shift", "return"):
        (late,) = (frame for name, frame in slow if name == kind)
        (soon,) = (frame for name, frame in quick if name == kind)
        assert late - BLOCK < soon <= late
    assert (vectors * whole).sum(1).min() > 0.9


@pytest.mark.parametrize("level", LEVELS)
def test_a_stop_after_every_batch_changes_nothing(encoder, tmp_path, stream, level):
    """In the middle of a block, of a comparison of ports, of a decision."""
    sizes = [13, 40, 7, 20]
    whole, state, _ = live(encoder, tmp_path / "whole", stream, sizes, level=level)
    start, found = 0, []
    while start < len(stream):
        size = sizes[len(found) % len(sizes)]
        vectors, last, _ = live(encoder, tmp_path / "parts", stream[start : start + size], [size], level=level)
        found.append(vectors)
        start += size
    np.testing.assert_array_equal(np.concatenate(found), whole)
    assert last == state
