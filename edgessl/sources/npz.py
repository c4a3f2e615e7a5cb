"""Arrays in an `.npz` file: `x_train, y_train, x_test, y_test`, or `x` and perhaps `y`; or one recording, `x` alone.

Series may say more: `rate_hz`, `units`, `channels` (names), and per sample `subject` or `group` (`subject_train` beside
`x_train`).
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.signals import InputSpec, image_hint, image_spec
from edgessl.sources.arrays import ArraySource
from edgessl.sources.clock import Recording
from edgessl.sources.recordings import chosen
from edgessl.sources.windows import Windowing

_TAKES = "x_train, y_train, x_test, y_test, or x (and y)"
_FACTS = ("rate_hz", "units", "channels")


def npz_source(
    path: Path,
    *,
    split: str,
    size: tuple[int, int] | None = None,
    name: str | None = None,
    spec: InputSpec | None = None,
    windowing: Windowing | None = None,
) -> ArraySource:
    """Read one split of an `.npz` file.

    Args:
        path: The file. Images are uint8 `(n, height, width, 3)`, series are floats `(n, channels, time)`; a float
            `(channels, time)` is one recording, which is cut into windows.
        split: `train` or `test`; a file with `x` has only `train`.
        size: Height and width that images are resized to.
        name: What the user typed; the path when None.
        spec: What the samples are for; what is refused is told what it takes.
        windowing: How a recording is cut; refused for samples that are there already.

    Raises:
        InputError: No such array, or one of another dtype or shape. Names the keys that were found.
    """
    x_key, found = _load(path, split)
    x, suffix = found[x_key], x_key[1:]
    where = f"{x_key} of {path} (it holds {', '.join(found)})"
    if x.ndim == 2 and np.issubdtype(x.dtype, np.floating):
        from edgessl.sources.recordings import recordings_source

        return recordings_source(path, windowing, spec=spec, name=name)
    frames, own = _samples(x, where, _wanted(spec))
    if windowing is not None:
        raise InputError(f"{where} is {x.dtype} {x.shape}, samples that are cut already; leave out --series")
    if own.kind != "image" and size is not None:
        raise InputError(f"{where} holds series, {x.dtype} {x.shape}, not images; {_wanted(spec)}")
    if own.kind != "image":
        own = _described(own, found, path)
    labels = found.get("y" + suffix)
    group_key = next((key + suffix for key in ("group", "subject") if key + suffix in found), None)
    return ArraySource(
        str(path) if name is None else name,
        frames,
        own,
        [f"{x_key}/{index:06d}" for index in range(len(frames))],
        labels=None if labels is None else _classes(labels, len(frames), f"y{suffix} of {path}"),
        groups=None if group_key is None else _groups(found[group_key], len(frames), f"{group_key} of {path}"),
        size=size,
    )


def read_recording(path: Path, windowing: Windowing) -> Recording:
    """Read a file whose `x` is one recording, float `(channels, time)`, beside `rate_hz`.

    Raises:
        InputError: It is none, or its rate is not there.
    """
    key, found = _load(path, "train")
    x = found[key]
    if key != "x" or x.ndim != 2 or x.size == 0 or not np.issubdtype(x.dtype, np.floating):
        raise InputError(f"{key} of {path} is {x.dtype} {x.shape}; a recording is a float x (channels, time)")
    if "rate_hz" not in found:
        raise InputError(f"{path} does not say its rate; type np.savez(path, x=x, rate_hz=100.0)")
    spec = _described(InputSpec(kind="series", shape=x.shape, dtype="float32", units="as recorded"), found, path)
    names = list(spec.channels) or [str(index) for index in range(len(x))]
    rows = chosen(names, windowing)
    time_s = np.arange(x.shape[1]) / (spec.rate_hz or 1.0)
    values = x[rows].astype(np.float64)
    return Recording(
        time_s, np.where(np.isfinite(values), values, np.nan), tuple(names[row] for row in rows), units=spec.units
    )


def _load(path: Path, split: str) -> tuple[str, dict[str, NDArray[Any]]]:
    """The key of the split's samples, and every array that belongs to them; of the others only the names, as empty arrays."""
    try:
        # Never pickles: an object array would run a stranger's code. What is no zip, numpy would leave open.
        with path.open("rb") as handle, zipfile.ZipFile(handle), np.load(path, allow_pickle=False) as file:
            keys = list(file.keys())
            x_key = next((key for key in _x_keys(split) if key in keys), None)
            if x_key is None:
                found = ", ".join(keys) or "nothing"
                raise InputError(f"{path} holds {found}; there is no {split} split in it. edgessl takes {_TAKES}")
            wanted = {x_key, *_FACTS, *(key + x_key[1:] for key in ("y", "group", "subject"))}
            return x_key, {key: np.asarray(file[key]) if key in wanted else np.zeros(0) for key in keys}
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error or type(error).__name__}. edgessl takes {_TAKES}") from error


def _described(spec: InputSpec, found: dict[str, NDArray[Any]], path: Path) -> InputSpec:
    """The spec with what the file says of its series."""
    told: dict[str, Any] = {}
    if "rate_hz" in found:
        rate = found["rate_hz"]
        if rate.shape != () or rate.dtype.kind not in "iuf":
            raise InputError(f"rate_hz of {path} is {rate.dtype} {rate.shape}; it is one number, such as 100.0")
        told["rate_hz"] = float(rate)
    if "units" in found:
        told["units"] = str(found["units"])
    if "channels" in found:
        names = found["channels"]
        if names.ndim != 1 or names.dtype.kind != "U":
            raise InputError(f"channels of {path} is {names.dtype} {names.shape}; it holds names, text (channels,)")
        if len(names) != spec.shape[0] and len(names) == spec.shape[-1]:
            raise InputError(
                f"x of {path} has {spec.shape[0]} channels of {spec.shape[-1]} steps and names for {len(names)}: it is time "
                "first; type np.swapaxes(x, -1, -2)"
            )
        told["channels"] = tuple(names.tolist())
    try:
        return replace(spec, **told)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _groups(groups: NDArray[Any], count: int, where: str) -> NDArray[Any]:
    if groups.shape != (count,) or groups.dtype.kind not in "iuU":
        raise InputError(
            f"{where} is {groups.dtype} {groups.shape}; groups are numbers or names ({count},), one per sample"
        )
    return groups


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
