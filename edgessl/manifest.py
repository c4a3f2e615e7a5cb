"""The manifest of a bundle: written over the files that lie in a folder, read from a folder that nobody vouches for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import edgessl
from edgessl.errors import BundleError
from edgessl.files import sha256_of, write_atomic
from edgessl.signals import InputSpec

FORMAT = 2
MANIFEST = "manifest.json"
PRECISIONS = ("fp32", "fp16", "int8")

_LARGEST = 2**24  # no size of a signal, a latent or a vector comes near it
_LARGEST_KERNEL = 64  # pixels of a first convolution; patches of transformers have up to 32
_LARGEST_MANIFEST = 2**24  # bytes; one of a bundle has some thousands


class Kind(NamedTuple):
    """What a file of a bundle is.

    Attributes:
        role: `encoder`, `trunk`, `tail`, `step` (graphs), `weights`, `source`, `golden` (tensors), `data` (weights that
            a graph beside it reads), `report`.
        precision: A key of `PRECISIONS` for graphs and their data, else empty.
        engine: The engine that the graph was made for; empty for every engine that reads ONNX.
        batch: Samples per run; 0 for any number.
    """

    role: str
    precision: str = ""
    engine: str = ""
    batch: int = 0


def write_manifest(folder: Path, kinds: Mapping[str, Kind], facts: dict[str, Any]) -> None:
    """Write `manifest.json` over the files that lie in `folder`.

    Args:
        folder: The bundle in the making.
        kinds: path -> what it is, for every file.
        facts: The rest of the manifest: `name`, `space_id`, `dim`, `input`, `split`, `provenance`, `onnx`, `parity` ...
    """
    artefacts = {
        path: {
            **kinds[path]._asdict(),
            "sha256": sha256_of(folder / path),
            "size_bytes": (folder / path).stat().st_size,
        }
        for path in sorted(kinds)
    }
    content = {path: entry["sha256"] for path, entry in artefacts.items() if entry["role"] != "report"}
    manifest = {"format": FORMAT, "edgessl": edgessl.__version__, **facts, "artefacts": artefacts}
    manifest["content_sha256"] = _digest(content)
    write_atomic(folder / MANIFEST, (json.dumps(signed(manifest), indent=2) + "\n").encode())


def signed(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with the digest of all that it says, whatever it said its digest was."""
    said = {key: value for key, value in manifest.items() if key != "sha256"}
    return said | {"sha256": _digest(said)}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the bundle at `path`, whole and of a format that is known; its facts are not checked yet.

    Raises:
        BundleError: Missing, damaged, or newer.
    """
    file = path / MANIFEST
    if not path.exists():
        raise BundleError(f"there is no bundle at {path}; type: edgessl export CHECKPOINT --calibrate DATA -o {path}")
    if file.is_symlink():
        raise BundleError(f"{file} is a link; a bundle holds plain files only. Do not use this bundle")
    if not file.is_file():
        raise BundleError(f"{path} is no bundle: it has no {MANIFEST}")
    try:
        if file.stat().st_size > _LARGEST_MANIFEST:
            raise ValueError(f"it has {file.stat().st_size} bytes")
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


def input_of(fields: dict[str, Any]) -> InputSpec:
    """What one sample is, of sizes that a machine can hold."""
    for size in fields["shape"]:
        size_of("input.shape", size)
    spec = InputSpec.from_json(fields)
    if np.dtype(spec.dtype).kind not in "uif":
        raise ValueError(f"input.dtype is {spec.dtype!r}")
    axes = {"image": 3}.get(spec.kind, 2)
    if len(spec.shape) != axes:
        raise ValueError(f"input.shape is {spec.shape}, of kind {spec.kind}")
    return spec


def check_facts(manifest: dict[str, Any]) -> None:
    """What is read later, when nobody thinks of a damaged manifest any more."""
    split, step = _table(manifest, "split"), _table(manifest, "step")
    parity = _table(manifest, "parity")
    for file in parity:
        _table(parity, file)
    _table(_table(manifest, "provenance"), "checkpoint")
    for port in split.get("ports", []):
        size_of("channels", port["channels"])
        if not isinstance(port.get("products", False), bool):
            raise TypeError(f"products of a port are {port['products']!r}")
    for file, ports in _table(split, "folds").items():
        if len(ports) != len(split["ports"]):
            raise ValueError(f"folds of {file} are {len(ports)}, of {len(split['ports'])} ports")
        for port in ports:
            if "scaled" not in port:  # else an older bundle's, which nobody reads
                _check_constants(f"folds of {file} name", port)
    _check_stem(_table(split, "stem"))
    for size in split.get("latent", []):
        size_of("latent", size)
    if size_of("channel_axis", split.get("channel_axis", 1)) > len(split.get("latent", [1])):
        raise ValueError(f"channel_axis is {split['channel_axis']}, of a latent of {split['latent']}")
    for name in ("batch", "anchors"):
        size_of(name, step.get(name, 1))
    count_of("space_revision", manifest.get("space_revision", 0))


def _check_constants(what: str, constants: dict[str, Any]) -> None:
    """Names of a convolution's constants; it has weights and a bias."""
    names = [constants[part] for part in ("weight", "scale", "bias", "steps")]
    if not all(isinstance(name, str) for name in names) or not constants["weight"] or not constants["bias"]:
        raise TypeError(f"{what} {names!r}")


def _check_stem(stem: dict[str, Any]) -> None:
    if not stem:
        return
    if len(stem["kernel"]) != 2:
        raise ValueError(f"the stem's kernel is {stem['kernel']!r}")
    for size in stem["kernel"]:
        if size_of("kernel", size) > _LARGEST_KERNEL:
            raise ValueError(f"the stem's kernel is {stem['kernel']!r}")
    if stem["prepare"] not in (["mean", "std"], ["mean", "std", "rows", "columns"]):
        raise ValueError(f"the stem's frames are prepared with {stem['prepare']!r}")
    for file, constants in _table(stem, "constants").items():
        _check_constants(f"the stem of {file} names", constants)
        units = constants["units"]
        if len(units) != 3 or not all(isinstance(unit, float) and isfinite(unit) and unit for unit in units):
            raise ValueError(f"the stem of {file} is in units of {units!r}")


def _table(facts: dict[str, Any], name: str) -> dict[str, Any]:
    value = facts.get(name, {})
    if not isinstance(value, dict):
        raise TypeError(f"{name} is {value!r}")
    return value


def size_of(name: str, value: object) -> int:
    """`value`, where it is a size that a machine can hold; else a `ValueError`."""
    if type(value) is not int or not 1 <= value <= _LARGEST:
        raise ValueError(f"{name} is {value!r}")
    return value


def count_of(name: str, value: object) -> int:
    """The same, or 0."""
    return 0 if value == 0 and type(value) is int else size_of(name, value)


def _short(error: Exception) -> str:
    return repr(error)[:200]
