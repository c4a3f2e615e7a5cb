"""An exported encoder on disk: the folder `NAME.edgessl/` (format 1), checked byte for byte whenever it is opened.

manifest.json         everything below, with digests, sizes, and what was measured; and the digest of itself
encoder.onnx          fp32, uint8 frame in, unit vector out: the reference and universal fallback
encoder.int8.onnx     the same, quantized
trunk.fp32.onnx  trunk.int8.onnx
                      frozen front: frames and ports in, latent and channel statistics out
tail.onnx             live end: latent in, unit vector out; its weights are initializers named as in tail.safetensors
step.onnx             one training step of the tail
tail.safetensors      factory weights of the tail, `weight.NAME`
source.safetensors    statistics of the source: embedding, ports, drift; anchors
golden.safetensors    golden samples (`samples`) and their fp32 embeddings (`vectors`)
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

import edgessl
from edgessl.errors import BundleError, InputError
from edgessl.files import sha256_of, write_atomic
from edgessl.signals import InputSpec

FORMAT = 1
MANIFEST = "manifest.json"
PRECISIONS = ("fp32", "int8")
GRAPHS, TENSORS = ("encoder", "trunk", "tail"), ("weights", "source", "golden")  # roles that no bundle lacks

_LARGEST = 2**24  # no size of a signal, a latent or a vector comes near it


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """One file of a bundle.

    Attributes:
        path: Inside the bundle.
        role: `encoder`, `trunk`, `tail`, `step` (graphs), `weights`, `source` or `golden` (tensors).
        precision: `fp32` or `int8` for graphs, else empty.
    """

    path: str
    role: str
    precision: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An opened bundle. Every file has the digest that the manifest says, unless it was opened without verifying."""

    path: Path
    manifest: dict[str, Any]
    artefacts: tuple[Artefact, ...]
    input: InputSpec
    dim: int
    space_id: str

    def graph(self, role: str, precision: str = "fp32") -> Path:
        """Path of a graph.

        Raises:
            InputError: The bundle has no such graph.
            BundleError: Every bundle has this graph in some precision, this one in none.
        """
        for artefact in self.artefacts:
            if artefact.role == role and artefact.precision == precision:
                return self.path / artefact.path
        if role in GRAPHS and not self.precisions(role):
            raise BundleError(f"{self.path} has no {role} in any precision; copy the bundle again, or export it again")
        have = ", ".join(f"{a.role} {a.precision}" for a in self.artefacts if a.precision)
        raise InputError(f"{self.path} has no {role} in {precision}; it has {have}")

    def precisions(self, role: str) -> tuple[str, ...]:
        """Precisions in which a graph is there, cheapest first."""
        have = {artefact.precision for artefact in self.artefacts if artefact.role == role}
        return tuple(precision for precision in reversed(PRECISIONS) if precision in have)

    def tensors(self, role: str, *needed: str) -> dict[str, NDArray[Any]]:
        """Arrays of `weights`, `source` or `golden`.

        Args:
            role: Of the file.
            needed: Entries that it must have.

        Raises:
            BundleError: The file is absent from the manifest, is no safetensors file, or lacks an entry.
        """
        paths = [artefact.path for artefact in self.artefacts if artefact.role == role]
        if not paths:
            raise BundleError(f"{self.path} has no {role}; export it again")
        try:
            tensors = dict(load_file(self.path / paths[0]))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{self.path / paths[0]} cannot be read: {error!r}; copy the bundle again") from error
        if missing := [name for name in needed if name not in tensors]:
            raise BundleError(f"{self.path / paths[0]} has no {', '.join(missing)}; export the bundle again")
        return tensors


def write_manifest(folder: Path, roles: dict[str, tuple[str, str]], facts: dict[str, Any]) -> None:
    """Write `manifest.json` over the files that lie in `folder`.

    Args:
        folder: The bundle in the making.
        roles: path -> (role, precision) for every file.
        facts: The rest of the manifest: `name`, `space_id`, `dim`, `input`, `split`, `provenance`, `onnx`, `parity` ...
    """
    artefacts = {
        path: {
            "role": role,
            "precision": precision,
            "sha256": sha256_of(folder / path),
            "size_bytes": (folder / path).stat().st_size,
        }
        for path, (role, precision) in roles.items()
    }
    manifest = signed({"format": FORMAT, "edgessl": edgessl.__version__, **facts, "artefacts": artefacts})
    write_atomic(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())


def signed(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with the digest of all that it says, whatever it said its digest was."""
    said = {key: value for key, value in manifest.items() if key != "sha256"}
    return said | {"sha256": hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()}


def open_bundle(path: Path, *, verify: bool = True) -> Bundle:
    """Open a bundle.

    Args:
        path: The folder that `edgessl export` wrote.
        verify: Compare every file's digest with the manifest.

    Raises:
        BundleError: Missing, damaged, newer, or pointing outside its own folder.
    """
    manifest = _read_manifest(path)
    try:
        artefacts = tuple(
            Artefact(
                path=str(name),
                role=str(entry["role"]),
                precision=str(entry["precision"]),
                sha256=str(entry["sha256"]),
                size_bytes=int(entry["size_bytes"]),
            )
            for name, entry in manifest["artefacts"].items()
        )
        bundle = Bundle(
            path=path,
            manifest=manifest,
            artefacts=artefacts,
            input=_input(manifest["input"]),
            dim=_size("dim", manifest["dim"]),
            space_id=str(manifest["space_id"]),
        )
        _check_facts(manifest)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, InputError) as error:
        raise BundleError(f"{path / MANIFEST} is damaged: {error!r}. Copy the bundle again") from error
    if verify:  # export opens bundles in the making, which have not everything yet
        have = {artefact.role for artefact in artefacts if artefact.role in TENSORS}
        have |= {role for role in GRAPHS if bundle.precisions(role)}
        if lost := [role for role in (*GRAPHS, *TENSORS) if role not in have]:
            raise BundleError(f"{path} has no {', '.join(lost)}; copy the bundle again, or export it again")
    for artefact in artefacts:
        _check(path, artefact, verify=verify)
    return bundle


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not path.exists():
        raise BundleError(f"there is no bundle at {path}; type: edgessl export CHECKPOINT --calibrate DATA -o {path}")
    if file.is_symlink():
        raise BundleError(f"{file} is a link; a bundle holds plain files only. Do not use this bundle")
    if not file.is_file():
        raise BundleError(f"{path} is no bundle: it has no {MANIFEST}")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        written = manifest["format"]
        if type(written) is not int or written < 1:
            raise ValueError(f"format is {written!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{file} is damaged: {_short(error)}. Copy the bundle again") from error
    if written > FORMAT:
        raise BundleError(
            f"{path} has format {written}; this edgessl {edgessl.__version__} reads up to {FORMAT}. "
            "Type: pip install -U edgessl"
        )
    try:
        whole = manifest.get("sha256") == signed(manifest)["sha256"]
    except (ValueError, TypeError, RecursionError) as error:
        raise BundleError(f"{file} is damaged: {_short(error)}. Copy the bundle again") from error
    if not whole:
        raise BundleError(
            f"{file} is not what was exported: its digest is not that of its content; copy the bundle again"
        )
    return dict(manifest)


def _input(fields: dict[str, Any]) -> InputSpec:
    for size in fields["shape"]:
        _size("input.shape", size)
    spec = InputSpec.from_json(fields)
    if np.dtype(spec.dtype).kind not in "uif":
        raise ValueError(f"input.dtype is {spec.dtype!r}")
    if not spec.shape or (spec.kind == "image" and len(spec.shape) != 3):
        raise ValueError(f"input.shape is {spec.shape}, of kind {spec.kind}")
    return spec


def _check_facts(manifest: dict[str, Any]) -> None:
    """What is read later, when nobody thinks of a damaged manifest any more."""
    split, step = _table(manifest, "split"), _table(manifest, "step")
    parity = _table(manifest, "parity")
    for file in parity:
        _table(parity, file)
    _table(_table(manifest, "provenance"), "checkpoint")
    for port in split.get("ports", []):
        _size("channels", port["channels"])
    for size in split.get("latent", []):
        _size("latent", size)
    if _size("channel_axis", split.get("channel_axis", 1)) > len(split.get("latent", [1])):
        raise ValueError(f"channel_axis is {split['channel_axis']}, of a latent of {split['latent']}")
    for name in ("batch", "anchors"):
        _size(name, step.get(name, 1))


def _table(facts: dict[str, Any], name: str) -> dict[str, Any]:
    value = facts.get(name, {})
    if not isinstance(value, dict):
        raise TypeError(f"{name} is {value!r}")
    return value


def _size(name: str, value: object) -> int:
    if type(value) is not int or not 1 <= value <= _LARGEST:
        raise ValueError(f"{name} is {value!r}")
    return value


def _short(error: Exception) -> str:
    return repr(error)[:200]


def _check(folder: Path, artefact: Artefact, *, verify: bool) -> None:
    name = artefact.path
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or "\\" in name or ":" in name or "\0" in name or ".." in parts:
        raise BundleError(f"{folder / MANIFEST} names {name!r}, which leaves the bundle; do not use this bundle")
    file = folder
    for part in parts:
        file = file / part
        if file.is_symlink():
            raise BundleError(f"{file} is a link; a bundle holds plain files only. Do not use this bundle")
    if not file.is_file():
        raise BundleError(f"{folder} has lost {name!r}; copy the bundle again")
    size = file.stat().st_size
    if size != artefact.size_bytes:
        raise BundleError(f"{file} has {size} bytes, the manifest says {artefact.size_bytes}; copy the bundle again")
    if verify and sha256_of(file) != artefact.sha256:
        raise BundleError(
            f"{file} is not what was exported: its digest differs from the manifest's; copy the bundle again"
        )
