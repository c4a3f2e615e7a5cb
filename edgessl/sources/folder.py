"""A folder of images, nested or not."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.sources.base import Indices, Skipped
from edgessl.sources.decoded import DecodedSource
from edgessl.sources.images import SUFFIXES, UnreadableError, read_image


class FolderSource(DecodedSource):
    """Images below a folder, in natural path order (`2.jpg` before `10.jpg`), as RGB frames of one size.

    Files are known as images by their ending. Hidden files and folders are left out, and so is a link to a folder that
    is listed anyway or that holds this one. When every image is in a sub-folder, the first sub-folder is its class.

    Args:
        folder: Where the images are.
        size: Height and width of a frame; the first readable image's own when None.
        strict: Make an unreadable image an error.
        name: What the user typed; the folder when None.

    Raises:
        InputError: No image, or none that can be read.
    """

    def __init__(
        self, folder: Path, size: tuple[int, int] | None = None, *, strict: bool = False, name: str | None = None
    ) -> None:
        super().__init__(str(folder) if name is None else name, strict=strict)
        self.names, closed = _listed(folder)
        self._folder = folder
        for skipped in closed:
            self.skip(skipped)
        if not self.names:
            raise InputError(f"no image in {folder}; an image ends in one of {', '.join(sorted(SUFFIXES))}")
        self.sized(size, f"none of the {len(self.names)} images in {folder} can be read")
        self.labels, self.classes = _labels(self.names)

    def digest(self) -> str:
        """sha256 over names and sizes; the pixels are not read."""
        digest = hashlib.sha256()
        for name in self.names:
            path = self._folder / name
            size = path.stat().st_size if path.is_file() else -1
            digest.update(os.fsencode(name) + f"\0{size}\n".encode())
        return digest.hexdigest()

    def frame(self, index: int, size: tuple[int, int] | None) -> NDArray[np.uint8] | None:
        """The image at `index`."""
        name = self.names[index]
        try:
            return read_image(self._folder / name, size)
        except UnreadableError as error:
            self.skip(Skipped(name, str(error)))
            return None

    def refusal(self, skipped: Skipped) -> str:
        """What to do."""
        return (
            f"{self._folder / skipped.name} cannot be read: {skipped.reason}. "
            "Repair or remove it, or leave out --strict to skip it"
        )


def _listed(root: Path) -> tuple[list[str], list[Skipped]]:
    """Names of the images below `root`, relative, in natural order, and the folders that cannot be listed.

    A link to a folder is followed once and never in a circle.
    """
    seen = {os.path.realpath(root)}
    names: list[str] = []
    closed: list[Skipped] = []
    waiting = [PurePosixPath()]
    while waiting:
        relative = waiting.pop()
        try:
            entries = sorted(os.scandir(root / relative), key=lambda entry: entry.name)
        except OSError as error:  # such as lost+found at the root of a disk
            closed.append(Skipped(str(relative), f"cannot be listed: {error.strerror}"))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                if PurePosixPath(entry.name).suffix.lower() in SUFFIXES:
                    names.append(str(relative / entry.name))
            elif not entry.is_symlink():
                waiting.append(relative / entry.name)
            elif _leads_elsewhere(real := os.path.realpath(entry), root) and real not in seen:
                seen.add(real)
                waiting.append(relative / entry.name)
    return sorted(names, key=natural_key), closed


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _leads_elsewhere(real: str, root: Path) -> bool:
    """Whether a link's target neither lies in `root`, which is listed anyway, nor holds it."""
    base = os.path.realpath(root)
    return os.path.commonpath([real, base]) not in (real, base)


def natural_key(name: str) -> list[tuple[tuple[str, int], ...]]:
    """Sort key of a path under which numbers count as numbers."""
    return [
        tuple(("", int(piece)) if piece.isdecimal() else (piece, -1) for piece in re.split(r"(\d+)", part))
        for part in name.split("/")
    ] + [((name, 0),)]  # "01.jpg" and "1.jpg" have one key, and still one order


def _labels(names: list[str]) -> tuple[Indices | None, list[str]]:
    if not all("/" in name for name in names):
        return None, []
    tops = [name.partition("/")[0] for name in names]
    classes = list(dict.fromkeys(tops))  # in natural order, as the names are
    place = {top: index for index, top in enumerate(classes)}
    return np.asarray([place[top] for top in tops], np.int64), classes
