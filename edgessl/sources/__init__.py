"""Where samples come from: images, recordings of sensors, arrays, shards, the demo's simulated drive.

A new source is a file with a class or function that gives a `Source`, one line in `SOURCES` and one branch in
`open_source`.
"""

from __future__ import annotations

import os
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

from edgessl.errors import InputError, UnknownNameError
from edgessl.signals import InputSpec
from edgessl.sources.base import Batch, Skipped, Source
from edgessl.sources.windows import Windowing

__all__ = ["SOURCES", "Batch", "Skipped", "Source", "Windowing", "has_test", "open_source"]

SPLITS = ("train", "test")

#: Endings of recordings that are nothing else.
RECORDED = (".csv", ".parquet", ".hea")

#: kind -> (module, what makes it, how it is typed)
SOURCES = {
    "folder": ("edgessl.sources.folder", "FolderSource", "FOLDER of images, nested or not"),
    "npz": ("edgessl.sources.npz", "npz_source", "FILE.npz with x_train, y_train, x_test, y_test, or x (and y)"),
    "recordings": (
        "edgessl.sources.recordings",
        "recordings_source",
        "a log FILE.csv or FILE.parquet, a WFDB record FILE.hea, or a FOLDER of them",
    ),
    "shards": ("edgessl.sources.shards", "ShardSource", "FILE.tar, a FOLDER of them, or shards:PATH/{000..015}.tar"),
    "demo": ("edgessl.sources.demo", "demo_source", "demo:LAP with LAP one of day, revisit, night, night_unseen"),
}


def open_source(
    data: str,
    *,
    size: tuple[int, int] | None = None,
    split: str = "train",
    strict: bool = False,
    spec: InputSpec | None = None,
    windowing: Windowing | None = None,
    labelled: bool = True,
) -> Source:
    """Open what the user named as data.

    Args:
        data: A path, or `demo:LAP`; see `SOURCES`.
        size: Height and width that images are resized to. Without it those of `spec`, else the data's own: of a folder,
            the size of its first readable image.
        split: `train` or `test`, for data that has both.
        strict: Make an unreadable sample an error.
        spec: What the samples are for; data of another kind, rate or channels is refused.
        windowing: How recordings are cut into windows; None leaves it to `spec` and to the recordings.
        labelled: Whether labels are wanted: then a window of a recording that has none is left out.

    Raises:
        InputError: There is no such data, or nothing in it can be used.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    if size is None and spec is not None and spec.kind == "image":
        size = (spec.shape[0], spec.shape[1])
    source: Source
    path = Path(data).expanduser()
    kind = _kind(data, path)
    if split != SPLITS[0] and kind != "npz":
        raise InputError(f"{data} has no split {split!r}; only an .npz file has. Leave out --split {split}")
    if windowing is not None and kind not in ("npz", "recordings"):
        raise InputError(f"{data} is no recording that is cut into windows; leave out --series")
    if kind == "demo":
        source = _make(kind)(data.removeprefix("demo:"), size=size)
    elif kind == "npz":
        source = _make(kind)(path, split=split, size=size, name=data, spec=spec, windowing=windowing)
    elif kind == "recordings":
        if size is not None or (spec is not None and spec.kind == "image"):
            raise InputError(f"{data} holds recordings of sensors, and images are taken; give images")
        source = _make(kind)(path, windowing, spec=spec, strict=strict, name=data, labelled=labelled)
    else:
        source = _make(kind)(path if kind == "folder" else data, size, strict=strict, name=data)
    if spec is not None and source.spec.shape != spec.shape:
        raise InputError(
            f"{data} holds {source.spec.kind} samples {source.spec.shape} {source.spec.dtype}; "
            f"this encoder takes {spec.kind} samples {spec.shape} {spec.dtype}"
        )
    if spec is not None:
        _same_sensor(data, source.spec, spec)
    return source


def has_test(data: str) -> bool:
    """Whether the data that the user named has a test split of its own: an `.npz` file with `x_test`."""
    path = Path(data).expanduser()
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return "x_test.npy" in file.namelist()


def _kind(data: str, path: Path) -> str:
    """Which of `SOURCES` the user means."""
    if data.startswith("demo:"):
        return "demo"
    if data.startswith("shards:") or (path.suffix.lower() == ".tar" and path.is_file()):
        return "shards"
    if path.is_dir():
        return _folder_kind(path)
    if path.is_file() and path.suffix.lower() in (".npz", *RECORDED):
        return "npz" if path.suffix.lower() == ".npz" else "recordings"
    what = "is not one of them" if path.exists() else "does not exist"
    raise InputError(f"{data!r} {what}; data is one of: {'; '.join(typed for _, _, typed in SOURCES.values())}")


def _folder_kind(folder: Path) -> str:
    """Images where there is one, for tables of other things often lie beside them; else shards, else recordings."""
    from edgessl.sources.images import SUFFIXES

    found = set()
    for _, folders, files in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        endings = {Path(name).suffix.lower() for name in files if not name.startswith(".")}
        if endings & SUFFIXES:
            return "folder"
        found |= endings
    if ".tar" in found:
        return "shards"
    return "recordings" if found & {".npz", *RECORDED} else "folder"


def _same_sensor(data: str, given: InputSpec, taken: InputSpec) -> None:
    """Shapes may agree by chance; what both sides state of a series must agree too."""
    if given.rate_hz and taken.rate_hz and abs(given.rate_hz / taken.rate_hz - 1) > 1e-3:
        raise InputError(
            f"{data} has {given.rate_hz:g} Hz and this encoder takes {taken.rate_hz:g}; give the recording itself, "
            f"and --series rate_hz={taken.rate_hz:g} resamples it"
        )
    if given.channels and taken.channels and given.channels != taken.channels:
        raise InputError(
            f"{data} has the channels {', '.join(given.channels)} and this encoder takes {', '.join(taken.channels)}, "
            "in that order"
        )


def _make(kind: str) -> Any:
    module, function, _ = SOURCES[kind]
    return getattr(import_module(module), function)
