"""An exported encoder on disk: the folder `NAME.edgessl/` (format 2), checked byte for byte whenever it is opened.

manifest.json         everything below, with digests, sizes, and what was measured; and the digest of itself
encoder.onnx          fp32, sample as the sensor gives it in, unit vector out: the reference and universal fallback
encoder.b1.onnx       the same for a batch of one
encoder.int8.onnx     quantized for onnxruntime
trunk.fp32.onnx  trunk.int8.onnx
                      frozen front: samples and ports in, latent and channel statistics out
openvino/  tensorrt/  encoder and trunk for that engine, per precision
tail.onnx             live end: latent in, unit vector out; its weights are initializers named as in tail.safetensors
step.onnx             one training step of the tail
tail.safetensors      factory weights of the tail, `weight.NAME`
source.safetensors    statistics of the source: embedding, ports, drift; anchors
golden.safetensors    golden samples (`samples`) and their fp32 embeddings (`vectors`)
measured.json  report.html
                      what was timed, and the page for people: the two files that differ from export to export
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from edgessl.contents import check_arrays
from edgessl.errors import BundleError, InputError
from edgessl.files import sha256_of
from edgessl.manifest import (
    FORMAT,
    MANIFEST,
    PRECISIONS,
    Kind,
    check_facts,
    count_of,
    input_of,
    read_manifest,
    signed,
    size_of,
    write_manifest,
)
from edgessl.signals import InputSpec

__all__ = [
    "FORMAT",
    "MANIFEST",
    "PRECISIONS",
    "Artefact",
    "Bundle",
    "Kind",
    "open_bundle",
    "refuse_name",
    "signed",
    "write_manifest",
]

GRAPHS, TENSORS = ("encoder", "trunk", "tail"), ("weights", "source", "golden")  # roles that no bundle lacks


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """One file of a bundle.

    Attributes:
        path: Inside the bundle.
        role, precision, engine, batch: As in `Kind`.
    """

    path: str
    role: str
    precision: str
    engine: str
    batch: int
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

    def graph(self, role: str, precision: str = "fp32", engine: str = "", *, batch: int = 0) -> Path:
        """Path of a graph: the one made for `engine`, or else the one for every engine.

        Raises:
            InputError: The bundle has no such graph.
            BundleError: Every bundle has this graph in some precision, this one in none.
        """
        for made_for in dict.fromkeys((engine, "")):
            for artefact in self.artefacts:
                if Kind(artefact.role, artefact.precision, artefact.engine, artefact.batch) == (
                    role,
                    precision,
                    made_for,
                    batch,
                ):
                    return self.path / artefact.path
        if role in GRAPHS and not any(a.role == role and a.precision in PRECISIONS for a in self.artefacts):
            raise BundleError(f"{self.path} has no {role} in any precision; copy the bundle again, or export it again")
        have = sorted({f"{a.role} {a.precision} {f'for {a.engine}' * bool(a.engine)}".strip() for a in self.graphs()})
        wanted = f"{role} in {precision}{f' for {engine}' * bool(engine)}"
        raise InputError(f"{self.path} has no {wanted}; it has {', '.join(have)}")

    def graphs(self) -> tuple[Artefact, ...]:
        """The artefacts that an engine can open, of every role and precision."""
        return tuple(
            artefact for artefact in self.artefacts if artefact.precision in PRECISIONS and artefact.role != "data"
        )

    def precisions(self, role: str, engine: str = "") -> tuple[str, ...]:
        """Precisions in which `engine` has a graph, those for every engine included, cheapest first."""
        have = {
            artefact.precision
            for artefact in self.artefacts
            if artefact.role == role and artefact.engine in (engine, "") and artefact.batch == 0
        }
        return tuple(precision for precision in reversed(PRECISIONS) if precision in have)

    def tensors(self, role: str, *needed: str) -> dict[str, NDArray[Any]]:
        """Arrays of `weights`, `source` or `golden`.

        Args:
            role: Of the file.
            needed: Entries that it must have.

        Raises:
            BundleError: The file is absent from the manifest, is no safetensors file, lacks an entry, or has one of another
                shape than the manifest says.
        """
        paths = [artefact.path for artefact in self.artefacts if artefact.role == role]
        if not paths:
            raise BundleError(f"{self.path} has no {role}; export it again")
        try:
            tensors = dict(load_file(self.path / paths[0]))
            check_arrays(role, tensors, spec=self.input, dim=self.dim, split=self.manifest.get("split", {}))
        # AttributeError: a dtype that safetensors knows and numpy does not, such as F8_E4M3.
        except (SafetensorError, AttributeError, OSError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{self.path / paths[0]} cannot be read: {error!r}; copy the bundle again") from error
        if missing := [name for name in needed if name not in tensors]:
            raise BundleError(f"{self.path / paths[0]} has no {', '.join(missing)}; export the bundle again")
        return tensors


def refuse_name(path: Path) -> None:
    """Call before long work: fails where `path` is not named as a bundle is.

    Raises:
        InputError: It does not end in `.edgessl`.
    """
    if path.suffix != ".edgessl":
        raise InputError(f"a bundle's name ends in .edgessl; type -o {path.with_suffix('.edgessl')}")


def open_bundle(path: Path, *, verify: bool = True) -> Bundle:
    """Open a bundle.

    Args:
        path: The folder that `edgessl export` wrote.
        verify: Compare every file's digest with the manifest.

    Raises:
        BundleError: Missing, damaged, newer, or pointing outside its own folder.
    """
    manifest = read_manifest(path)
    try:
        artefacts = tuple(
            Artefact(
                path=str(name),
                role=str(entry["role"]),
                precision=str(entry["precision"]),
                engine=str(entry.get("engine", _format_1(entry))),
                batch=count_of("batch", entry.get("batch", 0)),
                sha256=str(entry["sha256"]),
                size_bytes=int(entry["size_bytes"]),
            )
            for name, entry in manifest["artefacts"].items()
        )
        bundle = Bundle(
            path=path,
            manifest=manifest,
            artefacts=artefacts,
            input=input_of(manifest["input"]),
            dim=size_of("dim", manifest["dim"]),
            space_id=str(manifest["space_id"]),
        )
        check_facts(manifest)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, InputError) as error:
        raise BundleError(f"{path / MANIFEST} is damaged: {error!r}. Copy the bundle again") from error
    if verify:  # export opens bundles in the making, which have not everything yet
        have = {artefact.role for artefact in artefacts if artefact.role in TENSORS}
        have |= {artefact.role for artefact in bundle.graphs()}
        if lost := [role for role in (*GRAPHS, *TENSORS) if role not in have]:
            raise BundleError(f"{path} has no {', '.join(lost)}; copy the bundle again, or export it again")
    try:
        for artefact in artefacts:
            _check(path, artefact, verify=verify)
    except OSError as error:  # a name too long for the disk, a folder that may not be read
        raise BundleError(f"{path} cannot be read: {str(error)[:200]}; copy the bundle again") from error
    return bundle


def _format_1(entry: Mapping[str, Any]) -> str:
    """Format 1 did not say it: its int8 graphs are onnxruntime's."""
    return "onnxruntime" if entry["precision"] == "int8" else ""


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
