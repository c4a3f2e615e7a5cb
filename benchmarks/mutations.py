"""What can be done to a bundle on disk, by accident or on purpose: for `benchmarks/fuzz_bundles.py`.

Kinds in `DAMAGE` change content and leave the manifest's word about it; such a bundle must not open. Kinds in `PATHS` sign
a manifest that points elsewhere; it must not open either. Kinds in `CONSISTENT` list what they changed with its new digest
and sign the manifest, as somebody would who knows how: the checks behind the digests are reached, and the engine's loader.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgessl.bundle import signed
from edgessl.files import sha256_of

Change = Callable[[Path, random.Random], None]

HUGE = [2**24, 2**24 + 1, 2**31 - 1, 2**31, 2**32 + 1, 2**62, 2**63 - 1, 2**63, 10**30]
HOSTILE: list[Any] = [
    *(*HUGE, 0, -1, 1.5, 1e308, float("inf"), float("nan"), True, False, None, "", "x", "\0", "\ud800", "a" * 100_000),
    *([], {}, [[]], [None], [{}], {"": None}, [2**24] * 8, [1] * 10_000, "fp32", "int8", "encoder", "float64", "U8"),
]
NAMES = [
    *(
        "/etc/passwd",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/mem",
        "../x",
        "a/../../x",
        "..",
        ".",
        "",
        "/",
        "//",
        "a//b",
    ),
    *("..\\x", "C:x", "C:\\x", "\\\\host\\x", "a\0b", "encoder.onnx\0", "a" * 300, "a/" * 3000 + "b", "\ud800", "~/x"),
    *("folder", "pipe", "link", "linked/encoder.onnx", "loop/x", "encoder.onnx/x", "%2e%2e/x", "nul", "ENCODER.ONNX "),
]


def relisted(folder: Path, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
    """Sign the manifest anew, with the digests and sizes of what lies there."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, entry in manifest["artefacts"].items():
        file = folder / name
        entry |= {"sha256": sha256_of(file), "size_bytes": file.stat().st_size}
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(signed(manifest)))


def _truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _moved(content: bytes, rng: random.Random) -> bytes:
    start, size = rng.randrange(len(content)), rng.choice((1, 2, 4, 8, 64, 1024))
    block, at = content[start : start + size], rng.randrange(len(content))
    return rng.choice(
        (
            lambda: content[:at] + rng.randbytes(size) + content[at:],
            lambda: content[:start] + content[start + size :],
            lambda: content[:at] + block + content[at:],
            lambda: content[:at] + block + content[at + len(block) :],
            lambda: content[:at] + rng.choice((b"\0", b"\xff")) * size + content[at + size :],
        )
    )()


BYTES = (_truncated, _flipped, _moved)


def damage(how: Callable[[bytes, random.Random], bytes]) -> Change:
    """A file of the bundle, the manifest among them, with other bytes."""

    def change(folder: Path, rng: random.Random) -> None:
        file = rng.choice(_files(folder))
        file.write_bytes(how(file.read_bytes(), rng))

    return change


def exchanged(folder: Path, rng: random.Random) -> None:
    """A file that is gone, is another file, a folder, a link or a pipe."""
    file, other = rng.sample(_files(folder), 2)
    content = file.read_bytes()
    how = rng.randrange(6)
    if how == 0:
        file.write_bytes(other.read_bytes())
        return
    file.unlink()
    if how == 1:
        file.mkdir()
    elif how == 2:
        file.symlink_to(rng.choice(("/dev/zero", "/etc/passwd", other.name, file.name)))
    elif how == 3:
        os.mkfifo(file)
    elif how == 4:
        (folder.parent / "outside").write_bytes(content)
        file.symlink_to("../outside")


def paths(folder: Path, rng: random.Random) -> None:
    """A signed manifest with a name that is no plain file of the bundle."""
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("encoder.onnx")
    (folder / "linked").symlink_to(".")
    (folder / "loop").symlink_to("loop")
    name = rng.choice(NAMES)

    def change(manifest: dict[str, Any]) -> None:
        listed = manifest["artefacts"]
        old = rng.choice(list(listed))
        listed[name] = listed[old] | rng.choice(({}, {"size_bytes": 0}, {"size_bytes": rng.choice(HUGE)}))
        if rng.random() < 0.5:
            del listed[old]

    relisted(folder, change)


def facts(folder: Path, rng: random.Random) -> None:
    """Values of the manifest that are missing, or are something else."""

    def change(manifest: dict[str, Any]) -> None:
        for _ in range(rng.choice((1, 1, 1, 3))):
            place, key = rng.choice(list(_places(manifest)))
            if rng.random() < 0.2:
                del place[key]
            elif isinstance(place[key], int) and rng.random() < 0.5:
                place[key] = rng.choice((*HUGE, place[key] + 1, place[key] - 1, place[key] * 1000))
            else:
                place[key] = copy.deepcopy(rng.choice(HOSTILE))  # a later change may put something into it

    relisted(folder, change)


def nested(folder: Path, rng: random.Random) -> None:
    """A manifest as deep as a stack, signed where Python can."""
    depth = rng.choice((50, 500, 900, 980, 3000, 100_000, 1_000_000))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    if depth < 1000:
        deep = json.loads(opening * (depth // 3) + "1" + closing * (depth // 3))
        relisted(folder, lambda manifest: manifest.__setitem__(rng.choice(list(manifest)), deep))
        return
    text = (folder / "manifest.json").read_text().rstrip().removesuffix("}")
    closed = closing * depth if rng.random() < 0.5 else ""
    (folder / "manifest.json").write_text(f'{text}, "a": {opening * depth}1{closed}}}')


def tensor_bytes(folder: Path, rng: random.Random) -> None:
    """A safetensors file with other bytes."""
    file = rng.choice(_files(folder, ".safetensors"))
    file.write_bytes(rng.choice(BYTES)(file.read_bytes(), rng))
    relisted(folder)


def tensor_headers(folder: Path, rng: random.Random) -> None:
    """A safetensors file whose header declares something else."""
    file = rng.choice(_files(folder, ".safetensors"))
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry, how = header[name], rng.randrange(7)
    if how == 0:
        entry["shape"] = [rng.choice(HUGE) for _ in range(rng.randrange(1, 9))]
    elif how == 1:
        entry["dtype"] = rng.choice(("F64", "F16", "BF16", "I8", "BOOL", "F8_E4M3", "X", "U64", 7))
    elif how == 2:
        entry["data_offsets"] = [rng.choice((0, *HUGE)), rng.choice(HUGE)]
    elif how == 3:  # as many values, in another arrangement
        entry["shape"] = rng.choice(([*entry["shape"], 1], [1, *entry["shape"]], entry["shape"][::-1]))
    elif how == 4:
        header[rng.choice(("a" * 10_000, "", "\0", f"{name}2"))] = header.pop(name)
    elif how == 5:
        header = json.loads("[" * 100 + "]" * 100)
    text = json.dumps(header).encode()
    told = rng.choice(HUGE[:8]) if how == 6 else len(text)
    file.write_bytes(told.to_bytes(8, "little") + text + data)
    relisted(folder)


def graph_bytes(folder: Path, rng: random.Random) -> None:
    """An ONNX file with other bytes."""
    file = rng.choice(_files(folder, ".onnx"))
    file.write_bytes(rng.choice(BYTES)(file.read_bytes(), rng))
    relisted(folder)


def _files(folder: Path, suffix: str = "") -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name.endswith(suffix))


def _places(value: Any) -> Any:
    """Every place of a JSON value that can hold another one."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


DAMAGE: dict[str, Change] = {
    "truncated": damage(_truncated),
    "flipped bits": damage(_flipped),
    "inserted, deleted, repeated blocks": damage(_moved),
    "lost and exchanged files": exchanged,
}
PATHS: dict[str, Change] = {"signed hostile paths": paths}
CONSISTENT: dict[str, Change] = {
    "signed manifest values": facts,
    "deep JSON": nested,
    "listed safetensors bytes": tensor_bytes,
    "listed safetensors headers": tensor_headers,
    "listed ONNX bytes": graph_bytes,
}
