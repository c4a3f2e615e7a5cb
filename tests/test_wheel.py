"""The wheel in an environment that holds it and what it asks for, nothing else; made without a network.

The packages it asks for are linked from the environment that runs the tests. `benchmarks/wheel_install.py` does the
same with pip, and measures times.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.slow

# Python's own sockets raise an audit event; those of a library in C++ are stopped by the namespace, where there is one.
GUARD = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind"):
        raise RuntimeError(f"{event} {arguments}")
sys.addaudithook(refuse)
from edgessl.cli.main import main
main()
"""


def needed_by(wheel: Distribution) -> dict[str, Distribution]:
    """Every distribution that the wheel pulls without extras."""
    found: dict[str, Distribution] = {}
    todo = list(wheel.requires or [])
    while todo:
        requirement = Requirement(todo.pop())
        if requirement.name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found[requirement.name] = distribution(requirement.name)
        todo += found[requirement.name].requires or []
    return found


@pytest.fixture(scope="module")
def tools(root: Path) -> dict[str, Any]:
    return runpy.run_path(str(root / "benchmarks" / "wheel_install.py"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tools: dict[str, Any]) -> Path:
    """Site-packages of the environment."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = tools["build_wheel"](folder, "--no-index", "--no-build-isolation")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    (info,) = site.glob("edgessl-*.dist-info")
    for needed in needed_by(PathDistribution(info)).values():
        for name in {file.parts[0] for file in needed.files or []} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(Path(str(needed.locate_file(name))))
    return site


@pytest.fixture(scope="module")
def python(site: Path) -> Path:
    return site.parents[2] / "bin" / "python"


def test_the_wheel_holds_every_module(site: Path, root: Path) -> None:
    modules = {
        file.relative_to(root)
        for top in ("edgessl", "cli", "export", "runtimes")
        for file in (root / top).rglob("*.py")
        if not any(parent.is_symlink() for parent in file.parents)
    }
    here = {path if path.parts[0] == "edgessl" else Path("edgessl") / path for path in modules}
    assert {file.relative_to(site) for file in (site / "edgessl").rglob("*.py")} == here


@pytest.mark.parametrize(
    "name", ["torch", "torchvision", "timm", "onnx", "onnxscript", "sklearn", "scipy", "lightning"]
)
def test_no_training_package_comes_with_it(python: Path, name: str) -> None:
    code = f"from importlib.util import find_spec; import sys; sys.exit(find_spec({name!r}) is not None)"
    assert subprocess.run([python, "-I", "-c", code], check=False).returncode == 0


def test_it_is_at_most_200_mb_with_all_it_needs(site: Path) -> None:
    total = sum(file.stat().st_size for file in (site / "edgessl").rglob("*") if file.is_file())
    (info,) = site.glob("edgessl-*.dist-info")
    needed = needed_by(PathDistribution(info))
    assert {"numpy", "onnxruntime", "safetensors"} <= set(needed)
    for other in needed.values():
        paths = [Path(str(file.locate())) for file in other.files or []]
        total += sum(path.stat().st_size for path in paths if path.is_file())
    assert total < 200e6


@pytest.mark.parametrize("command", ["embed", "adapt"])
def test_it_embeds_and_adapts_and_opens_no_connection(
    python: Path, tools: dict[str, Any], bundle: Path, frames_folder: Path, tmp_path: Path, command: str
) -> None:
    output = tmp_path / "out.npz"
    words = [command, bundle, frames_folder, "-o", output]
    words += ["--state", tmp_path / "state"] if command == "adapt" else []
    subprocess.run([*tools["isolated"](), python, "-I", "-c", GUARD, *words], check=True, capture_output=True)
    with np.load(output) as file:
        assert file["vectors"].shape == (39, 7)
        assert np.isfinite(file["vectors"]).all()


def test_the_guard_against_connections_works(python: Path) -> None:
    code = GUARD.replace("main()", "import socket; socket.create_connection(('127.0.0.1', 9))")
    done = subprocess.run([python, "-I", "-c", code], check=False, capture_output=True, text=True)
    assert "RuntimeError: socket." in done.stderr


def test_it_says_what_to_install_for_training(python: Path, frames_folder: Path, tmp_path: Path) -> None:
    words = ["pretrain", frames_folder, "--recipe", "simclr", "--encoder", "conv_small", "-o", tmp_path / "run"]
    command = [python, "-I", "-m", "edgessl.cli.main", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'edgessl[train]'" in done.stderr
