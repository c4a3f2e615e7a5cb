"""Images in tar files, as WebDataset writes them: read where they stand, never unpacked."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError
from edgessl.sources.base import Skipped
from edgessl.sources.decoded import DecodedSource
from edgessl.sources.images import SUFFIXES, UnreadableError, read_image

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_LABEL_BYTES = 1 << 16  # a label file over this is none


@dataclass
class _Sample:
    """Where one image stands, and what its label file says."""

    name: str
    shard: Path
    offset: int
    size_bytes: int
    label: str | None = None


@dataclass
class _Index:
    samples: list[_Sample] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


class ShardSource(DecodedSource):
    """Images in shards, in the order they stand there, as RGB frames of one size.

    The files of one sample follow each other and share a key, the path up to the first dot of the file's name; the first of
    them that ends as an image is taken. `.cls` (text) or `label` in `.json` is its label, where every sample has one. The
    index of offsets is built once, from the headers alone, and kept in memory.

    Args:
        data: A `.tar`, a folder of them, or `shards:` before either or before a pattern such as `part-{000..015}.tar`.
        size: Height and width of a frame; the first readable image's own when None.
        strict: Make an unreadable image or shard an error.
        name: What the user typed; `data` when None.

    Raises:
        InputError: No shard, no image, or none that can be read.
    """

    def __init__(
        self, data: str, size: tuple[int, int] | None = None, *, strict: bool = False, name: str | None = None
    ) -> None:
        super().__init__(data if name is None else name, strict=strict)
        index = _Index()
        for title, shard in _shards(data):
            _add(index, title, shard)
        for skipped in index.skipped:
            self.skip(skipped)
        self._samples = index.samples
        self.names = [sample.name for sample in index.samples]
        if not self.names:
            why = f"; {index.skipped[0].name}: {index.skipped[0].reason}" if index.skipped else ""
            raise InputError(f"no image in {data}{why}; an image ends in one of {', '.join(sorted(SUFFIXES))}")
        self.sized(size, f"none of the {len(self.names)} images of {self.name} can be read")
        labels = [sample.label for sample in index.samples if sample.label is not None]
        if len(labels) == len(self.names):
            self.classes = sorted(
                set(labels), key=lambda label: (0, int(label), "") if label.isdecimal() else (1, 0, label)
            )
            place = {label: number for number, label in enumerate(self.classes)}
            self.labels = np.asarray([place[label] for label in labels], np.int64)

    def digest(self) -> str:
        """sha256 over names, sizes and places; the pixels are not read."""
        digest = hashlib.sha256()
        for sample in self._samples:
            digest.update(f"{sample.name}\0{sample.offset}\0{sample.size_bytes}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def frame(self, index: int, size: tuple[int, int] | None) -> NDArray[np.uint8] | None:
        """The image at `index`."""
        sample = self._samples[index]
        try:
            return read_image(io.BytesIO(_content(sample.shard, sample.offset, sample.size_bytes)), size)
        except (UnreadableError, OSError) as error:
            self.skip(Skipped(sample.name, str(error)))
            return None

    def refusal(self, skipped: Skipped) -> str:
        """What to do."""
        return (
            f"{skipped.name} of {self.name} cannot be read: {skipped.reason}. "
            "Write the shard again, or leave out --strict to skip it"
        )


def _shards(data: str) -> list[tuple[str, Path]]:
    """What each shard is called in names of samples, and where it is."""
    from edgessl.sources.folder import natural_key

    pattern = data.removeprefix("shards:")
    path = Path(pattern).expanduser()
    if path.is_dir():
        names = sorted((file.relative_to(path).as_posix() for file in path.rglob("*.tar")), key=natural_key)
        return [(name, path / name) for name in names]
    found = [Path(text).expanduser() for text in _expanded(pattern)]
    for shard in found:
        if not shard.is_file():
            raise InputError(
                f"{shard} does not exist; type shards:PATH/{{000..015}}.tar with the numbers that are there"
            )
    return [(shard.name, shard) for shard in found]


def _expanded(pattern: str) -> list[str]:
    """`a-{008..010}.tar` -> a-008.tar, a-009.tar, a-010.tar."""
    pieces = _RANGE.split(pattern)
    choices = []
    for first, last in zip(pieces[1::3], pieces[2::3], strict=True):
        if not 0 <= int(last) - int(first) < 1_000_000:
            raise InputError(f"{{{first}..{last}}} is no range of shards; type the smaller number first")
        choices.append([f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)])
    return ["".join(a + b for a, b in zip(pieces[::3], (*chosen, ""), strict=True)) for chosen in product(*choices)]


def _add(index: _Index, title: str, shard: Path) -> None:
    """The samples of one shard; of a damaged one those in front of the damage."""
    last_key, current = None, None
    label: str | None = None
    try:
        with tarfile.open(shard, "r:") as file:  # uncompressed: in a compressed one nothing has a place
            for member in file:
                folder, _, base = member.name.rpartition("/")
                stem, dot, ending = base.partition(".")
                if not (member.isreg() and not member.issparse() and stem and dot):
                    continue
                if member.name.startswith("/") or ".." in PurePosixPath(folder).parts:
                    index.skipped.append(Skipped(f"{title}/{member.name}", "a name that leads out of the shard"))
                    continue
                if (key := (folder, stem)) != last_key:
                    last_key, current, label = key, None, None
                ending = ending.lower()
                if f".{ending}" in SUFFIXES and current is None:
                    current = _Sample(f"{title}/{member.name}", shard, member.offset_data, member.size, label)
                    index.samples.append(current)
                elif ending in ("cls", "json") and member.size <= _LABEL_BYTES and (label is None or ending == "cls"):
                    label = _label(_content(shard, member.offset_data, member.size), ending) or label
                    if current is not None:
                        current.label = label
    except (tarfile.TarError, OSError, EOFError, ValueError, UnreadableError) as error:
        index.skipped.append(Skipped(title, f"not an uncompressed tar file, or damaged: {error}"))


def _content(shard: Path, offset: int, size_bytes: int) -> bytes:
    with shard.open("rb") as file:
        file.seek(0, io.SEEK_END)
        if offset + size_bytes > file.tell():
            raise UnreadableError("the shard ends before it")
        file.seek(offset)
        return file.read(size_bytes)


def _label(content: bytes, ending: str) -> str | None:
    if ending == "cls":
        return content.decode("utf-8", "replace").strip() or None
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return None
    label = told.get("label") if isinstance(told, dict) else None
    return str(label) if isinstance(label, str | int) else None
