"""A device has numpy, pillow, safetensors, typer, rich and onnxruntime: what it uses must import with these alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch torchvision timm lightly lightning onnx onnxscript openvino tensorrt sklearn skimage scipy matplotlib "
    "onnxruntime zenoh rerun prometheus_client dora pyarrow cv2 rosbags usearch rclpy"
)
BLOCK = "import sys\nfor name in {heavy!r}.split(): sys.modules[name] = None  # any import of it now fails"
OWN_FILES = {
    "edgessl.runtimes.engines.onnxrt": "onnxruntime",
    "edgessl.runtimes.engines.openvino": "openvino",
    "edgessl.runtimes.engines.ovcore": "openvino",
    "edgessl.runtimes.engines.ovcorrect": "openvino",
    "edgessl.runtimes.robot.metrics": "prometheus_client",
    "edgessl.runtimes.robot.rerun": "rerun pyarrow",
    "edgessl.runtimes.robot.zenoh": "zenoh",
}


def modules_of(*folders: str) -> list[str]:
    found = []
    root = Path(__file__).parents[1]
    for folder in folders:
        for file in sorted((root / folder).rglob("*.py")):
            parts = ["edgessl", *file.relative_to(root).with_suffix("").parts]
            if parts[1] == "edgessl":
                parts = parts[1:]
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


CORE = ["edgessl", *(f"edgessl.{name}" for name in ("bundle", "errors", "files", "metrics", "signals"))]
DEVICE = [*CORE, *modules_of("edgessl/sources", "runtimes", "cli")]


def import_without(modules: list[str], heavy: str) -> subprocess.CompletedProcess[str]:
    imports = "\n".join(f"import {module}" for module in modules)
    code = f"{BLOCK.format(heavy=heavy)}\n{imports}\nprint(len({modules!r}))"
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


def test_the_device_side_imports_without_any_heavy_package() -> None:
    light = [module for module in DEVICE if module not in OWN_FILES]
    assert len(light) > 30
    done = import_without(light, HEAVY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(len(light))


@pytest.mark.parametrize("module", ["edgessl", "edgessl.cli.main", "edgessl.runtimes", "edgessl.runtimes.encoder"])
def test_each_way_in_imports_alone(module: str) -> None:
    done = import_without([module], HEAVY)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", OWN_FILES)
def test_what_is_about_a_package_needs_that_one_only(module: str) -> None:
    own = OWN_FILES[module].split()
    done = import_without([module], " ".join(name for name in HEAVY.split() if name not in own))
    assert done.returncode == 0, done.stderr


def test_a_blocked_package_is_noticed() -> None:
    assert import_without(["edgessl.checkpoint"], HEAVY).returncode != 0


def test_import_edgessl_loads_no_numpy() -> None:
    assert import_without(["edgessl"], "numpy").returncode == 0


def test_help_loads_no_numpy() -> None:
    code = f"{BLOCK.format(heavy='numpy rich.progress')}\nfrom edgessl.cli.main import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pretrain" in done.stdout
