"""Where samples come from: images, recordings of sensors, arrays, shards, the demo's simulated drive.

A new source is a file with a class or function that gives a `Source`, one line in `SOURCES` and one branch in
`open_source`. What has no end is no `Source`: a camera and standard input are opened by `open_live`.
"""

from __future__ import annotations

import os
import zipfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgessl.errors import InputError, UnknownNameError
from edgessl.signals import InputSpec
from edgessl.sources.base import Batch, Skipped, Source
from edgessl.sources.windows import Windowing

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgessl.sources.livebase import Live

__all__ = [
    "LIVE",
    "SOURCES",
    "Batch",
    "Skipped",
    "Source",
    "Windowing",
    "has_test",
    "is_live",
    "open_live",
    "open_source",
]

SPLITS = ("train", "test")

#: Endings of recordings that are nothing else, of video files, and of what robots log.
RECORDED = (".csv", ".parquet", ".hea")
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm")
BAGS = (".mcap", ".db3", ".bag")

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
    "video": ("edgessl.sources.video", "VideoSource", f"a video FILE ({', '.join(VIDEOS)})"),
    "bag": (
        "edgessl.sources.bags",
        "bag_source",
        f"a recording of messages ({', '.join(BAGS)}), the FOLDER of a ROS 2 bag, or bag:PATH?topic=/camera/image_raw",
    ),
    "demo": ("edgessl.sources.demo", "demo_source", "demo:LAP with LAP one of day, revisit, night, night_unseen"),
}

#: How live streams are typed.
LIVE = ("camera:0", "camera:/dev/video0?fps=30&width=640&height=480", "- for standard input")


def is_live(data: str) -> bool:
    """Whether what the user named is a stream for `open_live`: it has no length and cannot be read twice."""
    return data == "-" or data.startswith("camera:")


def open_live(
    data: str,
    *,
    spec: InputSpec,
    max_age_s: float | None = None,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> Live:
    """Open a camera, whose newest frame wins, or standard input, of which every frame is given.

    Args:
        data: `camera:0`, `camera:/dev/video0` or `-`; see `LIVE`.
        spec: What the frames are for; images are resized to it.
        max_age_s: No frame of a camera is given that was taken longer ago; the default of `LiveSource` when None.
        tell: Called with what happens: `{"event": "disconnected", ...}`. From another thread, for a camera.

    Raises:
        InputError: There is no such stream, or it cannot be opened.
        MissingExtraError: OpenCV is not installed.
    """
    if data == "-":
        from edgessl.sources.stream import StreamSource

        return StreamSource(0, spec=spec, name=data, tell=tell)
    if data.startswith("camera:"):
        from edgessl.sources.camera import live_camera

        return live_camera(data, spec=spec, max_age_s=max_age_s, tell=tell)
    raise InputError(f"{data!r} is no live stream; type one of: {', '.join(LIVE)}")


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
    where, _, topic = data.removeprefix("bag:").partition("?topic=") if data.startswith("bag:") else (data, "", "")
    path = Path(where).expanduser()
    kind = _kind(data, path)
    if split != SPLITS[0] and kind != "npz":
        raise InputError(f"{data} has no split {split!r}; only an .npz file has. Leave out --split {split}")
    if windowing is not None and kind not in ("npz", "recordings", "bag"):
        raise InputError(f"{data} is no recording that is cut into windows; leave out --series")
    if kind == "demo":
        source = _make(kind)(data.removeprefix("demo:"), size=size)
    elif kind == "npz":
        source = _make(kind)(path, split=split, size=size, name=data, spec=spec, windowing=windowing)
    elif kind == "bag":
        source = _make(kind)(path, topic, size=size, spec=spec, windowing=windowing, strict=strict, name=data)
    elif kind == "recordings":
        if size is not None or (spec is not None and spec.kind == "image"):
            raise InputError(f"{data} holds recordings of sensors, and images are taken; give images")
        source = _make(kind)(path, windowing, spec=spec, strict=strict, name=data, labelled=labelled)
    else:
        source = _make(kind)(data if kind == "shards" else path, size, strict=strict, name=data)
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
    if is_live(data):
        raise InputError(
            f"{data} is a live stream, and data is wanted that can be read twice; record it, or name a file"
        )
    if data.startswith("bag:") and path.exists():
        return "bag"
    if data.startswith("demo:"):
        return "demo"
    if data.startswith("shards:") or (path.suffix.lower() == ".tar" and path.is_file()):
        return "shards"
    if path.is_dir():
        return _folder_kind(path)
    if path.is_file() and path.suffix.lower() in (".npz", *RECORDED):
        return "npz" if path.suffix.lower() == ".npz" else "recordings"
    if path.is_file() and path.suffix.lower() in (*VIDEOS, *BAGS):
        return "video" if path.suffix.lower() in VIDEOS else "bag"
    what = "is not one of them" if path.exists() else "does not exist"
    raise InputError(
        f"{data!r} {what}; data is one of: {'; '.join(typed for _, _, typed in SOURCES.values())}. "
        f"A live stream is {', '.join(LIVE)}"
    )


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
    if found & {".npz", *RECORDED}:
        return "recordings"
    return "bag" if found & set(BAGS) else "folder"


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
