"""A machine with CUDA and one of several TensorRT, both fake."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from edgessl.bundle import signed
from edgessl.files import sha256_of
from edgessl.runtimes.engines import cuda

VERSIONS = ("10.3.0.30", "10.16.2.10", "11.1.0.5")  # JetPack 6, JetPack 7.2, and what comes after


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fakes() -> SimpleNamespace:
    names = ("fake_cudart", "fake_trt_names", "fake_trt_runtime", "fake_tensorrt")  # each may import those before it
    return SimpleNamespace(**{name.removeprefix("fake_"): _load(name) for name in names})


@pytest.fixture
def cudart(fakes, monkeypatch):
    library = fakes.cudart.FakeCudart()
    monkeypatch.setattr(cuda, "load_cudart", lambda: library)
    return library


@pytest.fixture
def install(fakes, cudart, monkeypatch):
    """Puts a TensorRT of some version on this machine."""

    def put(version):
        module = fakes.tensorrt.FakeTensorRt(version, cudart)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        return module

    return put


@pytest.fixture(params=VERSIONS)
def trt(request, install):
    return install(request.param)


@pytest.fixture
def orin(install):
    """The TensorRT of JetPack 6, where one version is enough."""
    return install(VERSIONS[0])


@pytest.fixture
def robot(tiny, tmp_path) -> Path:
    """The small bundle with graphs for TensorRT; the values in them are those of the others."""
    path = Path(shutil.copytree(tiny, tmp_path / "robot.edgessl"))
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "tensorrt").mkdir()
    for role, source in (("encoder", "encoder.onnx"), ("trunk", "trunk.fp32.onnx")):
        for precision in ("fp16", "int8"):
            name = f"tensorrt/{role}.{precision}.onnx"
            shutil.copy(path / source, path / name)
            manifest["artefacts"][name] = manifest["artefacts"][source] | {"precision": precision, "engine": "tensorrt"}
            assert sha256_of(path / name) == manifest["artefacts"][name]["sha256"]
    (path / "manifest.json").write_text(json.dumps(signed(manifest)))
    return path
