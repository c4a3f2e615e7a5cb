"""A folder of images: what is read, in which order, and what happens to the rest."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgessl.errors import InputError
from edgessl.signals import InputSpec, image_spec
from edgessl.sources import open_source
from edgessl.sources.folder import FolderSource, natural_key


def _write(path: Path, value: int = 90, size: tuple[int, int] = (7, 5)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)
    return path


def test_images_come_in_natural_path_order(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/10.png", "a/2.png", "a/1.png", "c10.png", "c9.png"):
        _write(tmp_path / name)
    assert FolderSource(tmp_path).names == ["a/1.png", "a/2.png", "a/10.png", "b/2.png", "c9.png", "c10.png"]


def test_names_with_equal_numbers_still_have_one_order() -> None:
    assert natural_key("01.jpg") != natural_key("1.jpg")
    assert sorted(["1.jpg", "01.jpg"], key=natural_key) == sorted(["01.jpg", "1.jpg"], key=natural_key)


def test_the_first_sub_folder_is_the_class(tmp_path: Path) -> None:
    for name in ("cat/x/1.png", "ant/3.png", "cat/0.png"):
        _write(tmp_path / name)
    source = FolderSource(tmp_path)
    assert source.classes == ["ant", "cat"]
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 1]


def test_one_image_outside_the_sub_folders_means_no_classes(tmp_path: Path) -> None:
    for name in ("cat/1.png", "ant/3.png", "0.png"):
        _write(tmp_path / name)
    source = FolderSource(tmp_path)
    assert source.labels is None
    assert source.classes == []


def test_frames_take_the_size_of_the_first_readable_image(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"")
    _write(tmp_path / "1.png", size=(7, 5))
    _write(tmp_path / "2.png", size=(20, 30))
    source = FolderSource(tmp_path)
    assert source.spec == image_spec(7, 5)
    kept, frames = source.read([2, 1])
    assert kept.tolist() == [2, 1]
    assert frames.shape == (2, 7, 5, 3)


def test_a_large_image_is_averaged_not_sampled_when_it_is_resized(tmp_path: Path) -> None:
    stripes = np.zeros((64, 48, 3), np.uint8)
    stripes[::2] = 200
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    _, frames = FolderSource(tmp_path, (8, 6)).read([0])
    assert np.abs(frames.astype(int) - 100).max() <= 12


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jpg", b"", "empty"),
        ("text.png", b"this is no image", "not an image"),
        ("header.png", b"\x89PNG\r\n\x1a\n" + b"\xff" * 40, ""),
    ],
)
def test_an_unreadable_file_is_skipped_and_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    _write(tmp_path / "good.png")
    (tmp_path / name).write_bytes(content)
    source = open_source(str(tmp_path))
    batches = list(source.batches(4))
    assert [batch.names for batch in batches] == [["good.png"]]
    assert batches[0].indices.tolist() == [source.names.index("good.png")]
    assert [skipped.name for skipped in source.skipped] == [name]
    assert reason in source.skipped[0].reason
    list(source.batches(4))
    assert len(source.skipped) == 1


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_file_is_skipped(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _write(tmp_path / "good.png")
    source = FolderSource(tmp_path, (8, 8))
    assert source.read([0, 1])[0].tolist() == [1]
    assert [skipped.name for skipped in source.skipped] == [path.name]


def test_a_decompression_bomb_is_skipped_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    _write(tmp_path / "good.png", size=(5, 7))
    _write(tmp_path / "bomb.png", size=(11, 13))
    _write(tmp_path / "large_bomb.png", size=(50, 60))
    source = FolderSource(tmp_path)
    assert source.spec == image_spec(5, 7)
    assert source.read([0, 1, 2])[0].tolist() == [source.names.index("good.png")]
    assert all("100 pixels" in skipped.reason for skipped in source.skipped)
    assert len(source.skipped) == 2


def test_strict_makes_an_unreadable_file_an_error(tmp_path: Path) -> None:
    _write(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    source = open_source(str(tmp_path), strict=True)
    with pytest.raises(InputError, match=r"b\.png cannot be read: empty file"):
        list(source.batches(2))


def test_a_batch_of_unreadable_files_is_not_given(tmp_path: Path) -> None:
    _write(tmp_path / "0.png")
    for index in (1, 2):
        (tmp_path / f"{index}.png").write_bytes(b"")
    _write(tmp_path / "3.png")
    batches = list(FolderSource(tmp_path).batches(1))
    assert [batch.names for batch in batches] == [["0.png"], ["3.png"]]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(InputError, match="no image"):
        open_source(str(tmp_path))


def test_a_folder_of_nothing_readable_names_the_first_reason(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 1 images .* a\.png: empty file"):
        open_source(str(tmp_path))


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_links_are_followed_once_and_never_in_a_circle(tmp_path: Path) -> None:
    root = tmp_path / "root"
    _write(root / "a" / "1.png")
    _write(tmp_path / "outside" / "2.png")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "above").symlink_to(tmp_path)
    (root / "self").symlink_to(root / "self")
    (root / "again").symlink_to(root / "a")
    (root / "other").symlink_to(tmp_path / "outside")
    (root / "other_again").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "back").symlink_to(root)
    (root / "broken.png").symlink_to(root / "gone.png")
    source = FolderSource(root, (4, 4))
    assert source.names == ["a/1.png", "broken.png", "other/2.png"]
    assert source.read([0, 1, 2])[0].tolist() == [0, 2]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_named_like_an_image_does_not_block(tmp_path: Path) -> None:
    _write(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    source = FolderSource(tmp_path)
    reader = threading.Thread(target=lambda: source.read([0, 1]), daemon=True)
    reader.start()
    reader.join(timeout=20)
    assert not reader.is_alive()
    assert [skipped.name for skipped in source.skipped] == ["b.png"]


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    _write(tmp_path / "a.png")
    _write(tmp_path / "._a.png")
    _write(tmp_path / ".thumbnails" / "b.png")
    assert FolderSource(tmp_path).names == ["a.png"]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.full((6, 9, 3), 255, np.uint8)).convert(mode)
    image.save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    _, frames = FolderSource(tmp_path).read([0])
    assert frames.shape == (1, 6, 9, 3)
    assert frames.min() >= 250


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 9), 0x4000, np.uint16)).save(tmp_path / "a.png")
    _, frames = FolderSource(tmp_path).read([0])
    assert np.unique(frames).tolist() == [0x40]


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn a quarter clockwise
    Image.fromarray(np.zeros((6, 9, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert FolderSource(tmp_path).spec == image_spec(9, 6)


def test_the_digest_follows_names_and_sizes(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.png")
    first = FolderSource(tmp_path).digest()
    assert FolderSource(tmp_path).digest() == first
    path.rename(tmp_path / "b.png")
    renamed = FolderSource(tmp_path).digest()
    assert renamed != first
    with (tmp_path / "b.png").open("ab") as file:
        file.write(b"x")
    assert FolderSource(tmp_path).digest() not in (first, renamed)


def test_the_size_of_a_spec_is_taken(tmp_path: Path) -> None:
    _write(tmp_path / "a.png")
    assert open_source(str(tmp_path), spec=image_spec(11, 3)).spec == image_spec(11, 3)


def test_images_are_refused_where_series_are_taken(tmp_path: Path) -> None:
    _write(tmp_path / "a.png")
    spec = InputSpec(kind="series", shape=(6, 128), dtype="float32", units="as recorded")
    with pytest.raises(InputError, match="takes series"):
        open_source(str(tmp_path), spec=spec)


def test_a_folder_that_cannot_be_listed_is_skipped_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "a" / "1.png")
    _write(tmp_path / "lost+found" / "2.png")
    scandir = os.scandir

    def guarded(path: Path) -> object:
        if Path(path).name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    source = FolderSource(tmp_path)
    assert source.names == ["a/1.png"]
    assert [skipped.name for skipped in source.skipped] == ["lost+found"]
    with pytest.raises(InputError, match="cannot be listed: Permission denied"):
        FolderSource(tmp_path, strict=True)
