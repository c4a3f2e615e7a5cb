"""Arrays in an `.npz` file: which are taken, and what is said of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgessl.errors import InputError
from edgessl.signals import InputSpec, image_spec
from edgessl.sources import open_source


def _frames(count: int = 5) -> Any:
    return np.random.default_rng(0).integers(0, 255, (count, 6, 4, 3), dtype=np.uint8)


def _save(path: Path, **arrays: Any) -> str:
    np.savez(path / "data.npz", **arrays)
    return str(path / "data.npz")


def test_the_split_picks_the_arrays(tmp_path: Path) -> None:
    data = _save(
        tmp_path, x_train=_frames(5), y_train=np.array([7, 3, 3, 7, 9]), x_test=_frames(3), y_test=np.array([3, 3, 7])
    )
    train, test = open_source(data), open_source(data, split="test")
    assert (len(train), len(test)) == (5, 3)
    assert train.spec == image_spec(6, 4)
    assert train.names[4] == "x_train/000004"
    assert train.classes == ["3", "7", "9"]
    assert train.labels is not None
    assert train.labels.tolist() == [1, 0, 0, 1, 2]
    assert train.digest() != test.digest()


def test_x_alone_is_enough(tmp_path: Path) -> None:
    frames = _frames(13)
    source = open_source(_save(tmp_path, x=frames))
    batches = list(source.batches(5))
    assert [len(batch.names) for batch in batches] == [5, 5, 3]
    assert batches[2].names[-1] == "x/000012"
    assert np.array_equal(np.concatenate([batch.frames for batch in batches]), frames)
    assert np.array_equal(np.concatenate([batch.indices for batch in batches]), np.arange(13))
    assert source.labels is None
    assert source.skipped == []


def test_float_windows_are_series(tmp_path: Path) -> None:
    source = open_source(_save(tmp_path, x=np.zeros((4, 6, 50))))
    assert (source.spec.kind, source.spec.shape, source.spec.dtype) == ("series", (6, 50), "float32")
    assert source.read([2])[1].dtype == np.float32


def test_images_are_resized_on_request(tmp_path: Path) -> None:
    source = open_source(_save(tmp_path, x=np.full((2, 6, 4, 3), 77, np.uint8)), size=(3, 5))
    assert source.spec == image_spec(3, 5)
    assert np.array_equal(source.read([1])[1], np.full((1, 3, 5, 3), 77))


@pytest.mark.parametrize(
    ("x", "hint"),
    [
        (np.zeros((2, 3, 8, 8), np.uint8), r"transpose\(0, 2, 3, 1\)"),
        (np.zeros((2, 8, 8), np.uint8), "grey"),
        (np.zeros((2, 8, 8, 1), np.uint8), "grey"),
        (np.zeros((2, 8, 8, 3), np.float32), r"x \* 255"),
        (np.zeros((2, 8, 8, 3), np.int64), "int64"),
        (np.zeros((0, 8, 8, 3), np.uint8), "empty"),
        (np.zeros(7, np.uint8), r"\(7,\)"),
    ],
)
def test_another_dtype_or_shape_names_the_keys_and_what_to_type(tmp_path: Path, x: Any, hint: str) -> None:
    with pytest.raises(InputError, match=hint) as error:
        open_source(_save(tmp_path, x=x, other=np.zeros(1)))
    assert "x, other" in str(error.value)


def test_missing_arrays_name_those_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds images, labels"):
        open_source(_save(tmp_path, images=_frames(), labels=np.zeros(5)))
    with pytest.raises(InputError, match="no test split"):
        open_source(_save(tmp_path, x=_frames()), split="test")
    with pytest.raises(InputError, match="no split 'validation'"):
        open_source(_save(tmp_path, x=_frames()), split="validation")


@pytest.mark.parametrize("y", [np.zeros(4, np.int64), np.zeros(5), np.zeros((5, 2), np.int64)])
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, y: Any) -> None:
    with pytest.raises(InputError, match="labels are whole numbers"):
        open_source(_save(tmp_path, x=_frames(), y=y))


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    data = _save(tmp_path, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="cannot be read"):
        open_source(data)
    (tmp_path / "bare.npz").write_bytes(b"\x80\x04]\x94K\x01a.")  # a pickled list
    with pytest.raises(InputError, match="cannot be read"):
        open_source(str(tmp_path / "bare.npz"))


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_cut_file_is_refused(tmp_path: Path, keep: int) -> None:
    data = Path(_save(tmp_path, x=_frames()))
    data.write_bytes(data.read_bytes()[:keep])
    with pytest.raises(InputError, match="cannot be read"):
        open_source(str(data))


def test_a_changed_byte_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "data.npz", x=_frames(50))
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        open_source(str(tmp_path / "data.npz"))


def test_a_single_array_with_the_wrong_ending_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, _frames())
    with pytest.raises(InputError, match="cannot be read"):
        open_source(str(tmp_path / "array.npz"))


def test_what_does_not_exist_says_what_can_be_given(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not exist; data is one of: FOLDER.*FILE\.npz.*demo:LAP"):
        open_source(str(tmp_path / "nothing"))
    (tmp_path / "film.txt").write_bytes(b"0")
    with pytest.raises(InputError, match="is not one of them"):
        open_source(str(tmp_path / "film.txt"))


def test_another_shape_than_the_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds series samples \(6, 50\)"):
        open_source(_save(tmp_path, x=np.zeros((4, 6, 50))), spec=_series(3, 50))


def _series(channels: int, time: int) -> InputSpec:
    return InputSpec(kind="series", shape=(channels, time), dtype="float32", units="as recorded")


@pytest.mark.parametrize(
    ("value", "hint"), [(np.nan, "NaN or infinity"), (-2.1, "undo the norm"), (300, "undo the norm")]
)
def test_no_advice_destroys_values(tmp_path: Path, value: float, hint: str) -> None:
    frames = np.full((2, 8, 8, 3), 0.5, np.float32)
    frames[1, 2, 3] = value
    with pytest.raises(InputError, match=hint) as error:
        open_source(_save(tmp_path, x=frames))
    assert "astype" not in str(error.value)


def test_what_the_encoder_takes_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"this encoder takes uint8 \(n, 6, 4, 3\)\. .*255"):
        open_source(_save(tmp_path, x=_frames() / 255), spec=image_spec(6, 4))
    with pytest.raises(InputError, match=r"this encoder takes series samples \(3, 50\) float32"):
        open_source(_save(tmp_path, x=np.zeros((4, 6, 50))), spec=_series(3, 50))


def test_a_split_is_judged_for_every_source(tmp_path: Path, frames_folder: Path) -> None:
    for data in (str(frames_folder), "demo:day"):
        with pytest.raises(InputError, match="did you mean 'test'"):
            open_source(data, split="tests")
        with pytest.raises(InputError, match="Leave out --split test"):
            open_source(data, split="test")
    assert len(open_source(str(frames_folder), split="train")) == 40
