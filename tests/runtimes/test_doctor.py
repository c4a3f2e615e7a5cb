"""`facts` names what is here and what is missing."""

from __future__ import annotations

from importlib import metadata

import numpy as np

from edgessl.runtimes import doctor


def by_name(proc):
    return {fact.name: fact for fact in doctor.facts(proc)}


def test_says_versions(tmp_path):
    assert by_name(tmp_path)["numpy"].value == np.__version__


def test_a_kernel_that_says_nothing_leaves_rows_empty(tmp_path):
    found = by_name(tmp_path)
    assert found["memory"].value == ""
    assert "board" not in found


def test_reads_an_arm_board(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    (tmp_path / "meminfo").write_text("MemTotal:  8388608 kB\nMemAvailable: 4194304 kB\n")
    (tmp_path / "device-tree").mkdir()
    (tmp_path / "device-tree" / "model").write_bytes(b"NVIDIA Jetson Orin Nano\0")
    found = by_name(tmp_path)
    assert found["board"].value == "NVIDIA Jetson Orin Nano"
    assert found["cpu int8"].value == "NEON, dotprod"
    assert found["cpu int8"].ok
    assert found["memory"].value == "8.0 GiB, 4.0 GiB free"


def test_a_cpu_without_int8_instructions_is_told(tmp_path):
    (tmp_path / "cpuinfo").write_text("model name : Old\nflags : sse avx2\n")
    assert not by_name(tmp_path)["cpu int8"].ok


def test_a_missing_engine_gets_the_pip_line(tmp_path, monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    found = by_name(tmp_path)["onnxruntime"]
    assert not found.ok
    assert found.hint == "pip install 'edgessl[onnxruntime]'"
