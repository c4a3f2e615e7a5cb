from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgessl.errors import InputError
from edgessl.signals import KINDS, InputSpec, image_spec, series_spec

IMAGE = image_spec(5, 7)
SERIES = InputSpec(kind="series", shape=(3, 11), dtype="float32", units="m/s^2")


def test_a_right_batch_comes_back_as_it_is() -> None:
    frames = np.zeros((2, 5, 7, 3), np.uint8)
    assert IMAGE.check(frames) is frames


def test_lists_are_taken_where_their_values_fit() -> None:
    spec = InputSpec(kind="series", shape=(1, 2), dtype="float64", units="1")
    assert spec.check([[[0.5, 1.5]]]).shape == (1, 1, 2)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((5, 7, 3), r"a single sample.*Type frames\[None\]"),
        ((2, 3, 5, 7), r"channels first: type frames.transpose\(0, 2, 3, 1\)"),
        ((2, 5, 7, 1), "1 channels: convert them to RGB"),
        ((2, 5, 7, 4), "4 channels: convert them to RGB"),
        ((2, 7, 5, 3), r"got uint8 \(2, 7, 5, 3\); this encoder takes uint8 \(batch, 5, 7, 3\)"),
        ((), r"got uint8 \(\)"),
    ],
)
def test_a_wrong_shape_says_what_was_given_and_what_to_type(shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        IMAGE.check(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("value", "dtype", "hint"),
    [
        (0.5, "float32", r"astype\('uint8'\)"),
        (200.0, "float32", r"Type frames.astype\('uint8'\)"),
        (200.7, "float32", r"Type frames.round\(\).astype\('uint8'\)"),
        (-2.1, "float32", "outside 0..255: undo the normalisation"),
        (300, "int64", "outside 0..255"),
        (np.nan, "float32", "NaN or infinity"),
    ],
)
def test_a_wrong_dtype_is_judged_by_its_values(value: float, dtype: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        IMAGE.check(np.full((2, 5, 7, 3), value, dtype))


def test_values_in_0_to_1_are_told_to_be_scaled() -> None:
    with pytest.raises(InputError, match=r"frames \* 255"):
        IMAGE.check(np.full((2, 5, 7, 3), 0.5, np.float32))


def test_an_empty_batch_of_the_wrong_dtype_is_refused_too() -> None:
    with pytest.raises(InputError, match="got float32"):
        IMAGE.check(np.zeros((0, 5, 7, 3), np.float32))


def test_frames_and_windows_that_show_nothing_are_found() -> None:
    height, width, channels = IMAGE.shape
    frames = np.zeros((5, height, width, channels), np.uint8)
    frames[1] = (10, 200, 255)  # one colour
    frames[2] = np.arange(width, dtype=np.uint8)[:, None] % 3  # a covered lens is not quite still
    frames[3, 0, 0, 2] = 3
    frames[4] = np.random.default_rng(0).integers(0, 256, frames[4].shape)
    assert IMAGE.blank(frames).tolist() == [True, True, True, False, False]
    windows = np.zeros((3, *SERIES.shape), np.float32)
    windows[0] += np.arange(len(windows[0]), dtype=np.float32)[:, None]  # each channel hangs at a value of its own
    windows[1, 0, -1] = 1e-6
    windows[2, 0, 0] = np.nan
    assert SERIES.blank(windows).tolist() == [True, False, False]
    assert IMAGE.blank(frames[:0]).shape == (0,)


def test_samples_with_nan_or_infinity_are_found() -> None:
    batch = np.zeros((4, 3, 11), np.float32)
    batch[1, 2, 10], batch[3, 0, 0] = np.nan, -np.inf
    assert SERIES.finite(batch).tolist() == [True, False, True, False]
    assert IMAGE.finite(np.zeros((2, 5, 7, 3), np.uint8)).tolist() == [True, True]


@given(
    kind=st.sampled_from(KINDS),
    shape=st.lists(st.integers(1, 512), min_size=1, max_size=4).map(tuple),
    dtype=st.sampled_from(["uint8", "float32"]),
    units=st.text(max_size=20),
)
def test_json_gives_the_same_spec_back(kind: str, shape: tuple[int, ...], dtype: str, units: str) -> None:
    spec = InputSpec(kind=kind, shape=shape, dtype=dtype, units=units)
    assert InputSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(("kind", "shape"), [("smell", (1,)), ("image", (0, 7, 3)), ("series", (3, -1))])
def test_an_impossible_spec_is_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        InputSpec(kind=kind, shape=shape, dtype="uint8", units="")


def test_facts_of_a_series_are_kept_and_old_ones_are_read_without_them() -> None:
    spec = series_spec(["ax", "ay", "az"], 128, rate_hz=100.0, units="m/s^2")
    assert spec.shape == (3, 128)
    assert InputSpec.from_json(spec.to_json()) == spec
    bare = {"kind": "series", "shape": [3, 11], "dtype": "float32", "units": "m/s^2"}
    assert InputSpec.from_json(bare) == SERIES == series_spec(3, 11, units="m/s^2")
    assert SERIES.to_json() == bare, "what is not known is left out"
    assert series_spec(1, 4000, rate_hz=8000, kind="clip").kind == "clip"


@pytest.mark.parametrize("rate_hz", [0, -1.0, float("nan"), float("inf"), True, "100", 10**400, [1]])
def test_a_rate_that_is_no_positive_number_is_refused(rate_hz: object) -> None:
    with pytest.raises(InputError, match="rate_hz must be a positive, finite number"):
        InputSpec.from_json(SERIES.to_json() | {"rate_hz": rate_hz})


@pytest.mark.parametrize("channels", [["a"], ["a", "b", 3], "abc", {"a": 1}])
def test_names_that_are_not_one_per_channel_are_refused(channels: object) -> None:
    with pytest.raises(InputError, match="channels must be"):
        InputSpec.from_json(SERIES.to_json() | {"channels": channels})


def test_an_image_has_no_rate() -> None:
    with pytest.raises(InputError, match="facts of a series"):
        InputSpec.from_json(IMAGE.to_json() | {"rate_hz": 30.0})


@pytest.mark.parametrize(
    ("batch", "hint"),
    [
        (np.zeros((2, 11, 3), np.float32), r"time first: type frames.transpose\(0, 2, 1\)"),
        (np.zeros((2, 3, 11), np.float64), r"Type frames.astype\('float32'\)"),
        (np.zeros((2, 3, 11), np.int16), r"Type frames.astype\('float32'\)"),
        (np.zeros((2, 3, 11), np.complex64), "got complex64"),
    ],
)
def test_a_wrong_series_says_what_to_type(batch: np.ndarray, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        SERIES.check(batch)
