"""What shapes the arrays of a bundle have: checked once when they are read, so that nothing behind it meets another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.signals import InputSpec

BANDS = 32  #: of frequencies per axis of a spectrum, at most
_LARGEST_SIDE = 4096  # pixels of a frame at the encoder's size

#: A size, or a letter that stands for one and the same size wherever it is used.
Size = int | str


def check_arrays(
    role: str, arrays: Mapping[str, NDArray[Any]], *, spec: InputSpec, dim: int, split: Mapping[str, Any]
) -> None:
    """Compare shapes and kinds of numbers with what the manifest says of input, vector and split.

    Args:
        role: `golden`, `rehearsal` or `source`; the names of the others are the encoder's own.
        arrays: Of the file; those that are absent are nobody's concern here.
        spec, dim, split: Of the manifest.

    Raises:
        ValueError: An array has another shape or another kind of numbers.
    """
    sizes: dict[str, int] = {}
    for name, (kind, wanted) in _wanted(role, spec, dim, split).items():
        if name not in arrays:
            continue
        array = arrays[name]
        fits = len(array.shape) == len(wanted) and all(
            size > 0 and size == (sizes.setdefault(want, size) if isinstance(want, str) else want)
            for size, want in zip(array.shape, wanted, strict=True)
        )
        if not fits or (array.dtype.kind if len(kind) == 1 else array.dtype.name) != kind:
            shape = ", ".join(str(sizes.get(want, want) if isinstance(want, str) else want) for want in wanted)
            raise ValueError(f"{name} is {array.dtype} {array.shape}, not {kind} ({shape})")
    if role == "source" and "spectrum.size" in arrays:
        _check_spectrum(arrays, spec)
    threshold = arrays.get("drift.threshold")
    if role == "source" and threshold is not None and (threshold.size != 1 or threshold.dtype.kind != "f"):
        raise ValueError(f"drift.threshold is {threshold.dtype} {threshold.shape}, not one number f")


def _check_spectrum(arrays: Mapping[str, NDArray[Any]], spec: InputSpec) -> None:
    """Whether it is of frames of the encoder's size, and can be divided by."""
    rows, columns = arrays.get("prepare.rows"), arrays.get("prepare.columns")
    height, width = spec.shape[:2] if rows is None or columns is None else (len(rows), len(columns))
    if arrays["spectrum.size"].tolist() != [height, width] or max(height, width) > _LARGEST_SIDE:
        raise ValueError(f"spectrum.size is {arrays['spectrum.size'].tolist()}, of frames of {height}x{width}")
    power = arrays.get("spectrum.power")
    if power is not None and power.shape[1:] != (min(BANDS, height), min(BANDS, width)):
        raise ValueError(f"spectrum.power is {power.shape}, of frames of {height}x{width}")
    for name, array in arrays.items():
        if name.startswith(("spectrum.", "prepare.")) and not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite")
    if not (arrays.get("prepare.std", np.ones(1)) > 0).all():
        raise ValueError("prepare.std is not positive")


def _wanted(role: str, spec: InputSpec, dim: int, split: Mapping[str, Any]) -> dict[str, tuple[str, tuple[Size, ...]]]:
    """Of each array numpy's name of the dtype, or its kind in one letter, and the shape."""
    if role == "golden":
        return {"samples": (np.dtype(spec.dtype).name, ("n", *spec.shape)), "vectors": ("f", ("n", dim))}
    if role == "rehearsal":
        return {"frames": (np.dtype(spec.dtype).name, ("n", *spec.shape))}
    if role != "source":
        return {}
    channels = [int(port["channels"]) for port in split.get("ports", [])]
    latent: tuple[Size, ...] = tuple(split.get("latent", []))
    wanted: dict[str, tuple[str, tuple[Size, ...]]] = {
        "embedding.mean": ("f", (dim,)),
        "embedding.var": ("f", (dim,)),
        "embedding.covariance": ("f", (dim, dim)),
        "drift.mean": ("f", ("d",) if not channels else (2 * channels[0],)),
        "drift.whiten": ("f", ("k", "d" if not channels else 2 * channels[0])),
        "drift.bank": ("f", ("m", "k")),
        "anchor.vectors": ("f", ("a", dim)),
    }
    for index, size in enumerate(channels):
        wanted |= {f"port{index}.{part}": ("f", (size,)) for part in ("mean", "var")}
        wanted[f"port{index}.covariance"] = ("f", (size, size))
    if stem := split.get("stem", {}):
        wanted |= {f"spectrum.{part}": ("f", (3,)) for part in ("mean", "var")}
        wanted |= {"spectrum.axes": ("f", (3, 3)), "spectrum.power": ("f", (3, "v", "u")), "spectrum.size": ("f", (2,))}
        wanted |= {f"prepare.{part}": ("f", (3,)) for part in ("mean", "std")}
        if "rows" in stem["prepare"]:
            wanted |= {"prepare.rows": ("f", ("h", spec.shape[0])), "prepare.columns": ("f", ("w", spec.shape[1]))}
    if latent:
        wanted["anchor.latents"] = ("int8", ("a", *latent))
        wanted["latent.scale"] = ("f", (latent[int(split.get("channel_axis", 1)) - 1],))
    return wanted
