"""Facts about this machine, and what is missing with the line to type."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import edgessl
from edgessl.runtimes.engines import ENGINES

# Instructions that int8 kernels use, as /proc/cpuinfo spells them on x86 ("flags") and ARM ("Features").
_INT8_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX512-VNNI",
    "amx_int8": "AMX-INT8",
    "asimd": "NEON",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
}
_FAST_INT8 = {"AVX-VNNI", "AVX512-VNNI", "AMX-INT8", "dotprod", "i8mm"}
_TRAINING = ("torch", "torchvision", "timm", "lightly", "lightning")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One row.

    Attributes:
        name: What it is about.
        value: What was found; empty when it is not there.
        ok: Nothing to do.
        hint: The line to type, or what to know.
    """

    name: str
    value: str
    ok: bool = True
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def facts(proc: Path = Path("/proc")) -> list[Fact]:
    """Rows about this machine, the order they are shown in.

    Args:
        proc: Where the kernel says what the machine is; files that are not there leave rows empty.
    """
    return [
        Fact(name="edgessl", value=edgessl.__version__),
        Fact(name="python", value=f"{platform.python_version()} ({platform.python_implementation()})"),
        Fact(name="system", value=f"{platform.system()} {platform.release()} {platform.machine()}"),
        *_board(proc),
        *_cpu(proc),
        _memory(proc),
        *(_package(name, f"pip install {name}") for name in ("numpy", "safetensors", "pillow")),
        *(_package(package, f"pip install 'edgessl[{extra}]'") for _, _, package, extra in ENGINES.values()),
        _training(),
    ]


def _board(proc: Path) -> list[Fact]:
    model = _read(proc / "device-tree" / "model").strip("\0\n ")
    return [Fact(name="board", value=model)] if model else []


def _cpu(proc: Path) -> list[Fact]:
    fields: dict[str, str] = {}
    for line in _read(proc / "cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    found = [name for flag, name in _INT8_FLAGS.items() if flag in flags]
    model = fields.get("model name") or platform.processor() or platform.machine()
    fast = bool(_FAST_INT8 & set(found))
    return [
        Fact(name="cpu", value=f"{model}, {os.cpu_count() or 1} cores"),
        Fact(
            name="cpu int8",
            value=", ".join(found),
            ok=fast,
            hint="" if fast else "no int8 dot product: fp32 may be as fast; compare --precision fp32",
        ),
    ]


def _memory(proc: Path) -> Fact:
    sizes = {}
    for line in _read(proc / "meminfo").splitlines():
        key, _, value = line.partition(":")
        sizes[key] = value.split()[0] if value.split() else "0"
    if "MemTotal" not in sizes:
        return Fact(name="memory", value="")
    total, free = int(sizes["MemTotal"]) / 2**20, int(sizes.get("MemAvailable", "0")) / 2**20
    return Fact(name="memory", value=f"{total:.1f} GiB, {free:.1f} GiB free")


def _package(name: str, install: str) -> Fact:
    version = _version(name)
    return Fact(name=name, value=version, ok=bool(version), hint="" if version else install)


def _training() -> Fact:
    missing = [name for name in _TRAINING if not _version(name)]
    return Fact(
        name="training side",
        value="complete" if not missing else "not installed, and not needed on a device",
        hint="pip install 'edgessl[train]'" if missing else "",
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
