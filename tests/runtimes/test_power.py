"""Power meters on made-up sysfs trees: rails, counters that wrap, batteries, and the energy they add up to."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from edgessl.runtimes.power import BATTERY, BOARD, COUNTERS, EnergyMeter, Rails, total_w

CHIP = "bus/i2c/devices/1-0040/hwmon/hwmon3"
ORIN_NANO = {
    f"{CHIP}/name": "ina3221",
    f"{CHIP}/in1_label": "VDD_IN",
    f"{CHIP}/in1_input": 5000,
    f"{CHIP}/curr1_input": 1240,
    f"{CHIP}/in2_label": "VDD_CPU_GPU_CV",
    f"{CHIP}/in2_input": 5008,
    f"{CHIP}/curr2_input": 250,
    f"{CHIP}/in3_label": "VDD_SOC",
    f"{CHIP}/in3_input": 5000,
    f"{CHIP}/curr3_input": 300,
    f"{CHIP}/in7_label": "sum of shunt voltages",
    f"{CHIP}/in7_input": 9,
    f"{CHIP}/curr7_input": 9,
}
RAPL = "class/powercap/intel-rapl:0"


@pytest.fixture
def sysfs(tmp_path):
    """A tree of files; `put({path: value})` makes or changes some, a value of None takes one away."""

    def put(files):
        for name, value in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            if value is not None:
                file.write_text(f"{value}\n")

    return SimpleNamespace(root=tmp_path, put=put)


@pytest.fixture
def now():
    return SimpleNamespace(s=10.0)


def test_reads_the_rails_of_an_orin_nano_and_its_total(sysfs):
    sysfs.put(ORIN_NANO)
    rails = Rails(sysfs.root)
    assert rails.read_w() == pytest.approx({"VDD_IN": 6.2, "VDD_CPU_GPU_CV": 1.252, "VDD_SOC": 1.5})
    assert rails.total_w() == pytest.approx(6.2)
    assert (rails.source, rails.missing, rails.averaged) == (BOARD, "", False)


def test_a_channel_that_is_not_connected_is_no_rail_and_others_are_summed(sysfs):
    """AGX Orin: two chips, no total, and one rail that is fed from another."""
    first, second = "bus/i2c/devices/1-0040/hwmon/hwmon3", "bus/i2c/devices/1-0041/hwmon/hwmon4"
    for chip, labels in (
        (first, ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]),
        (second, ["NC", "VDDQ_VDD2_1V8AO", "NC"]),
    ):
        sysfs.put({f"{chip}/name": "ina3221"})
        for channel, label in enumerate(labels, start=1):
            values = {"label": label, "input": 1000 * channel}
            sysfs.put({f"{chip}/in{channel}_{key}": value for key, value in values.items()})
            sysfs.put({f"{chip}/curr{channel}_input": 1000})
    rails = Rails(sysfs.root)
    assert rails.read_w() == {"VDD_GPU_SOC": 1, "VDD_CPU_CV": 2, "VIN_SYS_5V0": 3, "VDDQ_VDD2_1V8AO": 2}
    assert rails.total_w() == 6


def test_the_meter_in_front_of_a_thor_is_its_total(sysfs):
    sysfs.put({f"{CHIP}/name": "ina238", f"{CHIP}/power1_input": 31_500_000})
    other = CHIP.replace("1-0040", "1-0041")
    sysfs.put({f"{other}/name": "ina3221", f"{other}/in1_label": "VDD_GPU"})
    sysfs.put({f"{other}/in1_input": 12000, f"{other}/curr1_input": 500})
    rails = Rails(sysfs.root)
    assert rails.read_w() == {"VIN": 31.5, "VDD_GPU": 6}
    assert rails.total_w() == 31.5


def test_another_chip_on_the_bus_is_no_power_meter(sysfs):
    sysfs.put({f"{CHIP}/name": "nct1008", f"{CHIP}/in1_label": "VDD_IN"})
    sysfs.put({f"{CHIP}/in1_input": 5000, f"{CHIP}/curr1_input": 1})
    assert Rails(sysfs.root).read_w() == {}


def test_counters_become_watts_between_two_readings(sysfs, now):
    sysfs.put({f"{RAPL}/name": "package-0", f"{RAPL}/energy_uj": 1_000_000, f"{RAPL}/max_energy_range_uj": 5_000_000})
    sysfs.put({f"{RAPL}:0/name": "core", f"{RAPL}:0/energy_uj": 1})  # inside the package, and in its count
    rails = Rails(sysfs.root, clock=lambda: now.s)
    assert (rails.source, rails.averaged) == (COUNTERS, True)
    now.s += 0.5
    sysfs.put({f"{RAPL}/energy_uj": 4_000_000})
    assert rails.read_w() == {"package-0": 6.0}


def test_a_counter_that_wraps_loses_nothing(sysfs, now):
    sysfs.put({f"{RAPL}/name": "package-0", f"{RAPL}/energy_uj": 4_800_000, f"{RAPL}/max_energy_range_uj": 5_000_000})
    rails = Rails(sysfs.root, clock=lambda: now.s)
    now.s += 1
    sysfs.put({f"{RAPL}/energy_uj": 300_000})
    assert rails.read_w() == pytest.approx({"package-0": 0.5})


def test_a_battery_is_the_last_resort_and_counts_only_while_it_discharges(sysfs):
    battery = "class/power_supply/BAT0"
    sysfs.put({f"{battery}/status": "Discharging", f"{battery}/voltage_now": 12_000_000})
    sysfs.put({f"{battery}/current_now": 750_000, "class/power_supply/hid/status": "Discharging"})
    sysfs.put({"class/power_supply/hid/scope": "Device", "class/power_supply/hid/power_now": 5_000_000})
    rails = Rails(sysfs.root)
    assert (rails.source, rails.read_w()) == (BATTERY, {"BAT0": 9.0})
    sysfs.put({f"{battery}/power_now": 8_500_000})
    assert rails.read_w() == {"BAT0": 8.5}
    sysfs.put({f"{battery}/status": "Charging"})
    assert rails.read_w() == {}
    assert rails.total_w() is None


def test_rails_go_before_counters_and_batteries(sysfs):
    sysfs.put({f"{RAPL}/energy_uj": 5, "class/power_supply/BAT0/status": "Discharging"})
    sysfs.put({"class/power_supply/BAT0/power_now": 5})
    assert Rails(sysfs.root).source == COUNTERS
    sysfs.put(ORIN_NANO)
    assert Rails(sysfs.root).source == BOARD


def test_a_machine_without_meters_says_so(sysfs):
    for root in (sysfs.root, sysfs.root / "not" / "there"):
        rails = Rails(root)
        assert (rails.source, rails.read_w(), rails.total_w()) == ("", {}, None)
        assert "no power rail" in rails.missing


def test_counters_that_may_not_be_read_are_told_with_the_line_to_type(sysfs):
    (sysfs.root / RAPL / "energy_uj").mkdir(parents=True)  # reading a folder is an OSError
    rails = Rails(sysfs.root)
    assert rails.read_w() == {}
    assert "sudo chmod" in rails.missing


def test_a_rail_that_cannot_be_read_is_left_out_and_the_others_are_there(sysfs):
    sysfs.put(ORIN_NANO)
    rails = Rails(sysfs.root)
    sysfs.put({f"{CHIP}/curr2_input": "n/a"})
    assert set(rails.read_w()) == {"VDD_IN", "VDD_SOC"}


def test_the_total_is_the_rail_that_feeds_the_others():
    assert total_w({"VDD_SOC": 1.0, "VDD_IN": 4.0}) == 4.0
    assert total_w({"package-0": 3.0, "package-1": 4.0}) == 7.0
    assert total_w({"package-0": 3.0, "psys": 11.0}) == 11.0


def test_energy_is_the_integral_of_power(sysfs, now):
    """Power rises as a line and then as half a sine; the meter must give their integrals."""
    sysfs.put(ORIN_NANO)
    meter = EnergyMeter(Rails(sysfs.root, clock=lambda: now.s), clock=lambda: now.s)
    watts = [2.0 + 0.5 * step for step in range(9)]  # each 0.25 s
    for value in watts:
        sysfs.put({f"{CHIP}/curr1_input": value * 200})
        meter.read()
        now.s += 0.25
    assert meter.joules == pytest.approx(2.0 * (2.0 + 6.0) / 2)
    assert meter.seconds == pytest.approx(2.0)
    assert meter.mean_w == pytest.approx(4.0)
    other = EnergyMeter(Rails(sysfs.root, clock=lambda: now.s), clock=lambda: now.s)
    steps = 200
    for step in range(steps + 1):
        sysfs.put({f"{CHIP}/curr1_input": 2000 * math.sin(math.pi * step / steps)})
        other.read()
        now.s += 3 / steps
    assert other.joules == pytest.approx(10 * 3 * 2 / math.pi, rel=1e-4)


def test_energy_from_counters_is_what_they_counted(sysfs, now):
    sysfs.put({f"{RAPL}/name": "package-0", f"{RAPL}/energy_uj": 0, f"{RAPL}/max_energy_range_uj": 3_000_000})
    rails = Rails(sysfs.root, clock=lambda: now.s)
    meter = EnergyMeter(rails, clock=lambda: now.s)
    meter.read()
    for count, pause in ((1_000_000, 0.3), (2_900_000, 0.7), (400_000, 0.1)):  # the last one wrapped
        now.s += pause
        sysfs.put({f"{RAPL}/energy_uj": count})
        meter.read()
    assert meter.joules == pytest.approx(3.4)
    assert meter.seconds == pytest.approx(1.1)


def test_the_meter_reads_beside_what_runs_until_that_ends(sysfs, now):
    sysfs.put(ORIN_NANO)
    turns = iter([False] * 6 + [True])

    def wait(seconds):
        now.s += seconds
        return next(turns)

    meter = EnergyMeter(Rails(sysfs.root), every_s=0.5, clock=lambda: now.s, wait=wait)
    with meter:
        meter._thread.join(5)
    assert meter.readings == 7
    assert meter.joules == pytest.approx(6.2 * 3.0)


def test_a_meter_without_rails_measures_nothing(sysfs):
    with EnergyMeter(Rails(sysfs.root)) as meter:
        pass
    assert (meter.joules, meter.mean_w, meter.readings) == (0, None, 0)


def test_a_reading_that_fails_in_between_is_bridged(sysfs, now):
    sysfs.put(ORIN_NANO)
    meter = EnergyMeter(Rails(sysfs.root), clock=lambda: now.s)
    for current in (1000, None, 1000):
        sysfs.put({f"{CHIP}/curr{channel}_input": current for channel in (1, 2, 3)})
        meter.read()
        now.s += 1
    assert meter.joules == pytest.approx(10.0)
