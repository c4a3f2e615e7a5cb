"""The doctor on five made-up machines, each a tree of the files that such a board has."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from edgessl.bundle import open_bundle
from edgessl.cli.main import app
from edgessl.runtimes.box import Interpreter, look, numbers, this_interpreter
from edgessl.runtimes.doctor import examine, has_attention
from edgessl.runtimes.traps import NOTE, TRAPS, WRONG

ENGINES = {"numpy": "2.2.6", "safetensors": "0.7.0", "pillow": "12.0.0", "onnxruntime": "1.23.2"}
JETSON = {
    "usr/local/cuda/version.json": json.dumps({"cuda": {"name": "CUDA SDK", "version": "12.6.68"}}),
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.10": "",
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0": "",
    "usr/lib/aarch64-linux-gnu/nvidia/libnvdla_compiler.so": "code",
    "usr/lib/python3.10/dist-packages/tensorrt/__init__.py": "",
    "usr/lib/python3.10/dist-packages/tensorrt-10.3.0.dist-info/METADATA": "",
}
RAIL = "sys/bus/i2c/devices/1-0040/hwmon/hwmon1"
ORIN_NANO = JETSON | {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan 8",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp asimddp\n",
    "proc/meminfo": "MemTotal:        7802952 kB\nMemFree: 1 kB\nMemAvailable:    4901476 kB\n",
    "var/lib/nvpmodel/status": "pmode:0000",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": 1344000,
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": 1344000,
    "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": 1728000,
    "sys/class/devfreq/17000000.gpu/cur_freq": 306000000,
    "sys/class/devfreq/17000000.gpu/max_freq": 624750000,
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": 49500,
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": 99000,
    "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0",
    "sys/class/thermal/cooling_device0/cur_state": 0,
    f"{RAIL}/name": "ina3221",
    f"{RAIL}/in1_label": "VDD_IN",
    f"{RAIL}/in1_input": 5000,
    f"{RAIL}/curr1_input": 900,
    "dev/video0": "",
    "dev/video10": "",
    "dev/video2": "",
    "sys/class/video4linux/video0/name": "vi-output, imx219 9-0010",
}
THOR = {
    "etc/nv_tegra_release": "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64",
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp sve i8mm bf16\n",
    "proc/meminfo": "MemTotal:  128748888 kB\nMemAvailable:   99999999 kB\n",
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.00  Release Build",
    "usr/local/cuda/version.json": json.dumps({"cuda": {"name": "CUDA SDK", "version": "13.0.48"}}),
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.13.3": "",
    "usr/lib/python3.12/dist-packages/tensorrt-10.13.3.9.dist-info/METADATA": "",
    "sys/class/devfreq/gpu-gpc-0/cur_freq": 1575000000,
    "sys/class/devfreq/gpu-gpc-0/max_freq": 1575000000,
    "sys/class/thermal/thermal_zone0/temp": 42000,
}
LAPTOP = {
    "proc/cpuinfo": "processor : 0\nmodel name : 11th Gen Intel(R) Core(TM) i7-1165G7\nflags : sse4_2 avx2 avx512f avx512_vnni\n",
    "proc/meminfo": "MemTotal: 16106128 kB\nMemAvailable: 800000 kB\n",
    "sys/firmware/acpi/platform_profile": "balanced",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "powersave",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": 400000,
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": 4700000,
    "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": 4700000,
    "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone0/temp": 96000,
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": 95000,
    "sys/class/thermal/cooling_device0/type": "Processor",
    "sys/class/thermal/cooling_device0/cur_state": 3,
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": 12345,
}
PI = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 asimddp\nModel : Raspberry Pi 5\n",
    "proc/meminfo": "MemTotal: 8256208 kB\nMemAvailable: 6000000 kB\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": 61200,
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "critical",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": 110000,
    "sys/devices/platform/soc@107c000000/soc:firmware/get_throttled": "50005",
}
CONTAINER = {
    ".dockerenv": "",
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: avx2\n",
    "proc/meminfo": "MemTotal: 4000000 kB\nMemAvailable: 3000000 kB\n",
}


def here(machine, python=(3, 12), *, venv=False, bindings=False, extras=(), readable=True, **packages):
    versions = ENGINES | packages
    modules = {"tensorrt": bindings} | dict.fromkeys(extras, True)
    return Interpreter(
        machine=machine,
        python=python,
        in_venv=venv,
        version=lambda name: versions.get(name, ""),
        importable=lambda name: modules.get(name, False),
        readable=lambda file: readable,
    )


@pytest.fixture
def tree(tmp_path):
    def write(files):
        for name, content in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(content))
        return tmp_path

    return write


def told(checkup):
    return {fact.name: fact for fact in checkup.facts}


def traps(checkup):
    return {trap.name for trap in checkup.traps}


def test_an_orin_nano_with_jetpack_6(tree):
    checkup = examine(tree(ORIN_NANO), here=here("aarch64", (3, 10), bindings=True, extras=["cv2"]))
    found = told(checkup)
    assert found["board"].value == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert found["L4T"].value == "36.4.3 (JetPack 6.2)"
    assert found["CUDA"].value == "12.6.68"
    assert found["tensorrt"].value == "10.3.0"
    assert found["cpu int8"].value == "NEON, dotprod"
    assert found["cpu int8"].ok
    assert found["memory"].value == "7.4 GiB, 4.7 GiB free"
    assert found["power mode"].value == "15W (0), governor schedutil"
    assert found["clocks"].value == "cpu 1344 of 1728 MHz, gpu 306 of 625 MHz"
    assert found["clocks"].hint == "the cpu may take no more than 1344 MHz"
    assert found["temperature"].value == "49.5 C"
    assert found["throttled"].value == "no"
    assert found["energy"].value == "board rails"
    assert (
        found["cameras"].value
        == "/dev/video0 (vi-output, imx219 9-0010), /dev/video2 (no name), /dev/video10 (no name)"
    )
    assert traps(checkup) == {"tensorrt-vit", "tensorrt-build-memory", "onnxruntime-python-3.10"}
    assert checkup.missing == []


def test_bindings_in_dist_packages_are_not_seen_from_a_plain_venv(tree):
    checkup = examine(tree(ORIN_NANO), here=here("aarch64", (3, 10), venv=True))
    fact = told(checkup)["tensorrt"]
    assert fact.value == "10.3.0, only in " + str(tree({}) / "usr/lib/python3.10/dist-packages")
    assert not fact.ok
    assert "--system-site-packages" in fact.hint
    assert "tensorrt-not-in-venv" in traps(checkup)
    other = traps(examine(tree({}), here=here("aarch64", (3, 12))))
    assert "tensorrt-other-python" in other
    assert "tensorrt-not-in-venv" not in other


def test_a_thin_jetpack_6_without_the_dla_compiler_is_told(tree):
    """Containers hold an empty file in its place."""
    root = tree(ORIN_NANO | {"usr/lib/aarch64-linux-gnu/nvidia/libnvdla_compiler.so": ""})
    checkup = examine(root, here=here("aarch64", (3, 10), bindings=True))
    trap = next(trap for trap in checkup.traps if trap.name == "tensorrt-dla-compiler")
    assert trap.do == "sudo apt install nvidia-l4t-dla-compiler"


def test_a_camera_that_may_not_be_opened_is_told_with_the_group(tree):
    found = told(examine(tree(ORIN_NANO), here=here("aarch64", readable=False)))["cameras"]
    assert not found.ok
    assert "sudo usermod -aG video" in found.hint


def test_a_camera_without_opencv_is_told_with_the_extra(tree):
    assert told(examine(tree(ORIN_NANO), here=here("aarch64")))["cameras"].hint == "pip install 'edgessl[camera]'"


def test_an_agx_thor_with_jetpack_7(tree):
    checkup = examine(tree(THOR), here=here("aarch64", bindings=True, onnxruntime="1.31.1", openvino="2026.4.1"))
    found = told(checkup)
    assert found["L4T"].value == "38.2.0 (JetPack 7.0)"
    assert found["CUDA"].value == "13.0.48"
    assert found["NVIDIA driver"].value == "580.00"
    assert found["tensorrt"].value == "10.13.3"
    assert found["cpu int8"].value == "NEON, dotprod, i8mm"
    assert found["clocks"].value == "cpu unavailable, gpu 1575 of 1575 MHz"
    assert traps(checkup) == {"tensorrt-thor-batch-1", "openvino-int8-arm", "onnxruntime-telemetry"}


def test_a_hot_laptop_short_of_memory(tree):
    checkup = examine(tree(LAPTOP), here=here("x86_64", openvino="2026.4.1"))
    found = told(checkup)
    assert found["cpu"].value.startswith("11th Gen Intel")
    assert found["cpu int8"].value == "AVX2, AVX-512, AVX512-VNNI"
    assert found["power mode"].value == "balanced, governor powersave"
    assert not found["temperature"].ok
    assert found["temperature"].hint == "x86_pkg_temp 96.0 C of 95 C: adaptation pauses"
    assert not found["throttled"].ok
    assert "slows down from 95 C" in found["throttled"].value
    assert "Processor cools the processor by slowing it, step 3" in found["throttled"].value
    assert not found["memory"].ok
    assert found["energy"].value == "RAPL counters"
    assert found["tensorrt"].hint == "needs an NVIDIA GPU"
    assert "L4T" not in found
    assert "CUDA" not in found
    assert traps(checkup) == set()


def test_a_raspberry_pi_5_on_a_weak_supply(tree):
    checkup = examine(tree(PI), here=here("aarch64", (3, 11)))
    found = told(checkup)
    assert found["board"].value == "Raspberry Pi 5 Model B Rev 1.0"
    assert found["temperature"].ok
    assert found["throttled"].value == "the supply's voltage is too low; throttled"
    assert found["energy"].value == "unavailable"
    assert found["openvino"].hint == "not worth it on ARM"
    assert "L4T" not in found
    assert traps(checkup) == set()


def test_a_container_without_sys(tree):
    checkup = examine(tree(CONTAINER), here=here("x86_64"))
    found = told(checkup)
    assert found["container"].value == "this runs in one"
    assert found["power mode"].value == "unavailable, governor unavailable"
    assert found["temperature"].value == found["throttled"].value == found["energy"].value == "unavailable"
    assert found["cameras"].value == "none"
    assert not found["cpu int8"].ok
    assert traps(checkup) == {"onnxruntime-int8-no-vnni"}
    assert checkup.missing == []


def test_a_machine_that_says_nothing_leaves_rows_empty(tmp_path):
    found = told(examine(tmp_path / "nowhere", here=here("riscv64")))
    assert found["memory"].value == ""
    assert "board" not in found


def test_what_is_needed_and_missing_is_told_with_the_line_to_type(tree):
    checkup = examine(tree(PI), here=here("aarch64", onnxruntime="", safetensors=""))
    assert checkup.missing == [
        "safetensors: pip install safetensors",
        "onnxruntime: pip install 'edgessl[onnxruntime]'",
    ]


def test_what_is_not_needed_may_be_missing():
    checkup = examine(here=this_interpreter())
    assert checkup.missing == []
    assert told(checkup)["numpy"].value == np.__version__


def test_a_package_that_is_not_there_has_no_version(monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert this_interpreter().version("onnxruntime") == ""


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("# R35 (release), REVISION: 4.1, GCID", ("35.4.1", "5.1")),
        ("# R36 (release), REVISION: 3.0, GCID", ("36.3.0", "6.0")),
        ("# R36 (release), REVISION: 4.0, GCID", ("36.4.0", "6.1")),
        ("# R36 (release), REVISION: 4.7, GCID", ("36.4.7", "6.2.1")),
        ("# R36 (release), REVISION: 5.0, GCID", ("36.5.0", "6.2.2")),
        ("# R38 (release), REVISION: 4.0, GCID", ("38.4.0", "7.1")),
        ("# R39 (release), REVISION: 2.0, GCID", ("39.2.0", "7.2")),
        ("# R99 (release), REVISION: 1.0, GCID", ("99.1.0", "")),
        ("something else", ("", "")),
    ],
)
def test_l4t_releases_are_jetpacks(tree, release, expected):
    box = look(tree({"etc/nv_tegra_release": release}), here("aarch64"))
    assert (box.l4t, box.jetpack) == expected


def test_l4t_is_found_in_the_package_list_where_its_file_is_not(tree):
    status = (
        "Package: bash\nVersion: 5\n\nPackage: nvidia-l4t-core\nStatus: install ok\nVersion: 36.4.4-20250616085344\n\n"
    )
    assert look(tree({"var/lib/dpkg/status": status}), here("aarch64")).jetpack == "6.2.1"


def test_versions_are_numbers_up_to_the_first_word():
    assert numbers("10.3.0.30-1+cuda12.5") == (10, 3, 0, 30)
    assert numbers("") == numbers("n/a") == ()


@pytest.fixture
def box(tmp_path):
    return look(tmp_path, here("x86_64"))


def test_every_trap_has_a_source_and_something_to_do():
    assert len({trap.name for trap in TRAPS}) == len(TRAPS)
    for trap in TRAPS:
        assert trap.says
        assert trap.do
        assert all(source.startswith("https://") for source in trap.source.split(", "))


#: trap -> what must be so of a machine; taking any one of them back must free it
SNARES = {
    "tensorrt-vit": {"tensorrt": (10, 3, 0)},
    "tensorrt-attention-10.7": {"tensorrt": (10, 7, 0)},
    "tensorrt-thor-batch-1": {"tensorrt": (10, 13, 3), "l4t": "38.2.0"},
    "tensorrt-int8-vit": {"tensorrt": (10, 16)},
    "tensorrt-not-in-venv": {"in_venv": True, "tensorrt_elsewhere": "/usr/lib"},
    "tensorrt-other-python": {"tensorrt_elsewhere": "/usr/lib"},
    "tensorrt-8": {"tensorrt": (8, 5, 2)},
    "tensorrt-11-jetpack-6": {"tensorrt": (11, 0), "jetpack": "6.2"},
    "tensorrt-11-jetpack-7": {"tensorrt": (11, 2, 1), "jetpack": "7.2"},
    "tensorrt-dla-compiler": {"tensorrt": (10, 3), "l4t": "36.4.3"},
    "tensorrt-l4t-container": {"tensorrt": (10, 16), "l4t": "39.2.0", "container": True},
    "tensorrt-build-memory": {"tensorrt": (10, 3), "l4t": "36.4.3", "memory_gib": 7.4},
    "onnxruntime-python-3.10": {"python": (3, 10)},
    "onnxruntime-gpu-arm": {"l4t": "36.4.3"},
    "onnxruntime-int8-no-vnni": {"int8": ("AVX2",)},
    "onnxruntime-int8-old-arm": {"machine": "aarch64", "int8": ("NEON",)},
    "onnxruntime-1.24-arm-memory": {"machine": "aarch64", "packages": {"onnxruntime": "1.24.1"}},
    "onnxruntime-telemetry": {"packages": {"onnxruntime": "1.29.0"}},
    "openvino-int8-arm": {"machine": "aarch64", "packages": {"openvino": "2026.4"}},
}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_a_trap_snaps_on_its_own_combination_and_on_no_part_of_it(box, trap):
    snare = SNARES[trap.name]
    assert not trap.when(box, True)
    assert trap.when(replace(box, **snare), True)
    for freed in snare:
        assert not trap.when(replace(box, **{key: value for key, value in snare.items() if key != freed}), True)


def test_traps_of_transformers_do_not_frighten_the_owners_of_convolutions(tree):
    root = tree(ORIN_NANO)
    box = look(root, here("aarch64", (3, 10), bindings=True))
    for trap in TRAPS:
        if trap.kind == WRONG and trap.name.startswith("tensorrt"):
            assert not trap.when(box, False)


def test_what_gives_wrong_vectors_is_told_first(tree):
    kinds = [trap.kind for trap in examine(tree(ORIN_NANO), here=here("aarch64", (3, 10), bindings=True)).traps]
    assert kinds[0] == WRONG
    assert kinds[-1] == NOTE


@pytest.mark.parametrize(
    ("latent", "axis", "expected"),
    [([197, 384], 2, True), ([96, 8, 8], 1, False), ([64, 125], 1, False), ([], 1, False)],
)
def test_an_encoder_of_tokens_has_attention(latent, axis, expected):
    assert has_attention(SimpleNamespace(manifest={"split": {"latent": latent, "channel_axis": axis}})) == expected


def test_what_of_a_bundle_can_run_is_told(tiny):
    checkup = examine(bundle=open_bundle(tiny))
    rows = {(row["engine"], row["precision"]): row for row in checkup.artefacts}
    assert rows["onnxruntime", "int8"]["runs"]
    assert rows["onnxruntime", "int8"]["reason"] == ""
    if not this_interpreter().importable("tensorrt"):
        assert not rows["tensorrt", "fp32"]["runs"]
        assert rows["tensorrt", "fp32"]["reason"]
    assert checkup.missing == []


def test_a_bundle_of_which_nothing_can_run_is_missing_something(own):
    for file in own.glob("encoder*.onnx"):  # as long as they were, so that the bundle still opens unverified
        file.write_bytes(b"\xff" * file.stat().st_size)
    checkup = examine(bundle=open_bundle(own, verify=False))
    assert checkup.artefacts
    assert checkup.missing == ["nothing of the bundle can run here"]


def test_the_command_prints_json_and_fails_only_where_something_is_missing(tiny, monkeypatch):
    done = CliRunner().invoke(app, ["doctor", str(tiny), "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert set(found) == {"facts", "traps", "artefacts", "missing"}
    shown = CliRunner().invoke(app, ["doctor", str(tiny)])
    assert "What of the bundle can run here" in shown.stdout
    monkeypatch.setattr(metadata, "version", lambda name: "" if name == "safetensors" else "1.0")
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "pip install safetensors" in done.stderr
