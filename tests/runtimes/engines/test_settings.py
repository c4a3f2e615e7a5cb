"""What an engine may take of the processor, and that it takes no more."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edgessl.errors import InputError
from edgessl.runtimes.engines import LOW_POWER, EngineSettings, base, open_engine
from edgessl.runtimes.engines.base import physical_cores, usable_processors

TASKS = Path("/proc/self/task")
linux = pytest.mark.skipif(not TASKS.exists(), reason="the kernel does not list the threads of this process")


def affinities(tasks):
    """Processors that each of these threads may run on, as the kernel says it."""
    lines = [line for task in sorted(tasks) for line in (task / "status").read_text().splitlines()]
    return [line.split()[1] for line in lines if line.startswith("Cpus_allowed_list")]


@pytest.fixture
def workers(tiny):
    """What the threads that came with an engine are bound to, while it is open; waits until it is as expected."""

    def start(expected, **settings):
        before = set(TASKS.iterdir())
        engine = open_engine("onnxruntime", tiny / "encoder.onnx", settings=EngineSettings(**settings))
        for _ in range(500):  # each thread binds itself, when it gets to run
            found = affinities(set(TASKS.iterdir()) - before)
            if found == expected:
                break
            time.sleep(0.01)
        engine.close()
        return found

    return start


@linux
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_onnxruntime_starts_one_worker_less_than_threads_and_binds_none(workers, threads):
    expected = affinities([TASKS / str(os.getpid())]) * (threads - 1)
    assert workers(expected, threads=threads) == expected


@linux
@pytest.mark.parametrize("threads", [2, 3])
def test_onnxruntimes_workers_are_bound_where_it_was_asked(workers, threads):
    core = max(usable_processors())
    expected = [str(core)] * (threads - 1)
    assert workers(expected, threads=threads, cores=(core,)) == expected


@linux
def test_without_a_number_there_is_a_thread_per_core_that_the_process_may_use(workers):
    expected = affinities([TASKS / str(os.getpid())]) * (physical_cores() - 1)
    assert workers(expected) == expected


@pytest.mark.parametrize("spin", [False, True])
def test_onnxruntime_is_told_to_spin_or_not(tiny, spin):
    engine = open_engine("onnxruntime", tiny / "encoder.onnx", settings=EngineSettings(threads=2, spin=spin))
    options = engine._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(spin))
    assert options.intra_op_num_threads == 2
    engine.close()


def test_a_core_that_the_process_may_not_use_is_refused_by_number(tiny):
    with pytest.raises(InputError, match=r"no core \[4095\] for this process; it may use \["):
        open_engine("onnxruntime", tiny / "encoder.onnx", settings=EngineSettings(cores=(4095,)))


def test_low_power_is_one_thread_that_never_waits_awake():
    assert (LOW_POWER.threads, LOW_POWER.spin, LOW_POWER.cores) == (1, False, ())


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"threads": -1}, "threads must be 0"),
        ({"threads": 100_000}, "threads must be 0 .let the engine choose. to 512, not 100000"),
        ({"cores": (1, 1)}, r"different processors.*\(1, 1\)"),
        ({"cores": (-1,)}, "different processors"),
        ({"threads": 1, "cores": (2, 3)}, "no worker to bind.*taskset -c 2,3"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_what_to_type(settings, match):
    with pytest.raises(InputError, match=match):
        EngineSettings(**settings)


def test_processors_of_one_core_count_once(tmp_path, monkeypatch):
    """Eight processors on four cores, of which this process has three: both of one core, and one of another."""
    for number in range(8):
        place = tmp_path / "devices" / "system" / "cpu" / f"cpu{number}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(f"{number % 4},{number % 4 + 4}\n")
    monkeypatch.setattr(base, "usable_processors", lambda: {1, 5, 2})
    assert physical_cores(tmp_path) == 2
    assert physical_cores(tmp_path / "nothing") == 3
