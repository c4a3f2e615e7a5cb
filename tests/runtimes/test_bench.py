"""`edgessl bench` on a bundle of some kilobytes: what is in its report, and that nothing is left out or made up."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from edgessl.bundle import open_bundle
from edgessl.cli.bench import shown
from edgessl.cli.main import app
from edgessl.errors import EngineError, InputError
from edgessl.runtimes import bench as module
from edgessl.runtimes import coldstart
from edgessl.runtimes.bench import BenchConfig, bench
from edgessl.runtimes.benchdrawing import drawing
from edgessl.runtimes.clocks import machine_state
from edgessl.runtimes.contenders import contender_named, contenders_of
from edgessl.runtimes.engines import EngineSettings
from edgessl.runtimes.power import Rails

QUICK = BenchConfig(seconds=0.02, rate_hz=200, batches=(1, 3), fresh=False)


@pytest.fixture(scope="module")
def report(tiny, tmp_path_factory):
    return bench(contenders_of(open_bundle(tiny)), QUICK, root=tmp_path_factory.mktemp("empty"))


def row_of(report, name):
    return next(row for row in report.rows if row["name"] == name)


def test_every_engine_in_every_precision_has_a_row(tiny, report):
    names = [row["name"] for row in report.rows]
    assert names[:2] == ["onnxruntime fp32", "onnxruntime int8"]
    assert {name.split()[0] for name in names} == {"onnxruntime", "openvino", "tensorrt"}


def test_what_runs_has_every_figure(report):
    row = row_of(report, "onnxruntime int8")
    assert row["ok"]
    assert row["reason"] == ""
    assert 0 < row["flat_out"]["p50_ms"] <= row["flat_out"]["p95_ms"] <= row["flat_out"]["p99_ms"]
    assert row["paced"]["rate_hz"] == 200
    assert row["paced"]["calls"] + row["paced"]["dropped"] == 4
    assert set(row["per_second"]) == {"1", "3"}
    assert row["info"]["engine"] == "onnxruntime"
    assert row_of(report, "onnxruntime fp32")["ratio"]["ratio"] == 1


def test_what_cannot_run_is_a_row_with_the_reason(report):
    row = row_of(report, "tensorrt fp32")
    if row["ok"]:
        pytest.skip("TensorRT runs here")
    assert row["reason"]
    assert "flat_out" not in row
    assert row["name"] in [line[""] for line in shown(report)]


def test_without_a_meter_energy_is_unavailable_and_said_so(report):
    assert row_of(report, "onnxruntime fp32")["energy"].startswith("unavailable: no power rail")
    assert report.power == {
        "source": "unavailable",
        "missing": "no power rail, energy counter or discharging battery under /sys",
        "idle_w": None,
    }


def test_a_system_that_says_nothing_of_itself_is_unavailable_too(report):
    assert {report.machine["before"][key] for key in ("power_mode", "governor", "cpu_mhz", "temperature_c")} == {
        "unavailable"
    }
    assert report.machine["before"]["held_back"] == []


def test_the_report_is_json(report):
    assert json.loads(json.dumps(report.to_json()))["config"]["batches"] == [1, 3]


def test_slow_encoders_get_shorter_turns_rather_than_fewer():
    assert module.calls_per_turn(1e-4, 8.0) == 5
    assert module.calls_per_turn(0.2, 8.0) == 3
    assert module.calls_per_turn(5.0, 8.0) == 2


def test_golden_samples_are_the_input_in_a_circle(tiny):
    bundle = open_bundle(tiny)
    golden = bundle.tensors("golden", "samples")["samples"]
    seen = []
    encoder = SimpleNamespace(embed=seen.append)
    run = module._Open(contender=None, encoder=encoder, samples=golden[:5]).runs(2)
    for _ in range(4):
        run()
    assert np.array_equal(np.concatenate(seen), golden[[0, 1, 2, 3, 4, 0, 0, 1]])


RAILS = SimpleNamespace(source="board rails", missing="", averaged=False, total_w=lambda: None)


def test_energy_is_above_rest_and_per_embedding(monkeypatch):
    """28 J in 4 s are 7 W; 2 W of them are rest. Ten calls of an eighth of a second are .125 J times 5 each."""
    now = SimpleNamespace(s=100.0)

    class Steady:
        joules, seconds, readings, mean_w = 28.0, 4.0, 80, 7.0

        def __init__(self, rails):
            assert rails is RAILS

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    def call():
        now.s += 0.125

    monkeypatch.setattr(module, "EnergyMeter", Steady)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now.s))
    found = module._energy(SimpleNamespace(runs=lambda batch: call), 1.25, RAILS, 2.0)
    assert found == {
        "mj_per_embedding": 625.0,
        "mean_w": 7.0,
        "idle_w": 2.0,
        "readings": 80,
        "source": "board rails",
    }


def test_a_meter_that_gave_too_few_readings_is_told():
    opened = SimpleNamespace(runs=lambda batch: int)
    found = module._energy(opened, 0.001, RAILS, None)
    assert found.startswith("unavailable: the board rails gave fewer than two readings; type --seconds")


def test_energy_stands_in_the_report_of_a_board_with_rails(tiny, tmp_path):
    chip = tmp_path / "sys/bus/i2c/devices/1-0040/hwmon/hwmon1"
    chip.mkdir(parents=True)
    for name, value in {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": 5000, "curr1_input": 1000}.items():
        (chip / name).write_text(f"{value}\n")
    only = contenders_of(open_bundle(tiny))[:1]
    found = bench(only, BenchConfig(seconds=0.15, batches=(1,), fresh=False), root=tmp_path)
    assert found.power["idle_w"] == 5
    energy = found.rows[0]["energy"]
    assert energy["mean_w"] == 5
    assert energy["mj_per_embedding"] == 0  # the same at work as at rest
    assert "0 mJ" in drawing(found)


def test_clocks_and_power_mode_of_a_jetson_are_recorded(tmp_path):
    files = {
        "var/lib/nvpmodel/status": "pmode:0001",
        "etc/nvpmodel.conf": "# modes\n< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=25W >",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": 729600,
        "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": 1344000,
        "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": 1728000,
        "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": 1113600,
        "sys/class/devfreq/17000000.gpu/cur_freq": 306000000,
        "sys/class/devfreq/17000000.gpu/max_freq": 1020000000,
        "sys/class/thermal/thermal_zone0/temp": 51234,
    }
    for name, value in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    assert machine_state(tmp_path) == {
        "power_mode": "25W (1)",
        "governor": "schedutil",
        "cpu_mhz": 1114,
        "cpu_allowed_mhz": 1344,
        "cpu_max_mhz": 1728,
        "gpu_mhz": 306,
        "gpu_max_mhz": 1020,
        "temperature_c": 51.2,
        "held_back": [],
    }


def test_contenders_are_named_by_engine_and_precision_or_by_another_bundle(tiny, own):
    named = contender_named("onnxruntime:int8", tiny)
    assert (named.engine, named.precision, named.bundle.path) == ("onnxruntime", "int8", tiny)
    other = contender_named(f"{own}:openvino:fp32", tiny)
    assert (other.engine, other.precision, other.bundle.path) == ("openvino", "fp32", own)
    assert contender_named(str(own), None).precision == "int8"  # the cheapest, as edgessl.open takes it


def test_a_contender_that_is_nothing_is_told_with_what_to_type(tiny):
    with pytest.raises(InputError, match="ENGINE:PRECISION"):
        contender_named("onnxruntime:int3", tiny)
    with pytest.raises(InputError, match="of which bundle"):
        contender_named("onnxruntime:int8", None)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"rate_hz": -1}, {"batches": ()}, {"batches": (0,)}])
def test_a_config_that_cannot_be_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        BenchConfig(**wrong)


def test_two_contenders_of_one_name_are_refused(tiny):
    twice = contenders_of(open_bundle(tiny))[:1] * 2
    with pytest.raises(InputError, match="names of their own"):
        bench(twice, QUICK)


def test_the_picture_is_xml_and_shows_every_row(report):
    root = ET.fromstring(drawing(report))
    texts = [element.text or "" for element in root.iter() if element.tag.endswith("}text")]
    for row in report.rows:
        assert row["name"] in texts
    assert not re.search(r"nan|inf\b|None", " ".join(texts))


def test_peak_memory_is_the_kernels_mark_of_this_process(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("Name:\tpython\nVmPeak:\t  99999 kB\nVmHWM:\t   20480 kB\n")
    assert coldstart.peak_mib(tmp_path) == 20
    assert coldstart.peak_mib(tmp_path / "nowhere") > 1


@pytest.mark.slow
def test_a_fresh_process_gives_a_vector_and_says_what_it_took(tiny):
    found = coldstart.cold_start(
        tiny, engine="onnxruntime", precision="int8", settings=asdict(EngineSettings(threads=1)), starts=1
    )
    assert 0 < found.open_ms < found.process_ms
    assert 5 < found.peak_mib < 2000


@pytest.mark.slow
def test_a_fresh_process_that_fails_is_told_with_its_last_line(tmp_path):
    with pytest.raises(EngineError, match="there is no bundle"):
        coldstart.cold_start(tmp_path / "no.edgessl", engine="onnxruntime", precision="fp32", settings={}, starts=1)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in ("bench", *words)], prog_name="edgessl")


FAST = ("--seconds", "0.02", "--rate", "200", "--no-fresh", "--batches", "1")


def test_the_command_compares_two_and_writes_both_files(tiny, tmp_path):
    report, picture = tmp_path / "bench.json", tmp_path / "bench.svg"
    done = run(tiny, "--compare", "onnxruntime:fp32", "onnxruntime:int8", *FAST, "-o", report, "-o", picture)
    assert done.exit_code == 0, done.output
    assert re.search(r"int8 takes \d+\.\d+ of the time of .* fp32 \(half of \d+ rounds between", done.stdout)
    rows = json.loads(report.read_text())["rows"]
    assert [row["precision"] for row in rows] == ["fp32", "int8"]
    assert rows[1]["ratio"]["low"] <= rows[1]["ratio"]["ratio"] <= rows[1]["ratio"]["high"]
    ET.fromstring(picture.read_text())
    assert run(tiny, *FAST, "-o", report).exit_code == 1  # it exists


def test_the_command_compares_two_bundles_without_a_third(tiny, tmp_path):
    other = shutil.copytree(tiny, tmp_path / "other.edgessl")
    done = run("--compare", tiny, other, *FAST, "--json")
    assert done.exit_code == 0, done.output
    assert [row["name"] for row in json.loads(done.stdout)["rows"]] == [
        "tiny.edgessl onnxruntime int8",
        "other.edgessl onnxruntime int8",
    ]


def test_threads_and_low_power_reach_the_engine(tiny):
    done = run(tiny, "--compare", "onnxruntime:fp32", "onnxruntime:int8", *FAST, "--low-power", "--json")
    assert {row["info"]["threads"] for row in json.loads(done.stdout)["rows"]} == {1}
    assert run(tiny, *FAST, "--low-power", "--threads", 2).exit_code == 1


@pytest.mark.parametrize("words", [(), ("--batches", "1,x"), ("-o", "bench.png"), ("--rate", "0")])
def test_what_cannot_be_asked_is_told(tiny, words):
    assert run(*([tiny] if words else []), *words).exit_code == 1


def test_a_bundle_of_which_nothing_runs_leaves_with_an_error(tiny):
    done = run("--compare", f"{tiny}:tensorrt:fp32", f"{tiny}:tensorrt:int8", *FAST)
    if "cannot run here" not in done.stdout:
        pytest.skip("TensorRT runs here")
    assert done.exit_code == 1
    assert "edgessl doctor" in done.stderr


def test_a_comparison_of_which_one_cannot_run_is_an_error(tiny):
    done = run(tiny, "--compare", "onnxruntime:fp32", "tensorrt:fp32", *FAST)
    if "cannot run here" not in done.stdout:
        pytest.skip("TensorRT runs here")
    assert done.exit_code == 1
    assert "nothing to compare" in done.stderr


def test_a_graph_that_opens_and_fails_when_it_runs_is_a_row_with_the_reason(tiny, monkeypatch):
    def fails(self, frames):
        raise EngineError("the device went away")

    monkeypatch.setattr("edgessl.runtimes.contenders.Encoder.embed", fails)
    report = bench(contenders_of(open_bundle(tiny))[:1], QUICK)
    assert (report.rows[0]["ok"], report.rows[0]["reason"]) == (False, "the device went away")


def test_the_rails_of_this_machine_never_stop_a_bench():
    assert isinstance(Rails().read_w(), dict)


def test_a_figure_that_is_a_reason_is_told_below_the_table(tiny, monkeypatch):
    def fails(*args, **settings):
        raise EngineError("a fresh process failed: no memory")

    monkeypatch.setattr(module, "cold_start", fails)
    done = run(
        tiny, "--compare", "onnxruntime:fp32", "onnxruntime:int8", *(word for word in FAST if word != "--no-fresh")
    )
    assert "fp32: cold_start unavailable: a fresh process failed: no memory" in done.stdout
    assert "energy unavailable" not in done.stdout.replace("\nenergy unavailable", "")  # once, for all rows
