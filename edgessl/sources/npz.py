"""Arrays in an `.npz` file: `x_train, y_train, x_test, y_test`, or `x` and perhaps `y`."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.signals import InputSpec, image_hint, image_spec
from edgessl.sources.arrays import ArraySource

_TAKES = "x_train, y_train, x_test, y_test, or x (and y)"


def npz_source(
    path: Path,
    *,
    split: str,
    size: tuple[int, int] | None = None,
    name: str | None = None,
    spec: InputSpec | None = None,
) -> ArraySource:
    """Read one split of an `.npz` file.

    Args:
        path: The file. Images are uint8 `(n, height, width, 3)`, series are floats `(n, channels, time)`.
        split: `train` or `test`; a file with `x` has only `train`.
        size: Height and width that images are resized to.
        name: What the user typed; the path when None.
        spec: What the samples are for; what is refused is told what it takes.

    Raises:
        InputError: No such array, or one of another dtype or shape. Names the keys that were found.
    """
    try:
        # Never pickles: an object array would run a stranger's code. What is no zip, numpy would leave open.
        with path.open("rb") as handle, zipfile.ZipFile(handle), np.load(path, allow_pickle=False) as file:
            keys = list(file.keys())
            x_key = next((key for key in _x_keys(split) if key in keys), None)
            if x_key is None:
                found = ", ".join(keys) or "nothing"
                raise InputError(f"{path} holds {found}; there is no {split} split in it. edgessl takes {_TAKES}")
            x = np.asarray(file[x_key])
            y_key = "y" + x_key[1:]
            y = np.asarray(file[y_key]) if y_key in keys else None
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error or type(error).__name__}. edgessl takes {_TAKES}") from error
    where = f"{x_key} of {path} (it holds {', '.join(keys)})"
    frames, own = _samples(x, where, _wanted(spec))
    if own.kind != "image" and size is not None:
        raise InputError(f"{where} holds series, {x.dtype} {x.shape}, not images; {_wanted(spec)}")
    return ArraySource(
        str(path) if name is None else name,
        frames,
        own,
        [f"{x_key}/{index:06d}" for index in range(len(frames))],
        labels=None if y is None else _classes(y, len(frames), f"{y_key} of {path}"),
        size=size,
    )


def _x_keys(split: str) -> list[str]:
    return ["x_train", "x"] if split == "train" else ["x_test"]


def _wanted(spec: InputSpec | None) -> str:
    if spec is None:
        return "edgessl takes uint8 (n, height, width, 3) or float (n, channels, time)"
    return f"this encoder takes {spec.dtype} (n, {', '.join(map(str, spec.shape))})"


def _samples(x: NDArray[Any], where: str, takes: str) -> tuple[NDArray[Any], InputSpec]:
    given = f"{where} is {x.dtype} {x.shape}"
    if x.size == 0:
        raise InputError(f"{given}, which is empty; {takes}")
    if x.ndim == 4 and x.shape[3] == 3 and x.dtype == np.uint8:
        return x, image_spec(x.shape[1], x.shape[2])
    if x.ndim == 3 and np.issubdtype(x.dtype, np.floating):
        spec = InputSpec(kind="series", shape=x.shape[1:], dtype="float32", units="as recorded")
        return x.astype(np.float32, copy=False), spec
    raise InputError(f"{given}; {takes}{_hint(x)}")


def _hint(x: NDArray[Any]) -> str:
    if x.ndim == 4 and x.shape[1] == 3 and x.shape[3] != 3:
        return ". These are channels first: type x.transpose(0, 2, 3, 1)"
    if x.dtype == np.uint8 and x.ndim == 3:
        return ". These are grey: type np.repeat(x[..., None], 3, axis=3)"
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] == 1:
        return ". These are grey: type np.repeat(x, 3, axis=3)"
    return image_hint(x, "x") if x.ndim == 4 and x.shape[3] == 3 else ""


def _classes(y: NDArray[Any], count: int, where: str) -> NDArray[np.integer]:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (count,) or not np.issubdtype(y.dtype, np.integer):
        raise InputError(f"{where} is {y.dtype} {y.shape}; labels are whole numbers ({count},), one per sample")
    return y
