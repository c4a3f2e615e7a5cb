"""What a manifest says about an encoder that came from elsewhere: its weights, the packages, how images are brought to it."""

from __future__ import annotations

import contextlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgessl.encoders.base import EncoderModule
from edgessl.encoders.weights import Fitted
from edgessl.files import sha256_of


def weights_facts(path: Path | None, fitted: Fitted | None = None) -> dict[str, Any]:
    """What the manifest says about a weights file."""
    if path is None:
        return {}
    facts: dict[str, Any] = {"weights": path.name, "weights_sha256": sha256_of(path)}
    if fitted is not None:
        said = {"container": fitted.container, "prefix": fitted.prefix, "dropped": fitted.dropped}
        facts |= {f"weights_{key}": value for key, value in said.items() if value}
    return facts


def versions_of(*packages: str) -> dict[str, str]:
    """Installed versions of these packages."""
    found = {}
    for package in ("torch", *packages):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def preprocessing_of(
    encoder: EncoderModule,
    *,
    interpolation: str = "bilinear",
    crop: float = 1.0,
    fit: str = "stretch",
    size: Any = None,
) -> dict[str, Any]:
    """What an encoder does with its samples, in plain values; stretched bilinearly and whole unless a model says otherwise."""
    facts: dict[str, Any] = {"mean": _rounded(encoder.mean), "std": _rounded(encoder.std)}
    if encoder.input.kind != "image":
        return facts
    shape = [int(side) for side in (size or encoder.input.shape[:2])]
    return facts | {"interpolation": interpolation, "crop": float(crop), "fit": fit, "size": shape}


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 6) for value in values.flatten()]
