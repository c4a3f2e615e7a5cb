"""Shards of images: the same samples as a folder, read where they stand."""

from __future__ import annotations

import copy
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgessl.errors import InputError
from edgessl.sources import open_source
from edgessl.sources.shards import ShardSource


def _png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((7, 5, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def _shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def _two(folder: Path) -> Path:
    for shard in range(2):
        members: list[tuple[str, bytes]] = []
        for index in range(3):
            value = 30 * shard + 10 * index
            members += [(f"{index:03d}.cls", str(index % 2 + 9).encode()), (f"{index:03d}.png", _png(value))]
        _shard(folder / f"part-{shard:03d}.tar", members)
    return folder


def test_a_folder_a_pattern_and_a_file_give_the_same_frames(tmp_path: Path) -> None:
    folder = _two(tmp_path / "shards")
    source = open_source(str(folder))
    assert source.names[4] == "part-001.tar/001.png"
    assert [int(frame[0, 0, 0]) for frame in source.read(range(6))[1]] == [0, 10, 20, 30, 40, 50]
    assert [int(frame[0, 0, 0]) for frame in source.read([5, 0])[1]] == [50, 0]
    pattern = open_source(f"shards:{folder}/part-{{000..001}}.tar", size=(3, 4))
    assert (pattern.names, pattern.digest()) == (source.names, source.digest())
    assert pattern.spec.shape == (3, 4, 3)
    assert len(open_source(str(folder / "part-001.tar"))) == 3
    assert source.classes == ["9", "10"]
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 0, 0, 1, 0]
    assert source.groups is None
    assert [batch.frames.shape[0] for batch in source.batches(4)] == [4, 2]


def test_shards_that_webdataset_writes_are_read(tmp_path: Path) -> None:
    webdataset: Any = pytest.importorskip("webdataset", reason="pip install 'edgessl[dev]'")
    images = np.random.default_rng(0).integers(0, 255, (5, 6, 4, 3), dtype=np.uint8)
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for index, image in enumerate(images):
            writer.write({"__key__": f"set/{index:04d}", "png": image, "json": {"label": f"kind{index % 2}"}})
    source = open_source(str(tmp_path / "a.tar"))
    assert np.array_equal(source.read(range(5))[1], images)
    assert source.classes == ["kind0", "kind1"]


def test_an_image_that_cannot_be_read_is_skipped_and_strict_makes_it_an_error(tmp_path: Path) -> None:
    path = _shard(tmp_path / "a.tar", [("a.png", _png(3)), ("b.png", b""), ("c.jpg", b"no image")])
    source = open_source(str(path))
    assert source.read([0, 1, 2])[0].tolist() == [0]
    assert [skipped.name for skipped in source.skipped] == ["a.tar/b.png", "a.tar/c.jpg"]
    with pytest.raises(InputError, match=r"a\.tar/b\.png"):
        list(open_source(str(path), strict=True).batches(3))


def test_names_that_lead_out_links_and_compression_are_refused(tmp_path: Path) -> None:
    path = _shard(tmp_path / "in" / "a.tar", [("../out.png", _png(3)), ("/abs.png", _png(3)), ("ok.png", _png(3))])
    with tarfile.open(path, "a") as file:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    source = open_source(str(path))
    assert source.names == ["a.tar/ok.png"]
    assert all("leads out" in skipped.reason for skipped in source.skipped)
    assert [file.name for file in tmp_path.rglob("*")] == ["in", "a.tar"]
    with tarfile.open(tmp_path / "b.tar", "w:gz") as file:
        file.add(path, "x.png")
    with pytest.raises(InputError, match="not an uncompressed tar"):
        open_source(str(tmp_path / "b.tar"))


@pytest.mark.parametrize("keep", [0, 100, 540])
def test_a_shard_without_a_whole_image_is_refused(tmp_path: Path, keep: int) -> None:
    path = _shard(tmp_path / "a.tar", [("0.png", _png(0))])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"no image in|none of"):
        open_source(str(path))


def test_a_cut_shard_gives_what_is_whole(tmp_path: Path) -> None:
    path = _shard(tmp_path / "a.tar", [(f"{index}.png", _png(index)) for index in range(4)])
    path.write_bytes(path.read_bytes()[:1560])
    source = open_source(str(path))
    assert source.read(range(len(source)))[0].tolist() == [0]
    assert source.skipped


def test_a_header_that_claims_too_much_is_skipped(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.png")
    member.size = 1 << 60
    (tmp_path / "a.tar").write_bytes(member.tobuf() + b"\0" * 1024)
    with pytest.raises(InputError, match=r"no image|none of"):
        open_source(str(tmp_path / "a.tar"))


def test_what_is_not_there_says_what_to_type(tmp_path: Path) -> None:
    _two(tmp_path)
    with pytest.raises(InputError, match=r"part-002\.tar does not exist"):
        open_source(f"shards:{tmp_path}/part-{{000..002}}.tar")
    with pytest.raises(InputError, match="smaller number first"):
        open_source(f"shards:{tmp_path}/part-{{9..2}}.tar")
    with pytest.raises(InputError, match="Leave out --split test"):
        open_source(str(tmp_path), split="test")


def test_a_worker_gets_its_own_copy(tmp_path: Path) -> None:
    source = ShardSource(str(_two(tmp_path)))
    assert np.array_equal(copy.deepcopy(source).read([4])[1], source.read([4])[1])
