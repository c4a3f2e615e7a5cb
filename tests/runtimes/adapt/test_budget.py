"""The budget: time per frame, steps per minute, heat and battery, all by an injected clock and made-up sensors."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edgessl.errors import InputError
from edgessl.runtimes.adapt.budget import UNAVAILABLE, Budget, BudgetConfig
from edgessl.runtimes.pressure import Pressure
from edgessl.runtimes.sensors import battery_percent, hottest_c


@pytest.fixture
def now():
    return SimpleNamespace(s=100.0)


@pytest.fixture
def sensors(tmp_path):
    """Folders of sensors; `set(path, value)` makes or changes one, `set(path, None)` takes it away."""

    def put(name, value):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        if value is not None:
            file.write_text(f"{value}\n")

    return SimpleNamespace(set=put, thermal=tmp_path / "thermal", power=tmp_path / "power")


@pytest.fixture
def budget(now, sensors):
    def make(**limits):
        return Budget(BudgetConfig(**limits), thermal=sensors.thermal, power=sensors.power, clock=lambda: now.s)

    return make


def poll(budget, now):
    now.s += budget.config.poll_s
    return budget.poll()


def spend(budget, rounds, costs):
    """Serve batches of odd sizes, and learn from what is granted at these costs per frame."""
    served = learned = 0
    granted = []
    for turn in range(rounds):
        batch = 1 + turn % 5
        served += batch
        count = budget.grant(batch)
        granted.append(count)
        if count:
            budget.settle(count, count * costs[turn % len(costs)])
            learned += count
    return served, learned, granted


@pytest.mark.parametrize("cost", [0.3, 1.5, 7.0, 400.0, 5000.0])
def test_learning_takes_no_more_than_its_share_of_every_frame(budget, cost):
    under = budget(ms_per_frame=1.5, burst_ms=20.0)
    costs = cost * np.random.default_rng(3).uniform(0.5, 1.5, 97)
    served, learned, _ = spend(under, 20_000, costs)
    overdraft = 5 * 1.5 * cost  # one batch, started while there was something left
    assert learned * cost * 0.4 < under.spent_ms <= 1.5 * served + overdraft
    assert under.spent_ms > 0.9 * min(1.5 * served, served * cost * 0.9)  # and what it may have, it gets


def test_a_frame_that_costs_more_than_can_be_saved_up_is_still_learned_from(budget):
    _, learned, _ = spend(budget(ms_per_frame=1.0, burst_ms=2.0), 3_000, [100.0])
    assert learned > 50


def test_what_can_be_saved_up_is_bounded(budget):
    under = budget(ms_per_frame=1.0, burst_ms=30.0)
    under.settle(under.grant(1), 1.0)
    assert under.grant(1000) == 30


def test_frames_that_wait_are_counted_against_the_balance(budget):
    under = budget(ms_per_frame=1.0, burst_ms=100.0)
    assert [under.grant(10), under.grant(10)] == [1, 0]  # one, to see what it costs
    under.settle(1, 2.0)
    waiting = sum(under.grant(3) for _ in range(20))
    saved = 10 + 10 - 2 + 20 * 3
    assert saved - 2 <= 2 * waiting <= saved + 2


def test_refunded_frames_are_not_paid_for(budget):
    under = budget(ms_per_frame=1.0, burst_ms=10.0)
    under.grant(1)
    under.settle(1, 1.0)
    first = under.grant(10)
    assert (first, under.grant(10)) == (10, 0)
    under.refund(first)
    assert under.grant(10) == 10


def test_no_limit_grants_everything_and_zero_grants_nothing(budget):
    assert budget(ms_per_frame=None).grant(1000) == 1000
    assert sum(budget(ms_per_frame=0.0).grant(7) for _ in range(100)) == 0


def test_the_same_calls_at_the_same_times_give_the_same_decisions(budget, now):
    def life():
        now.s = 0.0
        rng = np.random.default_rng(5)
        under = budget(ms_per_frame=1.5, steps_per_minute=9)
        found = []
        for _ in range(2_000):
            now.s += rng.exponential(0.3)
            count = under.grant(int(rng.integers(1, 6)))
            found.append((count, under.take_step()))
            under.settle(count, count * rng.uniform(0, 9))
        return found, under.info()

    assert life() == life()


@pytest.mark.parametrize("limit", [0, 1, 7])
def test_no_minute_has_more_steps_than_allowed(budget, now, limit):
    under, ran = budget(steps_per_minute=limit), []
    rng = np.random.default_rng(1)
    for _ in range(4_000):
        now.s += rng.exponential(0.7)
        if under.take_step():
            ran.append(now.s)
    ran = np.array(ran)
    most = max((int(((ran >= start) & (ran < start + 60)).sum()) for start in ran), default=0)
    assert most == limit
    assert under.info()["steps_in_last_minute"] <= limit


def test_heat_pauses_learning_until_it_is_clearly_cooler(budget, now, sensors):
    under = budget(ms_per_frame=None, max_temperature_c=75.0, cooler_by_c=5.0)
    seen = []
    for celsius in (74.9, 75.0, 82.0, 76.0, 70.1, 74.0, 70.0, 75.0):
        sensors.set("thermal/thermal_zone0/temp", 31_000)
        sensors.set("thermal/thermal_zone1/temp", round(celsius * 1000))
        seen.append(([(event["kind"], event["temperature_c"]) for event in poll(under, now)], under.grant(3)))
    assert seen == [
        ([], 3), ([], 3), ([("paused", 82.0)], 0), ([], 0), ([], 0), ([], 0), ([("resumed", 70.0)], 3), ([], 3),
    ]  # fmt: skip


def test_a_pause_tells_its_numbers(budget, now, sensors):
    under = budget()
    sensors.set("thermal/thermal_zone0/temp", 82_000)
    numbers = {"temperature_c": 82.0, "limit_c": 75.0, "resume_c": 70.0}
    assert poll(under, now) == [{"kind": "paused", "reason": "too hot", **numbers}]
    assert under.paused == under.info()["paused"] == "too hot 82.0 C"


def test_an_empty_battery_pauses_learning_only_while_it_is_discharging(budget, now, sensors):
    under = budget(min_battery_percent=20.0, charged_by_percent=5.0)
    seen = []
    for percent, status in [
        (20, "Discharging"), (19, "Charging"), (19, "Discharging"), (24, "Discharging"), (25, "Discharging"),
        (10, "Discharging"), (10, "Charging"),
    ]:  # fmt: skip
        sensors.set("power/BAT0/capacity", percent)
        sensors.set("power/BAT0/status", status)
        sensors.set("power/AC/online", 1)
        seen.append([event["kind"] for event in poll(under, now)])
    assert seen == [[], [], ["paused"], [], ["resumed"], ["paused"], ["resumed"]]


def test_learning_resumes_when_the_last_reason_is_gone(budget, now, sensors):
    under = budget(ms_per_frame=None)
    sensors.set("thermal/thermal_zone0/temp", 90_000)
    sensors.set("power/BAT0/capacity", 3)
    sensors.set("power/BAT0/status", "Discharging")
    assert [event["reason"] for event in poll(under, now)] == ["too hot", "battery low"]
    sensors.set("thermal/thermal_zone0/temp", 40_000)
    assert [(event["kind"], event["reason"]) for event in poll(under, now)] == [("resumed", "too hot")]
    assert under.grant(1) == 0
    assert under.paused == "battery low 3 %"


def test_a_board_short_of_memory_pauses_learning_until_it_has_some_again(now, sensors, tmp_path):
    pressure = Pressure(tmp_path, clock=lambda: now.s)
    under = Budget(thermal=sensors.thermal, power=sensors.power, pressure=pressure, clock=lambda: now.s)
    seen = []
    for free in (50, 4, 50, 50, 50, 50, 50, 50, 50, 50):
        sensors.set("proc/meminfo", f"MemTotal: 100 kB\nMemAvailable: {free} kB")
        seen += [(event["kind"], event["reason"], event["why"]) for event in poll(under, now)]
    assert seen == [("paused", "under pressure", "4% of the memory free"), ("resumed", "under pressure", "")]


def test_without_sensors_learning_goes_on_and_info_says_so(budget, now):
    under = budget(ms_per_frame=None)
    assert poll(under, now) == []
    assert under.grant(4) == 4
    told = under.info()
    assert [told[name] for name in ("temperature_c", "battery_percent", "discharging")] == [UNAVAILABLE] * 3


def test_a_sensor_that_falls_silent_changes_no_decision(budget, now, sensors):
    under = budget()
    sensors.set("thermal/thermal_zone0/temp", 90_000)
    assert len(poll(under, now)) == 1
    sensors.set("thermal/thermal_zone0/temp", None)
    assert poll(under, now) == []
    assert under.paused
    assert under.info()["temperature_c"] == UNAVAILABLE
    sensors.set("thermal/thermal_zone0/temp", 30_000)
    assert [event["kind"] for event in poll(under, now)] == ["resumed"]


@pytest.mark.parametrize("text", ["", "warm", "-274000", "2147483647", "nan", "inf", "42 C", "\xff"])
def test_a_temperature_that_makes_no_sense_is_not_read(sensors, text):
    sensors.set("thermal/thermal_zone0/temp", text)
    assert hottest_c(sensors.thermal) is None
    sensors.set("thermal/thermal_zone1/temp", 41_500)
    assert hottest_c(sensors.thermal) == 41.5


def test_a_zone_that_refuses_to_be_read_is_left_out(sensors):
    (sensors.thermal / "thermal_zone0" / "temp").mkdir(parents=True)  # reading a folder is an OSError
    assert hottest_c(sensors.thermal) is None


def test_of_several_batteries_the_one_that_is_discharging_counts(sensors):
    for name, percent, status in [("BAT0", 5, "Not charging"), ("BAT1", 80, "Discharging"), ("BAT2", 90, "Full")]:
        sensors.set(f"power/{name}/capacity", percent)
        sensors.set(f"power/{name}/status", status)
    assert battery_percent(sensors.power) == (80, True)
    sensors.set("power/BAT1/status", "Full")
    assert battery_percent(sensors.power) == (5, False)


def test_the_battery_of_a_mouse_is_not_the_robots(sensors):
    sensors.set("power/hid/capacity", 4)
    sensors.set("power/hid/status", "Discharging")
    sensors.set("power/hid/scope", "Device")
    assert battery_percent(sensors.power) is None


def test_sensors_are_looked_at_no_more_often_than_asked_for(budget, now, sensors):
    under = budget(poll_s=5.0)
    assert under.poll() == []
    sensors.set("thermal/thermal_zone0/temp", 90_000)
    now.s += 4.9
    assert under.poll() == []
    now.s += 0.2
    assert len(under.poll()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("ms_per_frame", -1.0), ("steps_per_minute", -3), ("burst_ms", 0.0), ("poll_s", 0.0), ("cooler_by_c", -1.0),
     ("max_temperature_c", float("nan")), ("ms_per_frame", float("nan"))],
)  # fmt: skip
def test_a_limit_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(InputError, match=name):
        BudgetConfig(**{name: value})
