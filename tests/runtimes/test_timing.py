"""Timing is judged on a clock of the test's own: nothing here measures this machine."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.errors import InputError
from edgessl.runtimes.timing import Spread, compare, every_call, faster, interleaved, paced


class Machine:
    """A clock, and contenders that take as long as they are told, times how busy the machine is."""

    def __init__(self):
        self.now = 0.0
        self.load = 1.0
        self.log = []

    def clock(self):
        return self.now

    def contender(self, name, seconds):
        def run():
            self.log.append(name)
            self.now += (seconds() if callable(seconds) else seconds) * self.load

        return run


def test_gives_the_seconds_of_one_call_per_round():
    machine = Machine()
    runs = {"a": machine.contender("a", 0.25), "b": machine.contender("b", 0.5)}
    times = interleaved(runs, rounds=4, calls=2, warm_up=1, clock=machine.clock, budget_s=100)
    assert times == {"a": [0.25] * 4, "b": [0.5] * 4}
    assert machine.log[:2] == ["a", "b"]  # warming up
    assert len(machine.log) == 2 + 4 * 2 * 2


def test_every_contender_runs_in_every_round_and_the_order_changes():
    machine = Machine()
    runs = {name: machine.contender(name, 0.01) for name in "abc"}
    interleaved(runs, rounds=12, calls=1, warm_up=0, clock=machine.clock)
    orders = {"".join(machine.log[start : start + 3]) for start in range(0, 36, 3)}
    assert {"".join(sorted(order)) for order in orders} == {"abc"}
    assert len(orders) > 2


def test_the_order_comes_from_the_given_generator():
    logs = []
    for seed in (1, 1, 2):
        machine = Machine()
        runs = {name: machine.contender(name, 0.01) for name in "abcd"}
        interleaved(runs, rounds=9, calls=1, rng=np.random.default_rng(seed), clock=machine.clock)
        logs.append(machine.log)
    assert logs[0] == logs[1] != logs[2]


def test_of_the_calls_in_a_round_the_quickest_counts():
    machine = Machine()
    seconds = iter([0.3, 0.1, 0.2, 0.4, 0.2, 0.5])
    times = interleaved(
        {"a": machine.contender("a", lambda: next(seconds))}, rounds=2, calls=3, warm_up=0, clock=machine.clock
    )
    assert times["a"] == pytest.approx([0.1, 0.2])


def test_stops_at_the_budget_with_whole_rounds_and_at_least_one():
    for budget_s, rounds in ((2.5, 3), (0.0, 1)):
        machine = Machine()
        runs = {"a": machine.contender("a", 0.25), "b": machine.contender("b", 0.75)}
        times = interleaved(runs, rounds=50, calls=1, warm_up=0, budget_s=budget_s, clock=machine.clock)
        assert [len(seconds) for seconds in times.values()] == [rounds, rounds]


def test_compares_by_medians_of_ratios_within_a_round():
    rows = compare({"base": [1.0, 2.0, 4.0, 2.0, 1.0], "half": [0.5, 1.0, 2.0, 1.2, 0.4]}, baseline="base")
    half = rows["half"]  # ratios .4 .5 .5 .5 .6
    assert (half.ratio, half.low, half.high) == pytest.approx((0.5, 0.5, 0.5))
    assert half.median_ms == pytest.approx(1000)
    assert half.rounds == 5
    assert rows["base"].ratio == 1
    assert half.to_json()["ratio"] == 0.5


def test_a_busy_machine_does_not_change_what_is_faster():
    """The load jumps between rounds by a factor of ten, and hits single calls."""
    machine = Machine()
    rng = np.random.default_rng(5)

    def noisy(seconds):
        def took():
            machine.load = 10.0 if int(machine.now) % 3 == 0 else 1.0
            return seconds * (1 + rng.exponential(0.1)) * (5 if rng.random() < 0.1 else 1)

        return took

    runs = {"fp32": machine.contender("fp32", noisy(0.010)), "int8": machine.contender("int8", noisy(0.008))}
    times = interleaved(runs, rounds=41, calls=3, budget_s=1e9, clock=machine.clock)
    assert faster(times["int8"], times["fp32"])
    assert not faster(times["fp32"], times["int8"])


def test_a_tie_is_not_faster_either_way():
    rng = np.random.default_rng(6)
    wins = 0
    for _ in range(200):
        a, b = rng.lognormal(0, 0.1, (2, 21))
        wins += faster(a, b) + faster(b, a)
    assert wins <= 2


def test_faster_needs_the_margin():
    b = np.ones(9)
    assert faster(b * 0.9, b)
    assert not faster(b * 0.9, b, margin=0.15)
    assert not faster(b * 0.98, b)


@pytest.mark.parametrize(
    "call",
    [
        lambda: interleaved({}),
        lambda: interleaved({"a": int}, rounds=0),
        lambda: interleaved({"a": int}, calls=0),
        lambda: compare({"a": [1.0]}, baseline="b"),
        lambda: compare({"a": [1.0], "b": [1.0, 2.0]}, baseline="a"),
        lambda: compare({"a": [], "b": []}, baseline="a"),
        lambda: faster([1.0], [1.0, 2.0]),
        lambda: faster([], []),
    ],
)
def test_what_cannot_be_compared_is_refused(call):
    with pytest.raises(InputError):
        call()


def test_a_clock_that_does_not_tick_divides_by_nothing():
    times = interleaved({"a": int, "b": int}, rounds=3, clock=lambda: 0.0)
    assert compare(times, baseline="a")["b"].ratio == 1
    assert not faster(times["a"], times["b"])


def test_every_call_is_kept_where_all_are_wanted():
    machine = Machine()
    seconds = iter([0.3, 0.1, 0.2, 0.4])
    found = every_call(
        {"a": machine.contender("a", lambda: next(seconds))}, rounds=2, calls=2, warm_up=0, clock=machine.clock
    )
    assert [pytest.approx(burst) for burst in found["a"]] == [[0.3, 0.1], [0.2, 0.4]]


def test_quantiles_are_those_of_the_calls():
    spread = Spread.of([step / 1000 for step in range(101)])
    assert (spread.p50_ms, spread.p95_ms, spread.p99_ms, spread.calls) == pytest.approx((50, 95, 99, 101))
    with pytest.raises(InputError):
        Spread.of([])


class Camera(Machine):
    """A machine that can sleep, and oversleeps by so much."""

    overslept = 0.0

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds + self.overslept

    def at(self, rate_hz, seconds, took):
        return paced(self.contender("a", took), rate_hz=rate_hz, seconds=seconds, clock=self.clock, sleep=self.sleep)


def test_an_encoder_quicker_than_the_camera_is_never_late():
    found = Camera().at(25, 2, 0.03)
    assert found.seconds == pytest.approx([0.03] * 50)
    assert (found.late, found.dropped) == (0, 0)


def test_one_slow_frame_makes_the_next_ones_late_by_what_is_left():
    """10 Hz; the second frame takes .25 s, so the third begins when the fourth is there, and is dropped for it."""
    took = iter([0.05, 0.25, 0.05, 0.05, 0.05])
    found = Camera().at(10, 0.6, lambda: next(took))
    assert found.seconds == pytest.approx([0.05, 0.25, 0.10, 0.05, 0.05])
    assert (found.late, found.dropped) == (1, 1)


def test_an_encoder_slower_than_the_camera_runs_the_newest_frame():
    """Twice as slow: every second frame never runs, and no latency grows without end."""
    found = Camera().at(20, 5, 0.099)
    assert found.dropped == pytest.approx(50, abs=2)
    assert len(found.seconds) + found.dropped == 100
    assert max(found.seconds) < 0.099 + 0.05


def test_a_system_that_wakes_us_late_is_counted_and_in_the_latency():
    camera = Camera()
    camera.overslept = 0.004
    found = camera.at(50, 1, 0.01)
    assert found.late == 50
    assert found.seconds == pytest.approx([0.014] * 50)


@pytest.mark.parametrize(("rate_hz", "seconds"), [(0, 1), (-1, 1), (30, 0), (float("nan"), 1), (30, float("inf"))])
def test_a_rate_that_cannot_be_is_refused(rate_hz, seconds):
    with pytest.raises(InputError, match="above 0"):
        paced(int, rate_hz=rate_hz, seconds=seconds)
