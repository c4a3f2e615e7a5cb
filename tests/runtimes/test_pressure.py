"""What a board sheds, by an injected clock and a made-up /sys and /proc."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from edgessl.errors import InputError
from edgessl.runtimes.adapt.budget import Budget, BudgetConfig
from edgessl.runtimes.pressure import Pressure, PressureConfig, Shed, memory_free
from edgessl.runtimes.sensors import Zone, zones

ZONE = "sys/class/thermal/thermal_zone0"
NONE, ADAPTATION, RATE = Shed


@pytest.fixture
def now():
    return SimpleNamespace(s=500.0)


@pytest.fixture
def board(tmp_path):
    """A root of sysfs and procfs; a value of None takes a file away."""

    def put(**files):
        for name, value in files.items():
            file = tmp_path / _PLACES.get(name, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            if value is not None:
                file.write_text(f"{value}\n")

    return SimpleNamespace(root=tmp_path, put=put)


_PLACES = {
    "heat": f"{ZONE}/temp",
    "meminfo": "proc/meminfo",
    "psi": "proc/pressure/memory",
    "limit": "sys/fs/cgroup/memory.max",
    "used": "sys/fs/cgroup/memory.current",
    "stat": "sys/fs/cgroup/memory.stat",
}


def memory(free):
    return f"MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  {free} kB"


def follow(pressure, now, seconds):
    """The level in every one of so many seconds."""
    levels = []
    for _ in range(seconds):
        now.s += 1
        levels.append(pressure.look())
    return levels


def changes(levels, before=NONE):
    found = []
    for second, level in enumerate(levels, start=1):
        if level != before:
            found.append((second, level))
        before = level
    return found


def trips(board, *kinds):
    for index, (kind, temp) in enumerate(kinds):
        board.put(**{f"{ZONE}/trip_point_{index}_type": kind, f"{ZONE}/trip_point_{index}_temp": temp})


def test_a_board_at_ease_sheds_nothing(board, now):
    board.put(heat=45_000, meminfo=memory(600), psi="some avg10=0.00 avg60=0.00\nfull avg10=0.00 avg60=0.00")
    pressure = Pressure(board.root, lambda: now.s)
    assert set(follow(pressure, now, 100)) == {NONE}
    assert pressure.why == ""
    assert pressure.info() == {"shed": "none", "why": ""}


def test_adaptation_goes_first_and_the_frame_rate_only_when_that_was_not_enough(board, now):
    board.put(heat=45_000)
    pressure = Pressure(board.root, lambda: now.s, PressureConfig(settle_s=10, dwell_s=30, poll_s=1))
    assert pressure.look() == NONE
    board.put(heat=99_000)
    assert changes(follow(pressure, now, 60)) == [(1, ADAPTATION), (11, RATE)]


def test_it_comes_back_a_step_at_a_time_and_not_before_the_dwell(board, now):
    board.put(heat=99_000)
    pressure = Pressure(board.root, lambda: now.s, PressureConfig(settle_s=10, dwell_s=30, poll_s=1))
    follow(pressure, now, 60)
    board.put(heat=40_000)
    assert changes(follow(pressure, now, 90), RATE) == [(1, ADAPTATION), (31, NONE)]


def test_a_temperature_between_the_two_thresholds_changes_nothing(board, now):
    """82 C is the limit: in at 75, out at 70."""
    pressure = Pressure(board.root, lambda: now.s, PressureConfig(dwell_s=0, settle_s=0, poll_s=1))
    seen = []
    for heat in (70, 74, 76, 74, 71, 69, 74, 76):
        board.put(heat=heat * 1000)
        seen += follow(pressure, now, 1)
    assert seen == [NONE, NONE, ADAPTATION, ADAPTATION, ADAPTATION, NONE, NONE, ADAPTATION]


def test_a_sensor_that_flickers_cannot_make_it_flap(board, now):
    pressure = Pressure(board.root, lambda: now.s, PressureConfig(dwell_s=30, poll_s=1))
    levels = []
    for second in range(300):
        board.put(heat=90_000 if second % 2 else 30_000)
        levels += follow(pressure, now, 1)
    assert len(changes(levels)) <= 2 * 300 / 30


def test_the_trip_point_of_a_zone_is_its_limit(board, now):
    """Orin slows down at 99 C; 80 C, at which a Raspberry Pi would, is nothing to it."""
    board.put(**{f"{ZONE}/type": "tj-thermal"})
    trips(board, ("critical", 104_500), ("passive", 99_000), ("active", 51_000))
    for heat, expected in ((80, NONE), (91, NONE), (93, ADAPTATION)):
        board.put(heat=heat * 1000)
        assert Pressure(board.root, lambda: now.s).look() == expected
    pressure = Pressure(board.root, lambda: now.s)
    pressure.look()
    assert pressure.why == "tj-thermal 93.0 C of 99 C"


def test_a_trip_point_that_makes_no_sense_is_no_limit(board):
    trips(board, ("passive", 0), ("passive", 35_000), ("hot", -274_000), ("critical", 90_000))
    board.put(heat=40_000)
    assert zones(board.root / "sys/class/thermal") == [Zone(name="thermal_zone0", temperature_c=40, limit_c=None)]


def test_low_memory_sheds_adaptation_and_then_the_frame_rate(board, now):
    pressure = Pressure(board.root, lambda: now.s, PressureConfig(settle_s=0, dwell_s=0, poll_s=1))
    seen = []
    for free in (110, 90, 120, 131, 40, 40, 70, 81, 131):
        board.put(meminfo=memory(free))
        seen += follow(pressure, now, 1)
    assert seen == [NONE, ADAPTATION, ADAPTATION, NONE, ADAPTATION, RATE, RATE, ADAPTATION, NONE]


def test_memory_of_the_container_counts_where_it_has_less(board, now):
    board.put(meminfo=memory(900), limit=1000, used=970, stat="anon 900\ninactive_file 20\nactive_file 5")
    assert memory_free(board.root) == pytest.approx(0.05)
    assert Pressure(board.root, lambda: now.s).look() == ADAPTATION
    board.put(limit="max")
    assert memory_free(board.root) == pytest.approx(0.9)


def test_processes_that_wait_for_memory_are_pressure_too(board, now):
    def psi(some, full):
        return f"some avg10={some:.2f} avg60=0.00 total=1\nfull avg10={full:.2f} avg60=0.00 total=1"

    pressure = Pressure(board.root, lambda: now.s, PressureConfig(settle_s=0, dwell_s=0, poll_s=1))
    seen = []
    for some, full in ((9, 0), (11, 0), (30, 9), (30, 9), (30, 2), (4, 0)):
        board.put(psi=psi(some, full))
        seen += follow(pressure, now, 1)
    assert seen == [NONE, ADAPTATION, RATE, RATE, ADAPTATION, NONE]


def test_the_worst_of_heat_and_memory_counts_and_both_are_told(board, now):
    board.put(heat=78_000, meminfo=memory(20))
    pressure = Pressure(board.root, lambda: now.s, PressureConfig(settle_s=0, poll_s=1))
    assert follow(pressure, now, 3)[-1] == RATE
    assert pressure.why == "thermal_zone0 78.0 C of 82 C, 2% of the memory free"


@pytest.mark.parametrize("text", ["", "warm", "2147483647", "\xff"])
def test_sysfs_that_cannot_be_read_sheds_nothing(board, now, text):
    board.put(heat=text, meminfo=text, psi=text, limit=text)
    assert set(follow(Pressure(board.root, lambda: now.s), now, 50)) == {NONE}


def test_a_machine_without_sys_and_proc_sheds_nothing(tmp_path, now):
    assert set(follow(Pressure(tmp_path / "nowhere", lambda: now.s), now, 50)) == {NONE}


def test_a_sensor_that_falls_silent_while_hot_keeps_its_verdict(board, now):
    board.put(heat=78_000)
    pressure = Pressure(board.root, lambda: now.s)
    assert pressure.look() == ADAPTATION
    board.put(heat=None)
    assert set(follow(pressure, now, 200)) == {ADAPTATION}
    board.put(heat=50_000)
    assert follow(pressure, now, 40)[-1] == NONE


def test_sensors_are_looked_at_no_more_often_than_asked_for(board, now):
    board.put(heat=40_000)
    pressure = Pressure(board.root, lambda: now.s, PressureConfig(poll_s=5))
    pressure.look()
    board.put(heat=99_000)
    now.s += 4.9
    assert pressure.look() == NONE
    now.s += 0.1
    assert pressure.look() == ADAPTATION


def test_a_driver_that_hangs_holds_up_only_the_thread_that_asked_it(board, now):
    board.put(heat=99_000)
    pressure = Pressure(board.root, lambda: now.s)
    entered, go = threading.Event(), threading.Event()

    def slow():
        entered.set()
        assert go.wait(10)

    pressure._heat = slow
    thread = threading.Thread(target=pressure.look)
    thread.start()
    assert entered.wait(10)
    assert pressure.look() == NONE  # at once, while the other one waits
    go.set()
    thread.join(10)


def until(condition):
    """Wait for another thread; the limit is there so that a test that cannot pass ends."""
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it never came to that")


@pytest.mark.parametrize("fault", [{"heat": 99_000}, {"meminfo": memory(20)}], ids=["overheated", "low memory"])
def test_a_robot_embeds_on_while_a_pressed_board_learns_nothing_and_then_learns_again(
    board, tmp_path, encoder, scenes, fault
):
    frames = scenes(24, seed=4)
    board.put(heat=40_000, meminfo=memory(800))
    board.put(**fault)
    budget = Budget(
        BudgetConfig(ms_per_frame=None, max_temperature_c=None, poll_s=0.01),
        thermal=board.root / "none",
        power=board.root / "none",
        pressure=Pressure(board.root, config=PressureConfig(settle_s=0, dwell_s=0, poll_s=0)),
    )
    with encoder.adapting(tmp_path / "state", budget=budget) as live:
        until(lambda: live.info()["state"].startswith("paused: under pressure"))
        for _ in range(5):
            assert np.array_equal(live.embed(frames), encoder.embed(frames))
        assert live.info()["learned"] == 0
        board.put(heat=40_000, meminfo=memory(800))
        until(lambda: live.embed(frames) is not None and live.info()["learned"])


@pytest.mark.parametrize(
    "limits", [{"poll_s": -1}, {"dwell_s": float("nan")}, {"memory_free": (0.05, 0.1)}, {"below_limit_c": (1.0, 2.0)}]
)
def test_limits_that_cannot_be_are_refused(limits):
    with pytest.raises(InputError, match=next(iter(limits))):
        PressureConfig(**limits)
