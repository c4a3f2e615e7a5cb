"""An exported encoder on disk: the folder `NAME.edgessl/` (format 1), checked byte for byte whenever it is opened.

manifest.json         everything below, with digests, sizes, and what was measured
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

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

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
        """
        for artefact in self.artefacts:
            if artefact.role == role and artefact.precision == precision:
                return self.path / artefact.path
        have = ", ".join(f"{a.role} {a.precision}" for a in self.artefacts if a.precision)
        raise InputError(f"{self.path} has no {role} in {precision}; it has {have}")

    def precisions(self, role: str) -> tuple[str, ...]:
        """Precisions in which a graph is there, cheapest first."""
        have = {artefact.precision for artefact in self.artefacts if artefact.role == role}
        return tuple(precision for precision in reversed(PRECISIONS) if precision in have)

    def tensors(self, role: str) -> dict[str, NDArray[Any]]:
        """Arrays of `weights`, `source` or `golden`.

        Raises:
            BundleError: The file is absent from the manifest or is no safetensors file.
        """
        paths = [artefact.path for artefact in self.artefacts if artefact.role == role]
        if not paths:
            raise BundleError(f"{self.path} has no {role}; export it again")
        try:
            return dict(load_file(self.path / paths[0]))
        except (SafetensorError, OSError) as error:
            raise BundleError(f"{self.path / paths[0]} cannot be read: {error}") from error


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
    manifest = {"format": FORMAT, "edgessl": edgessl.__version__, **facts, "artefacts": artefacts}
    write_atomic(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())


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
            input=InputSpec.from_json(manifest["input"]),
            dim=int(manifest["dim"]),
            space_id=str(manifest["space_id"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise BundleError(f"{path / MANIFEST} is damaged: {error!r}. Copy the bundle again") from error
    for artefact in artefacts:
        _check(path, artefact, verify=verify)
    return bundle


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not path.exists():
        raise BundleError(f"there is no bundle at {path}; type: edgessl export CHECKPOINT --calibrate DATA -o {path}")
    if file.is_symlink() or not file.is_file():
        raise BundleError(f"{path} is no bundle: it has no {MANIFEST}")
    try:
        manifest = json.loads(file.read_text())
        written = int(manifest["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file} is damaged: {error!r}. Copy the bundle again") from error
    if written > FORMAT:
        raise BundleError(
            f"{path} has format {written}; this edgessl {edgessl.__version__} reads up to {FORMAT}. "
            "Type: pip install -U edgessl"
        )
    return dict(manifest)


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
