"""Where samples come from: a folder of images, an `.npz` file, the demo's simulated drive.

A new source is a file with a class or function that gives a `Source`, one line in `SOURCES` and one branch in
`open_source`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from edgessl.errors import InputError, UnknownNameError
from edgessl.signals import InputSpec
from edgessl.sources.base import Batch, Skipped, Source

__all__ = ["SOURCES", "Batch", "Skipped", "Source", "open_source"]

SPLITS = ("train", "test")

#: kind -> (module, what makes it, how it is typed)
SOURCES = {
    "folder": ("edgessl.sources.folder", "FolderSource", "FOLDER of images, nested or not"),
    "npz": ("edgessl.sources.npz", "npz_source", "FILE.npz with x_train, y_train, x_test, y_test, or x (and y)"),
    "demo": ("edgessl.sources.demo", "demo_source", "demo:LAP with LAP one of day, revisit, night, night_unseen"),
}


def open_source(
    data: str,
    *,
    size: tuple[int, int] | None = None,
    split: str = "train",
    strict: bool = False,
    spec: InputSpec | None = None,
) -> Source:
    """Open what the user named as data.

    Args:
        data: A path, or `demo:LAP`; see `SOURCES`.
        size: Height and width that images are resized to. Without it those of `spec`, else the data's own: of a folder,
            the size of its first readable image.
        split: `train` or `test`, for data that has both.
        strict: Make an unreadable sample an error.
        spec: What the samples are for; data of another kind is refused.

    Raises:
        InputError: There is no such data, or nothing in it can be used.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    if size is None and spec is not None and spec.kind == "image":
        size = (spec.shape[0], spec.shape[1])
    source: Source
    path = Path(data).expanduser()
    if split != SPLITS[0] and (data.startswith("demo:") or path.is_dir()):
        raise InputError(f"{data} has no split {split!r}; only an .npz file has. Leave out --split {split}")
    if data.startswith("demo:"):
        source = _make("demo")(data.removeprefix("demo:"), size=size)
    elif path.is_dir():
        source = _make("folder")(path, size, strict=strict, name=data)
    elif path.is_file() and path.suffix.lower() == ".npz":
        source = _make("npz")(path, split=split, size=size, name=data, spec=spec)
    else:
        what = "is not one of them" if path.exists() else "does not exist"
        raise InputError(f"{data!r} {what}; data is one of: {'; '.join(typed for _, _, typed in SOURCES.values())}")
    if spec is not None and source.spec.shape != spec.shape:
        raise InputError(
            f"{data} holds {source.spec.kind} samples {source.spec.shape} {source.spec.dtype}; "
            f"this encoder takes {spec.kind} samples {spec.shape} {spec.dtype}"
        )
    return source


def _make(kind: str) -> Any:
    module, function, _ = SOURCES[kind]
    return getattr(import_module(module), function)
