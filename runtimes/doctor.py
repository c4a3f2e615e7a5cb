"""What this machine has and lacks, with the line to type; the known traps of it; and what of a bundle can run on it."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import edgessl
from edgessl.bundle import Bundle
from edgessl.runtimes.box import Box, Interpreter, look, this_interpreter
from edgessl.runtimes.clocks import UNAVAILABLE
from edgessl.runtimes.contenders import contenders_of
from edgessl.runtimes.engines import EngineSettings
from edgessl.runtimes.power import Rails
from edgessl.runtimes.pressure import Pressure
from edgessl.runtimes.traps import Trap, traps_of

_NEEDED = ("numpy", "safetensors", "pillow", "onnxruntime")
_TRAINING = ("torch", "torchvision", "timm", "lightly", "lightning")
#: extra -> module that it brings
_EXTRAS = {
    "camera": "cv2",
    "bags": "rosbags",
    "index": "usearch",
    "logs": "pyarrow",
    "metrics": "prometheus_client",
    "rerun": "rerun",
    "dora": "dora",
    "zenoh": "zenoh",
    "sign": "model_signing",
}
_LITTLE_MEMORY = 0.10  # share that is free


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One row.

    Attributes:
        name: What it is about.
        value: What was found; empty when it is not there.
        ok: Nothing to do.
        hint: The line to type, or what to know.
        needed: edgessl does not run without it.
    """

    name: str
    value: str
    ok: bool = True
    hint: str = ""
    needed: bool = False

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """Everything that the doctor says.

    Attributes:
        facts: Rows about the machine, in the order they are shown in.
        traps: Known ones of this combination.
        artefacts: What of the bundle can run: `engine`, `precision`, `runs`, `reason`; empty without a bundle.
    """

    facts: tuple[Fact, ...]
    traps: tuple[Trap, ...]
    artefacts: tuple[dict[str, Any], ...]

    @property
    def missing(self) -> list[str]:
        """What must be put right before anything runs, with the line to type."""
        found = [f"{fact.name}: {fact.hint}" for fact in self.facts if fact.needed and not fact.ok]
        if self.artefacts and not any(row["runs"] for row in self.artefacts):
            found.append("nothing of the bundle can run here")
        return found

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        shown = ("name", "kind", "says", "do", "source")
        return {
            "facts": [fact.to_json() for fact in self.facts],
            "traps": [{key: getattr(trap, key) for key in shown} for trap in self.traps],
            "artefacts": list(self.artefacts),
            "missing": self.missing,
        }


def examine(root: Path = Path("/"), bundle: Bundle | None = None, here: Interpreter | None = None) -> Checkup:
    """Look at the machine whose files are below `root`.

    Args:
        root: Of the system.
        bundle: What should run on it: each of its encoders is opened, in every engine.
        here: The Python that asks.
    """
    here = here or this_interpreter()
    box = look(root, here)
    return Checkup(
        facts=tuple(facts(box, here, root)),
        traps=tuple(traps_of(box, None if bundle is None else has_attention(bundle))),
        artefacts=tuple(_artefacts(bundle)) if bundle else (),
    )


def facts(box: Box, here: Interpreter, root: Path = Path("/")) -> list[Fact]:
    """Rows about a machine."""
    return [
        Fact(name="edgessl", value=edgessl.__version__),
        Fact(name="python", value=".".join(map(str, box.python)) + (", in a virtual environment" * box.in_venv)),
        Fact(name="system", value=f"{platform.system()} {platform.release()} {box.machine}"),
        *([Fact(name="board", value=box.board)] if box.board else []),
        *([Fact(name="container", value="this runs in one")] if box.container else []),
        *_nvidia(box),
        *_cpu(box),
        *_memory(box),
        *_clocks(box, root),
        _energy(root),
        *_packages(box),
        Fact(name="telemetry", value="off: edgessl switches that of onnxruntime and OpenVINO off before it loads them"),
        *_cameras(box, here),
        _extras(here),
        _training(here),
    ]


def has_attention(bundle: Bundle) -> bool:
    """The encoder is a transformer: its tail takes tokens, channels last."""
    split = bundle.manifest.get("split", {})
    return bool(split.get("latent")) and split.get("channel_axis") == len(split["latent"])


def _artefacts(bundle: Bundle) -> list[dict[str, Any]]:
    rows = []
    for contender in contenders_of(bundle):
        encoder, reason = contender.open(EngineSettings())
        if encoder is not None:
            encoder.close()
        rows.append(
            {
                "engine": contender.engine,
                "precision": contender.precision,
                "runs": encoder is not None,
                "reason": reason,
            }
        )
    return rows


def _nvidia(box: Box) -> list[Fact]:
    found = []
    if box.l4t:
        found.append(Fact(name="L4T", value=f"{box.l4t} (JetPack {box.jetpack or 'unknown'})"))
    elif box.jetson:
        found.append(Fact(name="L4T", value="", hint="no /etc/nv_tegra_release; in a container, mount it read-only"))
    if box.cuda or box.jetson:
        hint = "" if box.cuda else "sudo apt install nvidia-jetpack"
        found.append(Fact(name="CUDA", value=box.cuda, ok=bool(box.cuda), hint=hint))
    if box.driver:
        found.append(Fact(name="NVIDIA driver", value=box.driver))
    return found


def _cpu(box: Box) -> list[Fact]:
    model = box.cpu or platform.processor() or box.machine
    hint = "" if box.fast_int8 else "no int8 dot product: fp32 may be as fast; type: edgessl bench BUNDLE"
    return [
        Fact(name="cpu", value=f"{model}, {box.cores} cores"),
        Fact(name="cpu int8", value=", ".join(box.int8), ok=box.fast_int8, hint=hint),
    ]


def _memory(box: Box) -> list[Fact]:
    if not box.memory_gib or box.memory_free is None:
        return [Fact(name="memory", value="")]
    free, enough = box.memory_free * box.memory_gib, box.memory_free >= _LITTLE_MEMORY
    hint = "" if enough else "adaptation pauses, and the frame rate falls next; end what is not needed"
    return [Fact(name="memory", value=f"{box.memory_gib:.1f} GiB, {free:.1f} GiB free", ok=enough, hint=hint)]


def _clocks(box: Box, root: Path) -> list[Fact]:
    state, pressure = box.state, Pressure(root)
    pressure.look()
    hot = next((f"{part}: adaptation pauses" for part in pressure.why.split(", ") if " C of " in part), "")
    heat = state["temperature_c"]
    mode = Fact(
        name="power mode",
        value=f"{state['power_mode']}, governor {state['governor']}",
        hint="sudo nvpmodel -p --verbose lists the modes, sudo nvpmodel -m ID sets one" if box.jetson else "",
    )
    allowed, most = state["cpu_allowed_mhz"], state["cpu_max_mhz"]
    capped = isinstance(allowed, int) and isinstance(most, int) and allowed < most
    held = state["held_back"]
    return [
        mode,
        Fact(
            name="clocks",
            value=", ".join(
                f"{what} {state[now]} of {state[top]} MHz" if state[now] != UNAVAILABLE else f"{what} {UNAVAILABLE}"
                for what, now, top in (("cpu", "cpu_mhz", "cpu_max_mhz"), ("gpu", "gpu_mhz", "gpu_max_mhz"))
            ),
            hint=f"the cpu may take no more than {allowed} MHz" if capped else "",
        ),
        Fact(name="temperature", value=f"{heat} C" if heat != UNAVAILABLE else UNAVAILABLE, ok=not hot, hint=hot),
        Fact(
            name="throttled",
            value="; ".join(held) or ("no" if heat != UNAVAILABLE else UNAVAILABLE),
            ok=not held,
            hint="cool it, or check its supply" * bool(held),
        ),
    ]


def _energy(root: Path) -> Fact:
    rails = Rails(root / "sys")
    return Fact(name="energy", value=rails.source or UNAVAILABLE, hint=rails.missing)


def _packages(box: Box) -> list[Fact]:
    found = [
        Fact(
            name=name,
            value=box.packages[name],
            ok=bool(box.packages[name]),
            hint="" if box.packages[name] else f"pip install {_pip(name)}",
            needed=True,
        )
        for name in _NEEDED
    ]
    openvino = box.packages["openvino"]
    worth = "pip install 'edgessl[openvino]'" if not box.arm else "not worth it on ARM"
    found.append(Fact(name="openvino", value=openvino, hint="" if openvino else worth))
    return [*found, _tensorrt(box)]


def _pip(name: str) -> str:
    return "'edgessl[onnxruntime]'" if name == "onnxruntime" else name


def _tensorrt(box: Box) -> Fact:
    version = ".".join(map(str, box.tensorrt))
    if box.tensorrt_here:
        return Fact(name="tensorrt", value=version or "here")
    if box.tensorrt_elsewhere:
        hint = "python3 -m venv --system-site-packages ENV"
        return Fact(name="tensorrt", value=f"{version}, only in {box.tensorrt_elsewhere}", ok=False, hint=hint)
    if version:
        hint = "the library is here, its Python bindings are not; type: sudo apt install python3-libnvinfer"
        return Fact(name="tensorrt", value=version, ok=False, hint=hint)
    if box.jetson:
        return Fact(name="tensorrt", value="", ok=False, hint="sudo apt install nvidia-jetpack")
    return Fact(name="tensorrt", value="", hint="pip install tensorrt" if box.driver else "needs an NVIDIA GPU")


def _cameras(box: Box, here: Interpreter) -> list[Fact]:
    if not box.cameras:
        return [Fact(name="cameras", value="none")]
    named = [f"{camera.path} ({camera.name or 'no name'})" for camera in box.cameras]
    closed = [camera.path for camera in box.cameras if not camera.readable]
    hint = (
        f"{', '.join(closed)} may not be opened; type: sudo usermod -aG video $USER, and log in again" if closed else ""
    )
    if not closed and not here.importable("cv2"):
        hint = "pip install 'edgessl[camera]'"
    return [Fact(name="cameras", value=", ".join(named), ok=not closed, hint=hint)]


def _extras(here: Interpreter) -> Fact:
    there = [extra for extra, module in _EXTRAS.items() if here.importable(module)]
    lacks = [extra for extra in _EXTRAS if extra not in there]
    return Fact(
        name="extras",
        value=", ".join(there) or "none",
        hint=f"where wanted: pip install 'edgessl[{','.join(lacks)}]'" if lacks else "",
    )


def _training(here: Interpreter) -> Fact:
    missing = [name for name in _TRAINING if not here.version(name)]
    return Fact(
        name="training side",
        value="complete" if not missing else "not installed, and not needed on a device",
        hint="pip install 'edgessl[train]'" if missing else "",
    )
