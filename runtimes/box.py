"""What this machine is, as plain facts: board, system, processor, NVIDIA's libraries, cameras. Judged elsewhere.

Everything is read from files below a root, so that any board can be looked at from a copy of its files. A file that is not
there leaves its fact empty.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgessl.runtimes.clocks import machine_state
from edgessl.runtimes.pressure import memory_free
from edgessl.runtimes.sensors import fields, text

#: flag in /proc/cpuinfo (x86: flags, ARM: Features) -> the instructions that int8 kernels use
INT8_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX512-VNNI",
    "amx_int8": "AMX-INT8",
    "asimd": "NEON",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
}
FAST_INT8 = frozenset({"AVX-VNNI", "AVX512-VNNI", "AMX-INT8", "dotprod", "i8mm"})

#: L4T release, from its first numbers on -> JetPack; the first that fits
_JETPACKS = (
    ("35.", "5.1"),
    ("36.2", "6.0 DP"),
    ("36.3", "6.0"),
    ("36.4.0", "6.1"),
    ("36.4.3", "6.2"),
    ("36.4.4", "6.2.1"),
    ("36.4.7", "6.2.1"),
    ("36.4", "6.1 or 6.2"),
    ("36.5", "6.2.2"),
    ("38.2", "7.0"),
    ("38.4", "7.1"),
    ("39.2", "7.2"),
    ("39.", "7.2 or newer"),
)
_ASKED = ("numpy", "safetensors", "pillow", "onnxruntime", "openvino", "tensorrt")


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A video device, what it is, and whether this user may open it."""

    path: str
    name: str
    readable: bool


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """The Python that asks; one of its own for tests.

    Attributes:
        machine: As `uname -m` says it: x86_64, aarch64.
        python: `(3, 10)`.
        in_venv: It is one, and does not see the system's packages.
        version: Version of an installed package, or nothing.
        importable: Whether a module would be found.
        readable: Whether a file may be opened.
    """

    machine: str
    python: tuple[int, int]
    in_venv: bool
    version: Callable[[str], str]
    importable: Callable[[str], bool]
    readable: Callable[[Path], bool]


@dataclass(frozen=True, kw_only=True)
class Box:
    """The facts; texts are empty and versions `()` where nothing says them.

    Attributes:
        machine, python, in_venv: As in `Interpreter`.
        board: Its model.
        l4t, jetpack: Release of a Jetson's system.
        cuda, driver: Versions of the toolkit and the driver.
        tensorrt: Version of the bindings, or of the library where there are none.
        tensorrt_here: This Python would find the bindings.
        tensorrt_elsewhere: Where the system's Python has them.
        dla: NVIDIA's compiler for DLA is there, which L4T's TensorRT needs to be loaded, DLA or not.
        packages: name -> version, empty where it is not installed.
        cpu, cores, int8: The processor, and its instructions for int8.
        memory_gib, memory_free: Size, and the share that is available.
        container: This runs in one.
        cameras: Video devices.
        state: Power mode, clocks and temperature; see `clocks.machine_state`.
    """

    machine: str
    python: tuple[int, int]
    in_venv: bool
    board: str
    l4t: str
    jetpack: str
    cuda: str
    driver: str
    tensorrt: tuple[int, ...]
    tensorrt_here: bool
    tensorrt_elsewhere: str
    dla: bool
    packages: dict[str, str]
    cpu: str
    cores: int
    int8: tuple[str, ...]
    memory_gib: float
    memory_free: float | None
    container: bool
    cameras: tuple[Camera, ...]
    state: dict[str, Any]

    @property
    def arm(self) -> bool:
        """64-bit ARM."""
        return self.machine in ("aarch64", "arm64")

    @property
    def jetson(self) -> bool:
        """A Jetson, as far as its system or its board says."""
        return bool(self.l4t) or "Jetson" in self.board

    @property
    def fast_int8(self) -> bool:
        """It multiplies int8 faster than float."""
        return bool(FAST_INT8.intersection(self.int8))

    def has(self, package: str) -> tuple[int, ...]:
        """Version of a package as numbers; `()` where it is not installed."""
        return numbers(self.packages.get(package, ""))


def this_interpreter() -> Interpreter:
    """The one that runs."""
    return Interpreter(
        machine=platform.machine(),
        python=sys.version_info[:2],
        in_venv=sys.prefix != sys.base_prefix and not _sees_system(Path(sys.prefix)),
        version=_version,
        importable=lambda name: find_spec(name) is not None,
        readable=lambda file: os.access(file, os.R_OK | os.W_OK),
    )


def look(root: Path = Path("/"), here: Interpreter | None = None) -> Box:
    """Collect the facts of the machine whose files are below `root`."""
    here = here or this_interpreter()
    proc = root / "proc"
    cpu = {key.lower(): value for key, value in fields(proc / "cpuinfo").items()}
    flags = set((cpu.get("flags") or cpu.get("features") or "").split())
    memory = fields(proc / "meminfo").get("MemTotal", "").split()
    packages = {name: here.version(name) for name in _ASKED}
    elsewhere = _system_bindings(root)
    l4t = _l4t(root)
    return Box(
        machine=here.machine,
        python=here.python,
        in_venv=here.in_venv,
        board=text(proc / "device-tree" / "model"),
        l4t=l4t,
        jetpack=next((jetpack for start, jetpack in _JETPACKS if l4t.startswith(start)), ""),
        cuda=_cuda(root),
        driver=_first(r"Module\s+(?:for \S+\s+)?([\d.]+)", _content(proc / "driver" / "nvidia" / "version")),
        tensorrt=numbers(packages["tensorrt"]) or _library(root) or _version_of(elsewhere),
        tensorrt_here=here.importable("tensorrt"),
        tensorrt_elsewhere=str(elsewhere.parent) if elsewhere else "",
        dla=any(_size(file) for file in root.glob("usr/lib/*-linux-gnu/*/libnvdla_compiler.so*")),
        packages=packages,
        cpu=cpu.get("model name", ""),
        cores=os.cpu_count() or 1,
        int8=tuple(name for flag, name in INT8_FLAGS.items() if flag in flags),
        memory_gib=int(memory[0]) / 2**20 if memory and memory[0].isdigit() else 0.0,
        memory_free=memory_free(root),
        container=_in_container(root),
        cameras=_cameras(root, here),
        state=machine_state(root),
    )


def numbers(version: str) -> tuple[int, ...]:
    """`"10.3.0.30-1+cuda12.5"` -> `(10, 3, 0, 30)`."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _l4t(root: Path) -> str:
    """`# R36 (release), REVISION: 4.3, ...` -> `36.4.3`; a system without that file names its package."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _content(root / "etc" / "nv_tegra_release"))
    if found:
        return f"{found[1]}.{found[2]}"
    status = _content(root / "var" / "lib" / "dpkg" / "status")
    return _first(r"^Package: nvidia-l4t-core\n(?:.+\n)*?Version: ([\d.]+)", status)


def _cuda(root: Path) -> str:
    """Of the toolkit that the link points to, or else of the newest."""
    for folder in ("cuda", "cuda-*"):
        for file in sorted(root.glob(f"usr/local/{folder}/version.json"), reverse=True):
            if found := _first(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"', _content(file)):
                return found
    return ""


def _library(root: Path) -> tuple[int, ...]:
    named = [file.name.partition(".so.")[2] for file in root.glob("usr/lib/*-linux-gnu/libnvinfer.so.*")]
    return max((numbers(name) for name in named), key=len, default=())


def _system_bindings(root: Path) -> Path | None:
    return next(iter(sorted(root.glob("usr/lib/python3*/dist-packages/tensorrt*"))), None)


def _version_of(bindings: Path | None) -> tuple[int, ...]:
    return numbers(bindings.name.partition("-")[2]) if bindings else ()


def _in_container(root: Path) -> bool:
    marked = (root / ".dockerenv").exists() or (root / "run" / ".containerenv").exists()
    return marked or bool(re.search(r"docker|kubepods|containerd|lxc", _content(root / "proc" / "1" / "cgroup")))


def _cameras(root: Path, here: Interpreter) -> tuple[Camera, ...]:
    return tuple(
        Camera(
            path=f"/dev/{device.name}",
            name=text(root / "sys" / "class" / "video4linux" / device.name / "name"),
            readable=here.readable(device),
        )
        for device in sorted((root / "dev").glob("video[0-9]*"), key=lambda path: int(numbers(path.name[5:])[0]))
    )


def _size(file: Path) -> int:
    """Bytes; containers hold an empty file in the place of a library that the host does not have."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _sees_system(prefix: Path) -> bool:
    said = _first(r"include-system-site-packages\s*=\s*(\w+)", _content(prefix / "pyvenv.cfg"))
    return said.lower() == "true"


def _first(pattern: str, content: str) -> str:
    found = re.search(pattern, content, re.MULTILINE)
    return found[1] if found else ""


def _content(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
